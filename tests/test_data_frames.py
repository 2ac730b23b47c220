"""A pandas DataFrame is a table of numbers, or is refused in one clear line."""

import keras
import numpy as np
import pytest

from keras_vae import VAE, networks
from keras_vae.config import InputError

pandas = pytest.importorskip("pandas")
X = np.random.default_rng(0).normal(size=(40, 5)).astype("float32")


def model(likelihood="gaussian"):
    keras.utils.set_random_seed(0)
    vae = VAE(*networks.build("mlp", (5,), 2, hidden=(4,)), likelihood=likelihood, seed=0)
    vae.compile("sgd")
    return vae


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_data_frame_trains_as_its_values_do(dtype):
    frame = pandas.DataFrame(X.astype(dtype), columns=list("abcde"))
    results = []
    for x in (X, frame):
        vae = model()
        vae.fit(x, verbose=0, shuffle=False)
        results.append([*vae.get_weights(), vae.predict(x, verbose=0), np.asarray(vae.reconstruct(x))])
        results[-1] += list(vae.evaluate(x, verbose=0, return_dict=True).values())
    for left, right in zip(*results, strict=True):
        np.testing.assert_allclose(left, right, atol=1e-6)


FRAMES = {
    "values out of range": (lambda frame: frame.abs() * 255, "bernoulli", "Divide 8-bit images by 255"),
    "text": (lambda frame: frame.assign(e="a"), "gaussian", r"Columns .* must be numbers. Received others: e \("),
    "categories": (lambda frame: frame.astype({"a": "category"}), "gaussian", r"others: a \(category\)"),
    "nullable": (lambda frame: frame.astype("Float64").mask(frame > 1), "gaussian", r"a \(Float64\)"),
    "missing": (lambda frame: frame.mask(frame > 1), "gaussian", "without NaN"),
    "other columns": (lambda frame: frame[["a", "b"]], "gaussian", r"Expected \(n, 5\). Received \(n, 2\)"),
}


@pytest.mark.parametrize("name", FRAMES)
def test_a_data_frame_that_has_no_probability_is_refused(name):
    change, likelihood, expected = FRAMES[name]
    vae, frame = model(likelihood), change(pandas.DataFrame(X, columns=list("abcde")))
    for method in (vae.fit, vae.evaluate):
        with pytest.raises(InputError, match=expected):
            method(frame, verbose=0)
