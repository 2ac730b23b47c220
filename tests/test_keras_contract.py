"""Whatever counts steps falls where it falls for a plain Keras model of the same data, compiled by XLA or not."""

import csv
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_vae
from keras_vae import networks
from keras_vae.train import runners

SHAPE = (4, 4, 1)
BATCH = 4


def pixels(count, seed=0):
    return np.random.default_rng(seed).random((count, *SHAPE)).astype("float32")


def ours(jit_compile="auto", **options):
    keras.utils.set_random_seed(0)
    model = keras_vae.VAE(*networks.build("linear", SHAPE, 2), seed=1)
    model.compile(keras.optimizers.SGD(1e-3), jit_compile=jit_compile, **options)
    return model


def plain(**options):
    model = keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(1e-3), loss="mse", jit_compile=False, **options)
    return model


class Growing(keras.utils.PyDataset):
    """A set that has one batch more after each epoch, and counts what is asked of it."""

    def __init__(self, with_target, **kwargs):
        super().__init__(**kwargs)
        self.batches, self.with_target, self.asked = 2, with_target, 0

    def __len__(self):
        return self.batches

    def __getitem__(self, index):
        self.asked += 1
        x = pixels(BATCH, index)
        return (x, np.zeros((BATCH, 1), "float32")) if self.with_target else (x,)

    def on_epoch_end(self):
        self.batches += 1


class Data:
    """The same data for a plain model, with a target, and for ours, without; `fetched` counts batches."""

    def __init__(self, with_target):
        self.with_target, self.fetched = with_target, 0

    def _pair(self, x):
        return (x, np.zeros((len(x), 1), "float32")) if self.with_target else x

    def array(self, count):
        x = pixels(count)
        return {"x": x, "y": np.zeros((count, 1), "float32")} if self.with_target else {"x": x}

    def dataset(self, count, endless=False):
        data = tf.data.Dataset.from_tensor_slices(self._pair(pixels(count))).batch(BATCH)
        return data.repeat() if endless else data

    def unknown(self, *sizes):
        """Batches of these sizes, of which nothing is known beforehand."""

        def batches():
            for size in sizes:
                yield self._pair(pixels(size))

        x = tf.TensorSpec((None, *SHAPE))
        return tf.data.Dataset.from_generator(
            batches, output_signature=(x, tf.TensorSpec((None, 1))) if self.with_target else x
        )

    def generator(self):
        """An endless generator of Python."""
        while True:
            self.fetched += 1
            x = pixels(BATCH, self.fetched)
            yield (x, np.zeros((BATCH, 1), "float32")) if self.with_target else (x,)

    def growing(self):
        return Growing(self.with_target)


class Record(keras.callbacks.Callback):
    """All indices that callbacks are given. `every` says that it waits, so that many steps may run at once."""

    every = 0

    def __init__(self):
        super().__init__()
        self.seen, self.steps, self.before = [], 0, None

    def on_epoch_begin(self, epoch, logs=None):
        self.seen.append(("epoch", epoch))
        if self.before is None:  # after what another callback restored
            self.before = int(getattr(self.model, "step", 0))

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(("end of epoch", epoch, "val_loss" in logs))

    def on_train_batch_begin(self, batch, logs=None):
        self.seen.append(("begin", batch))

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(("end", batch))
        self.steps += 1

    def on_test_batch_end(self, batch, logs=None):
        self.seen.append(("test", batch))

    def on_predict_batch_end(self, batch, logs=None):
        self.seen.append(("predict", batch))


class StopsInABatch(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.optimizer.iterations) == 6:
            self.model.stop_training = True


class Fails(keras.callbacks.Callback):
    def __init__(self, after):
        super().__init__()
        self.after = after

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.after:
            raise RuntimeError("planned")


# name -> what is done: (model, Data, folder) -> what is counted beside the record of callbacks
SCENARIOS = {}


def scenario(function):
    SCENARIOS[function.__name__.replace("_", "-")] = function
    return function


def fitted(model, callbacks=(), **options):
    record = Record()
    model.fit(**{"verbose": 0, "batch_size": BATCH, "callbacks": [record, *callbacks], **options})
    if isinstance(model, keras_vae.VAE) and model.steps_per_execution == 1:
        assert int(model.step) - record.before == record.steps  # a plain model also counts a step that found no data
    return record.seen


def data_only(dataset, **options):
    return {"x": dataset, "batch_size": None, **options}


@scenario
def arrays_with_a_rest(model, data, folder):
    return fitted(model, **data.array(14), epochs=3, validation_split=0.3)


@scenario
def dataset_and_uneven_validation(model, data, folder):
    return fitted(model, **data_only(data.dataset(14), epochs=2, validation_data=data.dataset(9)))


@scenario
def endless_data_and_validation_steps(model, data, folder):
    return fitted(
        model,
        **data_only(
            data.dataset(12, endless=True),
            epochs=3,
            steps_per_epoch=5,
            validation_data=data.dataset(8, endless=True),
            validation_steps=2,
            validation_freq=2,
        ),
    )


@scenario
def data_that_run_out_within_an_epoch(model, data, folder):
    return fitted(model, **data_only(data.dataset(26), epochs=4, steps_per_epoch=5))


@scenario
def data_of_unknown_length(model, data, folder):
    return fitted(model, **data_only(data.unknown(4, 3, 4, 4, 1), epochs=3, validation_data=data.unknown(2, 4)))


@scenario
def unknown_data_that_run_out(model, data, folder):
    return fitted(model, **data_only(data.unknown(4, 4, 4), epochs=2, steps_per_epoch=5))


