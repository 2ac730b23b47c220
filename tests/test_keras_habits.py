"""What a Keras user does without thinking: export, pickle, lists of one input, weights, frozen layers."""

import copy
import pathlib
import pickle
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_vae
from keras_vae import conditions, networks
from keras_vae.config import InputError

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "benchmarks"))
import memory

SHAPE = (4, 4, 1)
IMAGES = np.random.default_rng(0).random((12, *SHAPE)).astype("float32")
LABELS = np.arange(12) % 3
ONLY_THE_FIRST = np.eye(12, dtype="float32")[0]


def small(model=keras_vae.VAE, condition=None, compiled=True, **options):
    keras.utils.set_random_seed(0)
    heads = {"heads": {"z": (2,)}} if model is keras_vae.Autoencoder else {}
    built = model(*networks.build("linear", SHAPE, 2, condition=condition, **heads), condition=condition, seed=1)
    if compiled:
        built.compile(keras.optimizers.SGD(1e-3), **options)
    return built


def cross_entropy(model, images=IMAGES):
    """That of each image under an autoencoder, in nats, by numpy: float64 [n]."""
    probabilities = np.asarray(model.reconstruct(images), "float64")
    terms = images * np.log(probabilities) + (1 - images) * np.log1p(-probabilities)
    return -terms.reshape(len(images), -1).sum(axis=1)


# -- what is saved and exported ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("condition", [None, conditions.Label(3)])
def test_export_serves_predictions_after_fit_and_after_loading(condition, tmp_path):
    model = small(condition=condition)
    given, y = (IMAGES, None) if condition is None else ([IMAGES, LABELS], LABELS)
    model.fit(IMAGES, y, verbose=0)
    model.save(tmp_path / "model.keras")
    for number, one in enumerate((model, keras.saving.load_model(tmp_path / "model.keras"))):
        one.export(tmp_path / str(number), verbose=False)
        exported = tf.saved_model.load(tmp_path / str(number))
        np.testing.assert_allclose(exported.serve(given), model.predict(given, verbose=0), atol=1e-6)


def test_hdf5_that_could_not_be_loaded_is_refused_and_its_weights_are_not(tmp_path):
    model = small()
    with pytest.raises(InputError, match="save it as .keras"):
        model.save(tmp_path / "model.h5")
    assert not list(tmp_path.iterdir())
    model.save_weights(tmp_path / "model.weights.h5")
    other = small()
    other.decoder.set_weights([weight + 1 for weight in other.decoder.get_weights()])
    other.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(other.predict(IMAGES, verbose=0), model.predict(IMAGES, verbose=0))


COMPILED = {
    "auto": {},
    "compiled": {"jit_compile": True, "steps_per_execution": 3},
    "plain": {"jit_compile": False, "metrics": ["mse"], "weighted_metrics": ["mae"]},
    "eager": {"run_eagerly": True, "jit_compile": True},
    "unscaled": {"auto_scale_loss": False},
}


@pytest.mark.parametrize(
    "name", [name if name in ("auto", "eager") else pytest.param(name, marks=pytest.mark.slow) for name in COMPILED]
)
def test_what_compile_was_given_survives_saving_pickling_and_cloning(name, tmp_path):
    options = COMPILED[name]
    model = small(**options)
    model.evaluate(IMAGES, verbose=0)
    asked = model.get_compile_config()
    assert {name: asked[name] for name in options} == options
    assert "jit_compile" in options or asked["jit_compile"] == "auto"
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for other in (loaded, pickle.loads(pickle.dumps(model)), copy.deepcopy(loaded), keras.models.clone_model(model)):
        assert other.get_compile_config() == asked
        assert (other.run_eagerly, other.steps_per_execution) == (model.run_eagerly, model.steps_per_execution)
        assert np.isfinite(other.train_on_batch(IMAGES)).all()


# -- what is trained on ------------------------------------------------------------------------------------------------


def test_a_list_of_one_input_is_that_input():
    model = small(keras_vae.Autoencoder)
    expected = pytest.approx(cross_entropy(model).mean(), rel=1e-5)
    assert model.evaluate([IMAGES], verbose=0, return_dict=True)["loss"] == expected
    assert model.test_on_batch([IMAGES], return_dict=True)["loss"] == expected
    np.testing.assert_array_equal(model.predict([IMAGES], verbose=0), model.reconstruct(IMAGES))
    np.testing.assert_array_equal(model.predict_on_batch([IMAGES]), model.reconstruct(IMAGES))
    logs = model.fit([IMAGES], validation_data=([IMAGES], None), verbose=0).history
    assert logs["loss"][0] == expected
    assert logs["val_loss"][0] == pytest.approx(cross_entropy(model).mean(), rel=1e-5)


