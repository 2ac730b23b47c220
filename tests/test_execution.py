"""Training as one program of XLA: the same training, and only where it pays."""

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from cases import CASES, build, images, labels, over

from keras_vae import installed, layers, networks, noise
from keras_vae.callbacks import ImageGrids
from keras_vae.models import VAE, NonFiniteLossError
from keras_vae.train import runners

BY_NAME = {case.name: case for case in CASES}
SGD = keras.optimizers.SGD
# one for each way through the loss: a program takes seconds to compile
CASES_OF_A_KIND = ("mlp", "warm-up", "iwae", "vampprior", "hierarchical", "conditional", "denoising-gaussian")


@pytest.fixture
def same_noise(monkeypatch):
    """XLA makes other random numbers of a seed than TensorFlow: numbers here that are the same in both."""

    def silence(name):
        draw = getattr(tf.random, name)

        def numbers(shape, seed, dtype="float32", alg="auto_select", **others):
            if alg != noise.RNG:  # Keras's initializers
                return draw(shape, seed=seed, dtype=dtype, alg=alg, **others)
            where = tf.cast(tf.reduce_sum(seed) % 100, dtype)  # the same for an example in a batch of any size
            for axis, length in enumerate(tf.unstack(shape)):
                where = where[..., None] + (12.9898 + 4.1414 * axis) * tf.cast(tf.range(length), dtype)
            if isinstance(shape, tuple):
                where.set_shape([length if isinstance(length, int) else None for length in shape])
            return 0.5 + 0.5 * tf.sin(where)

        monkeypatch.setattr(tf.random, name, numbers)

    silence("stateless_normal")
    silence("stateless_uniform")


def trained(case, jit_compile, epochs=2, callbacks=None, **options):
    """Four steps in an epoch, the last of an unfinished batch."""
    model = build(case)
    model.compile(SGD(1e-3, momentum=0.9), jit_compile=jit_compile, **options)
    data = tf.data.Dataset.from_tensor_slices((images(case, 14), *labels(case, 14))).batch(4)
    history = model.fit(data, epochs=epochs, verbose=0, callbacks=callbacks).history
    return model, {name: values[-1] for name, values in history.items()}