@scenario
def a_generator(model, data, folder):
    return fitted(model, **data_only(data.generator(), epochs=2, steps_per_epoch=3))


@scenario
def a_set_that_grows(model, data, folder):
    growing = data.growing()
    return fitted(model, **data_only(growing, epochs=3)), growing.batches


@scenario
def initial_epoch(model, data, folder):
    return fitted(model, **data.array(10), epochs=4, initial_epoch=2)


@scenario
def steps_of_evaluate_and_predict_after_fit(model, data, folder):
    seen = fitted(model, **data.array(20), epochs=2)
    counts = Record()
    endless = data.dataset(8, endless=True)
    model.evaluate(endless, steps=2, verbose=0, callbacks=[counts])
    rows = len(model.predict(endless, steps=2, verbose=0, callbacks=[counts]))
    rows += len(model.predict(pixels(7), batch_size=BATCH, verbose=0))
    rows += len(model.predict_on_batch(pixels(3)))
    model.evaluate(**data.array(7), batch_size=2, steps=3, verbose=0, callbacks=[counts])
    model.train_on_batch(**data.array(5))
    model.test_on_batch(**data.array(5))
    return seen, counts.seen, rows, model.steps_per_execution, int(model.optimizer.iterations)


@scenario
def saved_every_few_steps(model, data, folder):
    found = []
    for every in (3, 7, "epoch"):
        name = f"{every}-epoch{{epoch}}-batch{{batch}}.keras" if every != "epoch" else "epoch-{epoch}.keras"
        saver = keras.callbacks.ModelCheckpoint(folder / name, save_freq=every)
        for _ in range(2):  # the count goes on in a second fit
            fitted(model, [saver], **data.array(18), epochs=2)
        saved = sorted(path.name for path in folder.glob(f"{every}-*"))
        found.append([(name, int(keras.saving.load_model(folder / name).optimizer.iterations)) for name in saved])
    return found


@scenario
def logs_of_epochs(model, data, folder):
    rates = keras.callbacks.LearningRateScheduler(lambda epoch, rate: 1e-3 / (epoch + 1))
    board = keras.callbacks.TensorBoard(folder / "board", write_graph=False)
    seen = fitted(model, [rates, keras.callbacks.CSVLogger(folder / "log.csv"), board], **data.array(14), epochs=3)
    with open(folder / "log.csv", newline="") as file:
        rows = [(row["epoch"], round(float(row["learning_rate"]), 9)) for row in csv.DictReader(file)]
    return seen, rows, summaries(folder / "board")


@scenario
def logs_of_steps(model, data, folder):
    board = keras.callbacks.TensorBoard(folder, write_graph=False, update_freq=4)
    return fitted(model, [board], **data.array(22), epochs=3), summaries(folder)


@scenario
def stopped_in_a_batch(model, data, folder):
    return fitted(model, [StopsInABatch()], **data.array(18), epochs=3), int(model.optimizer.iterations)


@scenario
def backed_up_and_restored(model, data, folder):
    backup = keras.callbacks.BackupAndRestore(folder, save_freq=3)
    with pytest.raises(RuntimeError, match="planned"):
        fitted(model, [backup, Fails(after=1)], **data.array(18), epochs=3)
    return fitted(model, [backup], **data.array(18), epochs=3), int(model.optimizer.iterations)


@scenario
def several_steps_in_an_execution(model, data, folder):
    model.steps_per_execution = 2
    seen = fitted(model, **data.array(18), epochs=2)
    return seen, model.steps_per_execution, int(model.optimizer.iterations)


def summaries(folder):
    """What TensorBoard got of the loss: set of (tag, step)."""
    found = set()
    for file in pathlib.Path(folder).rglob("events*"):
        for record in tf.data.TFRecordDataset(str(file)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            found |= {(value.tag, event.step) for value in event.summary.value}
    return sorted(one for one in found if one[0].endswith(("_loss", "learning_rate")) and "recon" not in one[0])


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """What a plain Keras model does, by scenario; each is run once."""
    known = {}

    def run(name):
        if name not in known:
            known[name] = SCENARIOS[name](plain(), Data(True), tmp_path_factory.mktemp(name))
        return known[name]

    return run


QUICK = (
    "dataset-and-uneven-validation", "data-that-run-out-within-an-epoch", "steps-of-evaluate-and-predict-after-fit",
    "saved-every-few-steps", "stopped-in-a-batch",
)  # fmt: skip
MATRIX = [
    pytest.param(name, jit_compile, marks=() if jit_compile == "auto" and name in QUICK else pytest.mark.slow)
    for name in SCENARIOS
    for jit_compile in ("auto", True, False)
]


@pytest.mark.parametrize(("name", "jit_compile"), MATRIX)
def test_steps_fall_where_they_fall_in_plain_keras(name, jit_compile, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(runners, "MIN_TRAINING_STEPS", 1)  # so that "auto" compiles
    model = ours(jit_compile)
    programs = []
    monkeypatch.setattr(runners, "steps_at_once", counted(runners.steps_at_once, programs))
    found = SCENARIOS[name](model, Data(False), tmp_path)
    assert without_terms(found) == expected(name)
    assert bool(programs) == bool(jit_compile) or jit_compile == "auto"


def counted(function, calls):
    def wrapper(*args):
        calls.append(function(*args))
        return calls[-1]

    return wrapper


def without_terms(found):
    """What our model logs more than a plain one has."""
    if isinstance(found, (list, tuple)):
        parts = [without_terms(one) for one in found if not (isinstance(one, tuple) and "kl_loss" in str(one[0]))]
        return type(found)(parts)
    return found