@pytest.mark.parametrize("x", [[IMAGES, IMAGES], {"image": IMAGES}, []])
def test_several_inputs_are_refused_in_one_line(x):
    with pytest.raises(InputError, match="examples in one array") as refused:
        small().fit(x, verbose=0)
    assert "\n" not in str(refused.value)


def test_arguments_by_position_are_those_of_keras():
    model = small()
    fitted = model.fit(IMAGES, None, 5, 2, 0)  # batch_size, epochs, verbose
    assert (fitted.params["steps"], fitted.params["epochs"], fitted.params["verbose"]) == (3, 2, 0)
    counted = keras.callbacks.LambdaCallback()
    seen = []
    counted.on_test_batch_end = lambda batch, logs=None: seen.append(batch)
    model.evaluate(IMAGES, None, 5, 0, None, 2, [counted])  # batch_size, verbose, sample_weight, steps, callbacks
    assert seen == [0, 1]
    assert len(model.predict(IMAGES, 5, 0, 2)) == 10  # batch_size, verbose, steps


class Batches(keras.utils.PyDataset):
    def __init__(self, batch, **options):
        super().__init__(**options)
        self.batch = batch

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return self.batch


def generator(batch):
    for _ in range(2):
        yield batch


WEIGHTED = {
    "array": lambda: {"x": IMAGES, "sample_weight": ONLY_THE_FIRST},
    "PyDataset": lambda: {"x": Batches((IMAGES, None, ONLY_THE_FIRST))},
    "workers": lambda: {"x": Batches((IMAGES, None, ONLY_THE_FIRST), workers=2)},
    "generator": lambda: {"x": generator((IMAGES, None, ONLY_THE_FIRST)), "steps": 2},
    "dataset": lambda: {"x": tf.data.Dataset.from_tensors((IMAGES, 0.0, ONLY_THE_FIRST))},
}


@pytest.mark.parametrize("name", WEIGHTED)
def test_weights_without_a_target_weigh(name):
    model = small(keras_vae.Autoencoder)
    expected = pytest.approx(cross_entropy(model)[0], rel=1e-5)
    assert model.evaluate(**WEIGHTED[name](), verbose=0, return_dict=True)["loss"] == expected
    options = WEIGHTED[name]()
    steps = {"steps_per_epoch": options.pop("steps")} if "steps" in options else {}
    model.optimizer.learning_rate = 0.0
    assert model.fit(**options, **steps, verbose=0).history["loss"][0] == expected


@pytest.mark.parametrize("y", [None, IMAGES])
def test_validation_data_keep_their_weights(y):
    model = small(keras_vae.Autoencoder)
    logs = model.fit(IMAGES, validation_data=(IMAGES, y, ONLY_THE_FIRST), epochs=2, verbose=0).history
    assert logs["val_loss"][-1] == pytest.approx(cross_entropy(model)[0], rel=1e-5)
    assert abs(cross_entropy(model)[0] - cross_entropy(model).mean()) > 0.05


def test_weights_of_a_conditional_model_are_never_taken_for_its_labels():
    model = small(condition=conditions.Label(3))
    with pytest.raises(InputError, match="label is needed"):
        model.evaluate(Batches((IMAGES,)), verbose=0)
    with pytest.raises(InputError, match="label is needed"):
        model.evaluate(IMAGES, sample_weight=ONLY_THE_FIRST, verbose=0)


@pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_dataset_that_does_not_say_its_shapes(jit_compile):
    def batches(*parts):
        types = tuple(tf.as_dtype(part.dtype) for part in parts)
        return tf.data.Dataset.from_generator(lambda: iter([parts] * 2), output_types=types)

    assert batches(IMAGES).element_spec[0].shape.rank is None
    model = small(condition=conditions.Label(3), jit_compile=jit_compile)
    assert np.isfinite(model.fit(batches(IMAGES, LABELS), verbose=0).history["loss"]).all()
    plain = small(keras_vae.Autoencoder, jit_compile=jit_compile)
    expected = pytest.approx(cross_entropy(plain).mean(), rel=1e-5)
    assert plain.evaluate(batches(IMAGES), verbose=0, return_dict=True)["loss"] == expected
    assert plain.predict(batches(IMAGES), verbose=0).shape == (24, *SHAPE)
    with pytest.raises(InputError, match=r"Expected \(n, 4, 4, 1\). Received \(n, 2, 4, 1\)"):
        plain.evaluate(batches(IMAGES[:, :2]), verbose=0)