def same_variables(left, right, rtol=0.0, atol=0.0):
    for a, b in zip(
        left.variables + left.optimizer.variables, right.variables + right.optimizer.variables, strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


@over([BY_NAME[name] for name in CASES_OF_A_KIND], quick={"mlp"})
def test_compiled_training_is_the_plain_one_to_rounding(case, same_noise):
    """Weights, optimizer, counters, seeds and logs."""
    plain, logs = trained(case, jit_compile=False)
    compiled, compiled_logs = trained(case, jit_compile=True)
    assert compiled._programs is not None and plain._programs is None
    assert compiled_logs == pytest.approx(logs, rel=1e-4)
    same_variables(compiled, plain, rtol=1e-4, atol=1e-6)
    assert int(compiled.step) == 8


class Looks(keras.callbacks.Callback):
    """Looks at the model every so many steps."""

    def __init__(self, every):
        super().__init__()
        self.every, self.step, self.seen = every, 0, []

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        if self.step % self.every == 0:
            self.seen.append((self.step, int(self.model.step), self.model.steps_pending))


@pytest.mark.parametrize("every", [3, pytest.param(2, marks=pytest.mark.slow)])
def test_number_of_steps_in_a_program_changes_no_bit(every):
    case = BY_NAME["mlp"]
    alone, _ = trained(case, jit_compile=True)
    looks = Looks(every)
    model, _ = trained(case, jit_compile=True, callbacks=[looks])
    assert looks.seen == [(step, step, 0) for step in range(every, 9, every)]
    same_variables(model, alone)


@pytest.mark.slow
def test_endless_data_are_taken_an_epoch_at_a_time():
    case = BY_NAME["mlp"]
    model = build(case)
    model.compile(SGD(1e-3), jit_compile=True, steps_per_execution=4)
    endless = tf.data.Dataset.from_tensor_slices(images(case, 6)).batch(2).repeat()
    model.fit(endless, steps_per_epoch=5, epochs=3, verbose=0)
    assert int(model.step) == 15


def test_noise_of_a_program_is_normal_and_new_at_each_step_and_pixel():
    sampling = layers.Sampling(seed=3)
    sampling.build(((None, 5), (None, 5)))

    @tf.function(jit_compile=True)
    def draws():
        def one(number, found):
            z = sampling.draw((tf.zeros((40, 5)), tf.zeros((40, 5))), 2).z
            return number + 1, tf.tensor_scatter_nd_update(found, [[number]], [z])

        return tf.while_loop(lambda number, found: number < 100, one, (0, tf.zeros((100, 2, 40, 5))))[1]

    first, second = draws().numpy(), draws().numpy()
    assert scipy.stats.kstest(first.ravel(), "norm").pvalue > 1e-3
    assert len(np.unique(first)) > 0.99 * first.size  # float32 has equal neighbours among 40,000 draws
    for a, b in [
        (first, second),
        (first[1:], first[:-1]),
        (first[:, 0], first[:, 1]),
        (first[..., 1:], first[..., :-1]),
    ]:
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 5 / np.sqrt(a.size)


IS_EXACT = installed.parsed(tf.__version__) >= (2, 21)


def test_nan_stops_a_program_at_its_step_with_the_weights_before():
    case = BY_NAME["mlp"]
    x = images(case, 12)
    weight = np.ones(12, "float32")
    weight[8:] = np.nan  # of the third batch
    model, reference = build(case), build(case)
    for each in (model, reference):
        each.compile(keras.optimizers.Adam(1e-3), jit_compile=True)
    reference.fit(tf.data.Dataset.from_tensor_slices(x[:8]).batch(4), verbose=0)
    with pytest.raises(NonFiniteLossError, match="at step 3"):
        model.fit(tf.data.Dataset.from_tensor_slices((x, x, weight)).batch(4), verbose=0)
    for a, b in zip(model.weights + model.optimizer.variables, reference.weights + reference.optimizer.variables):
        # another program, which the XLA of TensorFlow before 2.21 rounds otherwise
        np.testing.assert_allclose(a, b, rtol=0 if IS_EXACT else 1e-5, atol=0 if IS_EXACT else 1e-8)


def is_compiled(case="mlp", total_steps=1000, **options):
    model = build(BY_NAME[case])
    model.compile(**{"optimizer": "adam", **options})
    return runners.is_compiled(model, total_steps)


def test_compiled_where_it_pays_and_nowhere_else():
    assert is_compiled() and is_compiled("iwae")
    assert not is_compiled(total_steps=900) and not is_compiled(total_steps=None)  # compiling takes longer
    assert not is_compiled("conv")
    assert not is_compiled(jit_compile=False) and not is_compiled(run_eagerly=True)
    assert not is_compiled(metrics=["mse"])
    assert is_compiled("conv", total_steps=500, jit_compile=True)


def test_networks_and_optimizers_that_are_not_of_keras_are_left_alone():
    class Own(keras.layers.Dense):
        pass

    class OwnSGD(SGD):
        pass

    model = build(BY_NAME["mlp"])
    model.compile(OwnSGD())
    assert not runners.compiles_well(model)
    for layer in (Own(6), keras.layers.Lambda(lambda x: x), keras.layers.Dropout(0.1)):
        encoder, decoder = networks.build("mlp", (8, 8, 1), 3, hidden=(6,))
        outputs = [keras.layers.Dense(3)(layer(encoder.layers[-3].output)) for _ in range(2)]
        model = VAE(keras.Model(encoder.input, outputs), decoder)
        model.compile("adam")
        assert not runners.compiles_well(model), layer

    class Declared(keras.layers.Dense):
        compiles_on = ("CPU", "GPU")

    class Inherits(Declared):
        pass

    assert runners.compiles_on(Declared(6)) == ("CPU", "GPU") and not runners.compiles_on(Inherits(6))


def test_callbacks_are_called_as_often_as_they_look(tmp_path):
    class EachStep(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            pass

    def at_once(*callbacks, case="mlp"):
        return runners.steps_at_once(build(BY_NAME[case]), callbacks, 500)

    each_step = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: None)
    assert at_once(EachStep()) == at_once(each_step) == 1
    assert at_once(ImageGrids(lambda: None, tmp_path, every=7)) == 7
    assert at_once(keras.callbacks.ModelCheckpoint("x.keras", save_freq=5)) == 5
    assert at_once(keras.callbacks.TensorBoard(tmp_path, update_freq=9)) == 9
    assert at_once(keras.callbacks.TensorBoard(tmp_path, write_steps_per_second=True)) == 1
    assert at_once(keras.callbacks.TensorBoard(tmp_path, profile_batch=(3, 4))) == 1
    rare = [keras.callbacks.EarlyStopping(), ImageGrids(lambda: None, tmp_path), keras.callbacks.TensorBoard(tmp_path)]
    assert at_once(*rare) == runners.STEPS_AT_ONCE > at_once(*rare, case="iwae")
