"""The conditional VAE: the label reaches every place that it must, and one that is missing or wrong is refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases import Case, build, images, labels
from conftest import only_trained

from keras_vae import VAE, cli, evaluation, networks
from keras_vae.conditions import Label, Vector
from keras_vae.config import InputError
from keras_vae.priors import VampPrior

CASE = Case("conditional", {"condition": "label", "num_classes": 3})
X, (Y,) = images(CASE), labels(CASE)


def compiled(**options):
    model = build(CASE)
    model.compile(keras.optimizers.SGD(0.01), **options)
    return model


def one_hot(y):
    return np.eye(3)[y]


# -- what is computed -----------------------------------------------------------------------------------------------


def test_label_joins_pixels_and_z_of_an_mlp():
    model = build(CASE)
    weights = [np.asarray(weight, "float64") for weight in model.encoder.weights[:4]]
    hidden = np.maximum(np.concatenate([X.reshape(8, -1), one_hot(Y)], axis=1) @ weights[0] + weights[1], 0)
    np.testing.assert_allclose(model.encode(X, Y)[0], hidden @ weights[2] + weights[3], atol=1e-5)
    z = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
    weights = [np.asarray(weight, "float64") for weight in model.decoder.weights]
    hidden = np.maximum(np.concatenate([z, one_hot(Y)], axis=1) @ weights[0] + weights[1], 0)
    logits = (hidden @ weights[2] + weights[3]).reshape(X.shape)
    np.testing.assert_allclose(model.decode(z, Y), 1 / (1 + np.exp(-logits)), atol=1e-5)


@pytest.mark.parametrize("network", ["conv", "resnet"])
def test_label_joins_the_channels_of_a_convolution_as_constant_planes(network):
    encoder, decoder = networks.build(network, (8, 8, 1), 2, hidden=(4,), decoder_channels=5, condition=Label(3))
    joined = next(layer for layer in encoder.layers if isinstance(layer, keras.layers.Concatenate)).output
    planes = np.broadcast_to(one_hot(Y)[:, None, None], (8, 8, 8, 3))
    np.testing.assert_array_equal(
        keras.Model(encoder.inputs, joined)([X, Y]), np.concatenate([X, planes], axis=-1, dtype="float32")
    )
    assert [tuple(tensor.shape) for tensor in decoder.inputs] == [(None, 2), (None,)]


def test_each_of_several_draws_is_decoded_under_the_label_of_its_own_image():
    model = build(CASE)
    z = tf.random.stateless_normal((3, 8, 3), [0, 1])
    together = model.log_likelihood(X, z, Y)
    alone = [model.log_likelihood(X, z[s : s + 1], Y)[0] for s in range(3)]
    np.testing.assert_allclose(together, alone, rtol=1e-5)
    assert np.abs(together - model.log_likelihood(X, z, (Y + 1) % 3)).min() > 1e-4


def test_interpolation_stays_in_the_class_of_its_ends():
    model = build(CASE)
    path = np.asarray(model.interpolate(X[:3], X[3:6], steps=4, condition=Y[:3]))
    z_start, z_end = (np.asarray(model.code(x, Y[:3])) for x in (X[:3], X[3:6]))
    for step in range(4):
        expected = model.decode(z_start + step / 3 * (z_end - z_start), Y[:3])
        np.testing.assert_allclose(path[:, step], expected, atol=1e-5)


def test_label_decides_the_image_where_nothing_else_does():
    rng = np.random.default_rng(0)
    classes = (rng.uniform(size=(3, 8, 8, 1)) > 0.5).astype("float32")
    y = rng.integers(0, 3, 300)
    model = build(CASE)
    model.compile(keras.optimizers.Adam(0.02))
    logs = model.fit(classes[y], y, batch_size=100, epochs=60, verbose=0).history
    assert logs["loss"][-1] < 3 and logs["kl_loss"][-1] < 0.5  # nothing is left for z to say
    every = np.arange(3)
    others = classes[(every + 1) % 3]
    assert (
        np.abs(model.generate(150, 1, np.repeat(every, 50)) - np.repeat(classes, 50, axis=0)).mean()
        < 0.05
        < 0.3
        < np.abs(classes - others).mean()
    )
    assert np.abs(model.reconstruct(classes, (every + 1) % 3) - others).mean() < 0.05
    right, wrong = (model.evaluate(classes, labels, verbose=0)[0] for labels in (every, every[::-1].copy()))
    assert wrong > right + 20


def test_nll_is_that_of_the_image_given_its_label():
    model, x = build(CASE), np.round(X)
    for weight in model.encoder.weights[2:]:  # q(z|x, y) = p(z)
        weight.assign(0 * weight)
    kernel = model.decoder.weights[0]
    kernel.assign(kernel * np.float32([[0]] * 3 + [[1]] * 3))  # nothing of z is left in the logits
    results = evaluation.evaluate(model, x, labels=Y, nll_samples=3)
    p = np.asarray(model.decode(np.zeros((8, 3)), Y), "float64")
    nll = -np.log(np.where(x == 1, p, 1 - p)).sum(axis=(1, 2, 3)).mean()
    for name in ("conditional_nll", "loss"):
        assert results[name] == pytest.approx(nll, rel=1e-5)
    other = evaluation.evaluate(model, x, labels=(Y + 1) % 3, nll_samples=3)
    assert abs(other["conditional_nll"] - nll) > 1e-3
    prior = evaluation.evaluate(model, x, labels=Y, nll_samples=3, estimator="prior")
    assert prior["prior_sampled_conditional_nll"] == pytest.approx(nll, rel=1e-5)


# -- labels that are refused ----------------------------------------------------------------------------------------


def pairs(y):
    return tf.data.Dataset.from_tensor_slices((X, y)).batch(4)


NONE, FLOAT, RANGE, COUNT = "Received: none", "float64", "labels from 1 to 3", "3 labels for 8"
BAD_CALLS = {
    "fit without": (lambda model: model.fit(X, verbose=0), NONE),
    "fit on floats": (lambda model: model.fit(X, Y.astype(float), verbose=0), FLOAT),
    "fit out of range": (lambda model: model.fit(X, Y + 1, verbose=0), RANGE),
    "fit on negative": (lambda model: model.fit(X, Y - 1, verbose=0), "labels from -1 to 1"),
    "fit on a column": (lambda model: model.fit(X, Y[:, None], verbose=0), r"shape \(8, 1\)"),
    "fit on one-hot": (lambda model: model.fit(X, one_hot(Y), verbose=0), r"shape \(8, 3\)"),
    "dataset without": (lambda model: model.fit(tf.data.Dataset.from_tensor_slices(X).batch(4), verbose=0), NONE),
    "dataset of floats": (lambda model: model.fit(pairs(Y.astype(float)), verbose=0), FLOAT),
    "dataset out of range": (lambda model: model.fit(pairs(Y + 1), verbose=0), "labels from 1 to 3"),
    "generator without": (lambda model: model.fit(((X[:4],) for _ in range(2)), verbose=0, shuffle=False), NONE),
    "validation without": (lambda model: model.fit(X, Y, validation_data=(X,), verbose=0), NONE),
    "fit on too few": (lambda model: model.fit(X, Y[:3], verbose=0), COUNT),
    "evaluate too few": (lambda model: model.evaluate(X, Y[:3], verbose=0), COUNT),
    "evaluate without": (lambda model: model.evaluate(X, verbose=0), NONE),
    "evaluate a dataset": (lambda model: model.evaluate(pairs(Y + 1), verbose=0), "labels from 1 to 3"),
    "encode without": (lambda model: model.encode(X), NONE),
    "encode too few": (lambda model: model.encode(X, Y[:3]), COUNT),
    "call on too few": (lambda model: model((X, Y[:3])), COUNT),
    "call without": (lambda model: model(X), NONE),
    "reconstruct out of range": (lambda model: model.reconstruct(X, Y + 1), RANGE),
    "interpolate too few": (lambda model: model.interpolate(X, X, condition=Y[:3]), COUNT),
    "decode too few": (lambda model: model.decode(np.zeros((8, 3)), Y[:3]), COUNT),
    "decode out of range": (lambda model: model.decode(np.zeros((8, 3)), Y + 1), RANGE),
    "generate without": (lambda model: model.generate(4), NONE),
    "generate too few": (lambda model: model.generate(4, condition=[1, 2]), "2 labels for 4"),
    "generate out of range": (lambda model: model.generate(1, condition=[7]), "labels from 7 to 7"),
}


@pytest.mark.parametrize("call, received", BAD_CALLS.values(), ids=BAD_CALLS)
def test_wrong_labels_are_refused_and_nothing_is_trained(call, received):
    model = compiled(run_eagerly=True)
    before = model.get_weights()
    with pytest.raises(InputError, match=rf"integers from 0 to 2(?s:.*){received}"):
        call(model)
    for left, right in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)


def test_a_graph_refuses_a_label_out_of_range_with_the_weights_before_it():
    model, reference = compiled(), compiled()
    spoilt = np.where(np.arange(8) < 4, Y, 3)
    reference.run_eagerly = True
    reference.fit(X[:4], Y[:4], verbose=0)
    with pytest.raises(InputError, match="integers from 0 to 2"):
        model.fit(pairs(spoilt), verbose=0)
    assert int(model.step) == 1
    for left, right in zip(model.get_weights(), reference.get_weights(), strict=True):
        np.testing.assert_allclose(left, right, atol=1e-7)


@pytest.mark.parametrize("num_classes", [0, -1, 2.0, None, "ten"])
def test_bad_number_of_classes_is_refused_by_name(num_classes):
    with pytest.raises(InputError, match="`num_classes`"):
        Label(num_classes)
    with pytest.raises(InputError, match="`size`"):
        Vector(num_classes)


def test_networks_that_take_no_label_are_refused():
    with pytest.raises(InputError, match=r"`encoder` must take a list of \(None, 8, 8, 1\) and a condition"):
        VAE(*networks.build("linear", (8, 8, 1), 2), condition=Label(3))


def test_a_condition_for_a_model_without_one_is_refused():
    model = VAE(*networks.build("linear", (8, 8, 1), 2))
    for call in (
        lambda: model.encode(X, Y),
        lambda: model.decode(np.zeros((8, 2)), Y),
        lambda: model.generate(8, 1, Y),
    ):
        with pytest.raises(InputError, match="has no condition"):
            call()


def test_one_condition_is_that_of_all_that_are_generated():
    model = build(CASE)
    np.testing.assert_array_equal(model.generate(3, 1, 2), model.generate(3, 1, [2, 2, 2]))


def test_a_vector_joins_pixels_and_z():
    condition = Vector(2)
    model = VAE(*networks.build("linear", (8, 8, 1), 3, condition=condition), condition=condition)
    c = np.random.default_rng(0).normal(size=(8, 2)).astype("float32")
    weights = [np.asarray(weight, "float64") for weight in model.encoder.weights[:2]]
    np.testing.assert_allclose(
        model.encode(X, c)[0], np.concatenate([X.reshape(8, -1), c], axis=1) @ weights[0] + weights[1], atol=1e-5
    )
    assert model.generate(3, 1, [0.5, -1.0]).shape == (3, 8, 8, 1)
    model.compile()
    model.fit(X, c, verbose=0)
    with pytest.raises(InputError, match=r"finite numbers of shape \(n, 2\)"):
        model.fit(X, np.full_like(c, np.nan), verbose=0)


def test_a_prior_whose_pseudo_inputs_have_no_labels_is_refused():
    for prior in ("vampprior", VampPrior(3)):
        with pytest.raises(InputError, match="no vampprior"):
            VAE(*networks.build("linear", (8, 8, 1), 2, condition=Label(3)), condition=Label(3), prior=prior)


# -- the command line -----------------------------------------------------------------------------------------------


def train(run):
    short = ["--dataset", "digits", "--epochs", "1", "--hidden", "8", "--latent-dim", "2", "--nll-samples", "2"]
    assert cli.main(["train", "conditional", *short, "--run-dir", str(run)]) == 0
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with only_trained():
        return train(tmp_path_factory.mktemp("runs") / "conditional")


@pytest.mark.slow
def test_a_run_draws_a_row_for_each_class_and_knows_its_likelihood(tmp_path):
    run = train(tmp_path / "run")
    figures = {path.stem for path in (run / "figures").glob("*.png")}
    assert {"samples", "manifold", "interpolations", "reconstructions", "traversals"} <= figures
    assert (run / "export" / "vae" / "1").exists()


def test_generate_takes_a_label(run, tmp_path, capsys):
    for name, options in (("threes", ["--label", "3"]), ("all", [])):
        assert cli.main(["generate", str(run), "--count", "12", *options, "--to", str(tmp_path / f"{name}.npy")]) == 0
    model = keras.saving.load_model(run / "model.keras")
    np.testing.assert_allclose(np.load(tmp_path / "threes.npy"), model.generate(12, 0, 3), atol=1e-6)
    np.testing.assert_allclose(np.load(tmp_path / "all.npy"), model.generate(12, 0, [*range(10), 0, 1]), atol=1e-6)
    capsys.readouterr()
    assert cli.main(["generate", str(run), "--label", "10"]) == 2
    assert "integers from 0 to 9" in capsys.readouterr().err


def test_reconstruct_and_encode_give_the_model_its_labels(run, tmp_path):
    from keras_vae import data

    test = data.open_dataset("digits").test
    model, pixels = keras.saving.load_model(run / "model.keras"), data.to_pixels(test.images)
    assert cli.main(["encode", str(run), "--to", str(tmp_path / "codes.npz")]) == 0
    np.testing.assert_allclose(np.load(tmp_path / "codes.npz")["z_mean"], model.code(pixels, test.labels), atol=1e-5)
    assert cli.main(["reconstruct", str(run), "--count", "7", "--to", str(tmp_path / "seven.npy")]) == 0
    expected = model.reconstruct(pixels[:7], test.labels[:7])
    np.testing.assert_allclose(np.load(tmp_path / "seven.npy"), expected, atol=1e-5)


def test_data_without_labels_or_with_too_many_are_refused_before_anything_is_written(tmp_path, capsys):
    pixels = np.zeros((20, 8, 8), "uint8")
    np.save(tmp_path / "plain.npy", pixels)
    np.savez(tmp_path / "many.npz", images=pixels, labels=np.arange(20))
    for file, message in (("plain.npy", "needs labels"), ("many.npz", "--num-classes 20")):
        arguments = ["--dataset", str(tmp_path / file), "--run-dir", str(tmp_path / "run")]
        assert cli.main(["train", "conditional", *arguments]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1 and not (tmp_path / "run").exists()