def test_a_conditional_model_predicts_from_what_it_is_fitted_to():
    model = small(condition=conditions.Label(3))
    data = tf.data.Dataset.from_tensor_slices((IMAGES, LABELS)).batch(5)
    expected = model.reconstruct(IMAGES, LABELS)
    np.testing.assert_allclose(model.predict(data, verbose=0), expected, atol=1e-6)
    np.testing.assert_allclose(model.predict([IMAGES, LABELS], verbose=0), expected, atol=1e-6)
    with pytest.raises(InputError, match="label is needed") as refused:
        model.predict(IMAGES, verbose=0)
    assert "\n" not in str(refused.value)


# -- what is compiled and logged ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_frozen_model_is_fitted_and_stays_as_it_is(jit_compile):
    model = small(compiled=False)
    model.trainable = False
    model.compile("adam", jit_compile=jit_compile)
    before = model.get_weights()
    assert np.isfinite(model.fit(IMAGES, verbose=0, epochs=2).history["loss"]).all()
    moved = [not np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True)]
    names = {variable.path.rpartition("/")[2] for variable, has in zip(model.weights, moved, strict=True) if has}
    assert names <= {"step", "seed_generator_state"}


def test_the_loss_comes_first_also_with_metrics():
    model = small(keras_vae.Autoencoder, metrics=["mse"], weighted_metrics=["mae"])
    loss = pytest.approx(cross_entropy(model).mean(), rel=1e-5)
    mse = pytest.approx(np.square(IMAGES - np.asarray(model.reconstruct(IMAGES))).mean(), rel=1e-5)
    for found in (model.evaluate(IMAGES, verbose=0), model.test_on_batch(IMAGES), model.train_on_batch(IMAGES)):
        assert found[0] == loss and found[2] == mse


def test_regularisers_of_the_networks_are_part_of_the_logged_loss():
    encoder, _ = networks.build("linear", SHAPE, 2, heads={"z": (2,)})
    regularised = keras.Sequential([keras.Input((2,)), keras.layers.Dense(16, kernel_regularizer="l2")])
    regularised.add(keras.layers.Reshape(SHAPE))
    model = keras_vae.Autoencoder(encoder, regularised)
    model.compile(keras.optimizers.SGD(0.0))
    penalty = 0.01 * np.square(regularised.layers[0].get_weights()[0]).sum()
    expected = cross_entropy(model).mean()
    found = model.fit(IMAGES, verbose=0).history
    assert penalty > 1e-3
    assert found["reconstruction_loss"][0] == pytest.approx(expected, rel=1e-5)
    assert found["loss"][0] == pytest.approx(expected + penalty, rel=1e-5)
    assert model.evaluate(IMAGES, verbose=0)[0] == pytest.approx(expected + penalty, rel=1e-5)


def test_two_event_dimensions_are_a_sequence_and_no_image():
    assert keras_vae.VAE.from_preset("mlp", event_shape=(28, 28)).reconstruct(np.zeros((2, 28, 28))).shape == (
        2,
        28,
        28,
    )
    with pytest.raises(InputError, match=r"Network conv is for image data.*Expected one of: linear, mlp"):
        keras_vae.VAE.from_preset("conv", event_shape=(28, 28))


@pytest.mark.parametrize("name", keras_vae.__all__)
def test_every_public_name_comes_with_the_import(name):
    assert getattr(keras_vae, name) is not None
    assert name in dir(keras_vae)


def test_what_is_not_compiled_says_so_as_in_keras():
    model = small(compiled=False)
    for method in (model.fit, model.evaluate, model.train_on_batch, model.test_on_batch):
        with pytest.raises(ValueError, match=r"You must call `compile\(\)`"):
            method(IMAGES)


def test_a_step_is_traced_once():
    """A second trace would take seconds, and TensorFlow keeps the graph of the first for as long as a process runs."""
    model, traces = small(), []
    step = model.train_step
    model.train_step = lambda data: traces.append(data) or step(data)
    model.fit(IMAGES, batch_size=4, epochs=2, verbose=0)
    assert len(traces) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("jit_compile", "most"), [(False, 1.0), (True, 1.3)])
def test_one_model_after_another_takes_no_more_memory_than_in_plain_keras(jit_compile, most):
    plain, ours = (memory.measured(kind, jit_compile, models=5 if jit_compile else 8) for kind in memory.KINDS)
    assert ours < most * plain
