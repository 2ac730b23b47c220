"""Examples of any shape, from any container: what has no probability is refused in time, and nothing is clipped."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_breast_cancer

from keras_vae import VAE, likelihoods, networks, registry
from keras_vae.config import Config, InputError

RNG = np.random.default_rng(0)
PIXELS = RNG.uniform(0, 255, size=(20, 4, 4, 1)).astype("float32")


def standardised():
    x = load_breast_cancer().data
    return ((x - x.mean(0)) / x.std(0)).astype("float32")


def of_vectors(**options):
    keras.utils.set_random_seed(0)
    return VAE(*networks.build("mlp", (30,), 4, hidden=(32,)), likelihood="gaussian", seed=0, **options)


class Batches(keras.utils.PyDataset):
    def __init__(self, x):
        super().__init__()
        self.x = x

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return (self.x[10 * index : 10 * index + 10],)


CONTAINERS = {
    "array": lambda x: x,
    "tensor": tf.convert_to_tensor,
    "dataset": lambda x: tf.data.Dataset.from_tensor_slices(x).batch(10),
    "dataset of 8-bit images": lambda x: tf.data.Dataset.from_tensor_slices(x.astype("uint8")).batch(10),
    "PyDataset": Batches,
    "generator": lambda x: ((x[first : first + 10],) for first in (0, 10)),
}


# an array is looked at before anything is compiled
@pytest.mark.parametrize(("container", "jit_compile"), [*((name, False) for name in CONTAINERS), ("dataset", True)])
def test_pixels_up_to_255_are_refused_whatever_holds_them(container, jit_compile):
    keras.utils.set_random_seed(0)
    vae = VAE(*networks.build("mlp", (4, 4, 1), 2, hidden=(4,)), seed=0)
    in_a_graph = jit_compile or container == "dataset"  # where the check stands, the others come to it by themselves
    vae.compile("adam", jit_compile=jit_compile, run_eagerly=not in_a_graph)
    before = vae.get_weights()
    for method in (vae.fit, vae.evaluate):
        options = {"shuffle": False} if method == vae.fit and container in ("PyDataset", "generator") else {}
        with pytest.raises(InputError, match=r"\[0, 1\].*Divide 8-bit images by 255"):
            method(CONTAINERS[container](PIXELS), verbose=0, **options)
    for left, right in zip(before, vae.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_bad_batch_in_the_midst_stops_training_before_it(jit_compile):
    x = RNG.uniform(size=(40, 4, 4, 1)).astype("float32")
    spoilt = x.copy()
    spoilt[33, 0, 0] = 7.0
    models = []
    for data, epochs in ((x[:30], 1), (spoilt, 1)):
        keras.utils.set_random_seed(0)
        vae = VAE(*networks.build("mlp", (4, 4, 1), 2, hidden=(4,)), seed=0)
        vae.compile("sgd", jit_compile=jit_compile)
        models.append(vae)
        dataset = tf.data.Dataset.from_tensor_slices(data).batch(10)
        if data is spoilt:
            with pytest.raises(InputError, match=r"\[0, 1\]"):
                vae.fit(dataset, epochs=epochs, verbose=0)
        else:
            vae.fit(dataset, epochs=epochs, verbose=0)
    assert int(models[1].step) == 3
    for left, right in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_allclose(left, right, atol=1e-6)


def test_standardised_columns_train_alike_from_an_array_and_a_dataset():
    x = standardised()
    losses = []
    for data in (x, tf.data.Dataset.from_tensor_slices(x).batch(32)):
        vae = of_vectors()
        vae.compile("adam")
        vae.fit(data, epochs=2, verbose=0, shuffle=False)
        losses.append(vae.evaluate(x, verbose=0))
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_means_of_real_values_are_not_clipped():
    x = standardised()
    vae = of_vectors()
    vae.compile(keras.optimizers.Adam(0.005))
    vae.fit(x, epochs=40, verbose=0)
    reconstructed = np.asarray(vae.reconstruct(x))
    assert np.mean((x - reconstructed) ** 2) < 0.4 < 0.59 < np.mean((x - np.clip(reconstructed, 0, 1)) ** 2)
    np.testing.assert_allclose(vae.predict(x, verbose=0), reconstructed, atol=1e-5)
    assert vae.generate(500, seed=1).numpy().min() < -0.5


@pytest.mark.parametrize("shape", [(30,), (6, 2), (4, 4, 1)])
def test_a_decoder_starts_at_the_mean_of_any_shape(shape):
    mean = RNG.normal(size=shape).astype("float32")
    vae = VAE(*networks.build("mlp", shape, 2, hidden=(4,)), likelihood="gaussian")
    vae.decoder.layers[-2].kernel.assign(tf.zeros_like(vae.decoder.layers[-2].kernel))
    vae.start_at_mean(mean)
    np.testing.assert_allclose(vae.decode(np.zeros((1, 2)))[0], mean, rtol=1e-6)


OUTSIDE = {
    "bernoulli": [-0.1, 1.5, np.nan, np.inf],
    "continuous_bernoulli": [-0.1, 3.0, np.nan, np.inf],
    "discretized_logistic": [-0.1, 1.5, np.nan, np.inf],
    "gaussian": [np.nan, np.inf, -np.inf],
}


@pytest.mark.parametrize("name", likelihoods.LIKELIHOODS)
def test_what_has_no_probability_is_refused_and_no_likelihood_of_it(name):
    likelihood = likelihoods.get(name)
    for value in OUTSIDE[name]:
        x = np.array([[0.0, 1.0], [0.0, value]], "float32")
        with pytest.raises(InputError, match="Values must be"):
            likelihood.check(x)
        assert not likelihood.is_likelihood_of(x)
        assert likelihood.supports(tf.constant(x)).numpy().tolist() == [True, False]
        log_prob = np.asarray(likelihood.log_prob(x, np.zeros((3, 2, 2), "float32")))
        assert np.all(np.isfinite(log_prob[:, 0])) and not np.any(np.isfinite(log_prob[:, 1]))
    likelihood.check(np.array([[0.0, 1.0]], "float32"))
    likelihood.check(np.array([[0, 1]], "uint8"))


def test_wrong_shapes_are_refused_by_name():
    with pytest.raises(InputError, match=r"Expected \(n, 30\). Received \(n, 31\)"):
        of_vectors_fit(np.zeros((5, 31), "float32"))


def of_vectors_fit(x):
    vae = of_vectors()
    vae.compile()
    vae.fit(x, verbose=0)


def test_text_is_refused():
    vae = of_vectors()
    vae.compile()
    with pytest.raises(InputError, match="real numbers"):
        vae.fit(np.full((4, 30), "a", object), verbose=0)


PRESETS = [
    ({"latent_dim": 32}, (28, 28, 1), (None, 32)),
    ({"likelihood": "gaussian", "learn_scale": True, "latent_dim": 4}, (30,), (None, 4)),
    ({"likelihood": "gaussian", "hidden": (8, 4), "posterior": "full_covariance"}, (24, 1), (None, 20)),
    (
        {"objective": "iwae", "importance_samples": 3, "prior": "gaussian_mixture", "prior_components": 4},
        (6, 5, 4),
        None,
    ),
]


@pytest.mark.parametrize("overrides, shape, code", PRESETS)
def test_a_preset_takes_what_the_command_line_takes(overrides, shape, code):
    model = VAE.from_preset("mlp", event_shape=shape, seed=1, **overrides)
    assert model.event_shape == shape and (code is None or model.encoder.output_shape[0] == code)
    config = Config().replace(output_bias="data_mean", **overrides).model
    for axis in ("likelihood", "posterior", "prior", "objective"):
        part = getattr(model, axis)
        assert registry.name_of(part) == getattr(config, axis)
        assert registry.options_of(part) == getattr(config, axis).options
    assert model.generate(2, seed=1).shape == (2, *shape)


@pytest.mark.parametrize(
    "overrides, named",
    [
        ({"latent_dim": 0}, "at least 1"),
        ({"importance_samples": 3}, "goes with iwae"),
        ({"epochs": 3}, "epochs.*training.*latent_dim"),
        ({"latent_dims": 3}, "latent_dims"),
        ({"network": "conv", "event_shape": (30,)}, "linear, mlp, gated"),
    ],
)
def test_what_a_preset_does_not_take_is_refused(overrides, named):
    with pytest.raises(InputError, match=named):
        VAE.from_preset("mlp", **overrides)
