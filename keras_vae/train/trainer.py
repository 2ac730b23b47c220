"""compile, fit and evaluate, as Keras has them, for a model that brings its own loss."""

from contextlib import contextmanager

import keras
import numpy as np
import tensorflow as tf

from keras_vae import keras_private
from keras_vae.train import runners
from keras_vae.train.compiled import CompiledSteps
from keras_vae.train.replicas import distributed_function, prepare
from keras_vae.train.step import NON_FINITE, UNSUPPORTED, TrainStep, only

WRONG_SHAPE = "is not compatible with expected shape"  # as TensorFlow says it of a dataset that does not say its shapes


class Trainer(keras_private.BuildsFromExample, TrainStep):
    """Keras's contract of training and evaluation. `runners` says how the steps are run.

    What `fit` chooses for itself is forgotten when it is over, also when it raises.
    """

    _total_steps, _programs, _fitting = None, None, False

    def compile(
        self,
        optimizer="adam",
        loss=None,
        loss_weights=None,
        metrics=None,
        weighted_metrics=None,
        run_eagerly=False,
        steps_per_execution=1,
        jit_compile="auto",
        auto_scale_loss=True,
    ):
        """Configures training; see `keras.Model.compile`. The model brings its own loss.

        Under a strategy build and compile the model in its scope. `jit_compile` lets XLA compile the training, several
        steps as one program; "auto" does so where it is faster (docs/performance.md). Under a strategy of several
        replicas it is the forward and the backward pass of a step, and only with True.

        Raises:
            ValueError: if a `loss` is given, and for what cannot work under the strategy.
        """
        if loss is not None or loss_weights is not None:
            given = {"loss": loss} if loss is not None else {"loss_weights": loss_weights}
            raise ValueError(
                f"{type(self).__name__} brings its own loss: choose it with the arguments `likelihood` and, for a VAE, "
                f"`objective` of the model. Received: {', '.join(f'{name}={value!r}' for name, value in given.items())}"
            )
        super().compile(
            optimizer=optimizer,
            metrics=metrics,
            weighted_metrics=weighted_metrics,
            run_eagerly=run_eagerly,
            steps_per_execution=steps_per_execution,
            jit_compile=False,  # of Keras's own functions: XLA drops assertions and cannot reduce over replicas
            auto_scale_loss=auto_scale_loss,
        )
        self.jit_compile_steps, self.auto_scale_loss = jit_compile, auto_scale_loss
        self.has_metrics = bool(metrics or weighted_metrics)
        self._total_steps, self._programs, self._fitting = None, None, False
        prepare(self.distribute_strategy, self.optimizer, metrics)

    def get_compile_config(self):
        """What `compile` was given, for saving."""
        config = super().get_compile_config()
        if not config:  # not compiled
            return config
        return {**config, "jit_compile": self.jit_compile_steps, "auto_scale_loss": self.auto_scale_loss}

    def compile_from_config(self, config):
        """Compiles a loaded model as it was when it was saved; Keras leaves that to classes with their own compile."""
        config = keras.saving.deserialize_keras_object(config)
        self.compile(**config)
        self.optimizer.build(self.trainable_variables)

    @property
    def metrics(self):
        # The loss first, and without the one that Keras tracks: ours weighs every example alike.
        others = [metric for metric in super().metrics if metric not in self.trackers and metric.name != "loss"]
        return [*self.trackers, *others]

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """Updates the metrics given to `compile`: an image is the target of its own reconstruction."""
        images = tf.nest.flatten(x)[0]
        return super().compute_metrics(images, images, y_pred, sample_weight)

    def fit(
        self,
        x=None,
        y=None,
        batch_size=None,
        epochs=1,
        verbose="auto",
        callbacks=None,
        validation_split=0.0,
        validation_data=None,
        shuffle=True,
        class_weight=None,
        sample_weight=None,
        initial_epoch=0,
        steps_per_epoch=None,
        validation_steps=None,
        validation_batch_size=None,
        validation_freq=1,
    ):
        """Trains; see `keras.Model.fit`, whose arguments these are.

        Args:
            x: Examples [n, ...], as an array, a DataFrame, or a dataset or generator of batches: x, (x, y) or
                (x, y, sample_weight). The loss is the weighted mean over the batch, and regularisers of
                the networks' layers are part of it.
            y: Conditions, such as labels, which only a model that was made with a condition looks at.

        Raises:
            InputError: for examples of a wrong shape, and for values that the likelihood gives no probability; whatever
                holds the data, no step is made with them.
            NonFiniteLossError: if the loss or a gradient becomes NaN or infinite; the weights stay those before.
        """
        x, y = self._checked(x, y, sample_weight)
        if validation_data is not None:
            validation_x, validation_y, weights = keras.utils.unpack_x_y_sample_weight(validation_data)
            validation_data = (*self._checked(validation_x, validation_y, weights), weights)
        self.build_optimizer()
        steps = steps_per_epoch or _count_steps(x, batch_size or 32, validation_split if validation_data is None else 0)
        with self._running(callbacks, steps_per_epoch, steps, epochs - initial_epoch) as callbacks, self._explained(x):
            return super().fit(
                x,
                y,
                batch_size=batch_size,
                epochs=epochs,
                verbose=verbose,
                callbacks=callbacks,
                validation_split=validation_split,
                validation_data=validation_data,
                shuffle=shuffle and not isinstance(x, tf.data.Dataset),  # which Keras warns that it cannot shuffle
                class_weight=class_weight,
                sample_weight=sample_weight,
                initial_epoch=initial_epoch,
                steps_per_epoch=steps_per_epoch,
                validation_steps=validation_steps,
                validation_batch_size=validation_batch_size,
                validation_freq=validation_freq,
            )

    def evaluate(self, x=None, y=None, batch_size=None, verbose="auto", sample_weight=None, *args, **kwargs):
        """Evaluates; see `keras.Model.evaluate`. Returns the terms of the loss, in nats, averaged over the images.

        Raises:
            InputError: for examples of a wrong shape, and for values that the likelihood gives no probability.
        """
        if not self._fitting:  # which checks its validation data once
            self._check_data(only(x), y)
        x, y = self._for_keras(x, y, sample_weight)
        with self._explained(x):
            return super().evaluate(x, y, batch_size, verbose, sample_weight, *args, **kwargs)

    def train_on_batch(self, x, y=None, sample_weight=None, class_weight=None, return_dict=False):
        """One step; see `keras.Model.train_on_batch`, and `fit` for what it raises."""
        x, y = self._checked(x, y, sample_weight)
        self.build_optimizer()
        with self._explained(x):
            return super().train_on_batch(x, y, sample_weight, class_weight, return_dict)

    def test_on_batch(self, x, y=None, sample_weight=None, return_dict=False):
        """Evaluates one batch; see `keras.Model.test_on_batch`, and `evaluate` for what it raises."""
        x, y = self._checked(x, y, sample_weight)
        with self._explained(x):
            return super().test_on_batch(x, y, sample_weight, return_dict)

    def build_optimizer(self):
        """Makes the optimizer's variables, for which the first step would be traced twice, and its graphs kept."""
        if self.compiled and self.built and not self.optimizer.built:
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_variables)

    def _checked(self, x, y, sample_weight):
        """(x, y) as Keras takes them, checked."""
        self._check_data(only(x), y)
        return self._for_keras(x, y, sample_weight)

    def _for_keras(self, x, y, sample_weight):
        """(x, y) as Keras takes them, with the weights as a target: it drops those of examples that have none."""
        x = only(x)
        if self.condition is not None:  # which is y
            return x, y
        if isinstance(x, keras.utils.PyDataset) and not isinstance(x, _WithoutNone):
            x = _WithoutNone(x)
        return x, sample_weight if y is None else y

    @contextmanager
    def _explained(self, x):
        """Turns what a step says of data and of infinities into errors that say what to do."""
        try:
            yield
        except tf.errors.InvalidArgumentError as error:
            if isinstance(x, tf.data.Dataset) and (UNSUPPORTED in error.message or WRONG_SHAPE in error.message):
                for batch in x.take(1):  # most often it is the first batch, whose values can then be named
                    self.check_batch(batch)
            if UNSUPPORTED in error.message:
                raise self.unsupported_error() from None
            if NON_FINITE in error.message:
                raise self.non_finite_error() from None
            raise

    def check_batch(self, batch):
        """Raises InputError for a batch, as a dataset has it, with values that have no probability."""

    # -- how the steps run ----------------------------------------------------------------------------------------

    def plan_execution(self, total_steps):
        """Says how long the whole training is, of which each call of `fit` is a part, until `compile` is called again.

        Whether XLA compiles the steps depends on it. Without it each call of `fit` is a training of its own.

        Args:
            total_steps: Int.
        """
        self._total_steps = total_steps

    @property
    def steps_pending(self):
        """How many steps of a program are done that the callbacks of `fit` have not been told yet.

        0 wherever a callback says that it looks. A callback that looks at other times, as on a signal, must wait until
        it is 0, for the weights are not those of the batch that it is told.
        """
        return self._programs.pending if self._programs is not None else 0

    @contextmanager
    def _running(self, callbacks, steps_per_epoch, steps, epochs):
        """While it is entered, `fit` runs the steps as is best. Gives the callbacks for `fit`."""
        total = self._total_steps or (steps * epochs if steps else None)
        before = self.train_function
        self._fitting = True
        if not self.compiled or not runners.is_compiled(self, total):
            try:
                yield callbacks
            finally:
                self._fitting = False
            return
        callbacks, flat, remove = _with_epochs(callbacks, lambda: self._programs.begin_epoch())
        if self._programs is None:
            self._programs = CompiledSteps(self)
        self._programs.begin(flat, steps_per_epoch, runners.steps_at_once(self, flat, steps))
        self.train_function = self._programs
        try:
            yield callbacks
        finally:
            self._programs.begin()
            self.train_function = before
            self._fitting = False
            remove()

    def make_train_function(self, force=False):
        if self._fitting and isinstance(self.train_function, CompiledSteps):
            if force:
                self._programs.forget()
        elif self.distribute_strategy.num_replicas_in_sync == 1:
            super().make_train_function(force)
        elif self.train_function is None or force:
            self.train_function = distributed_function(self, self.train_step)

    def make_test_function(self, force=False):
        if self.distribute_strategy.num_replicas_in_sync == 1:
            super().make_test_function(force)
        elif self.test_function is None or force:
            self.test_function = distributed_function(self, self.test_step)

    # -- what a model says ----------------------------------------------------------------------------------------

    def _check_data(self, x, y=None):
        """Refuses data that can be seen to be wrong before any work starts. Builds the model where it can."""


class _Epochs(keras.callbacks.Callback):
    """Says when an epoch begins."""

    def __init__(self, begin):
        super().__init__()
        self.begin = begin

    def on_epoch_begin(self, epoch, logs=None):
        self.begin()


def _with_epochs(callbacks, begin):
    """Callbacks that call `begin` when an epoch begins; all of them flat; and what takes it away again."""
    added = _Epochs(begin)
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks.callbacks.append(added)
        return callbacks, list(callbacks.callbacks), lambda: callbacks.callbacks.remove(added)
    flat = [*keras.tree.flatten(callbacks or []), added]
    return flat, flat, lambda: None


def _count_steps(x, batch_size, validation_split=0.0):
    """Number of batches in a pass over `x`, or None if it cannot be known."""
    if isinstance(x, tf.data.Dataset):
        return max(int(x.cardinality()), 0) or None
    if isinstance(x, keras.utils.PyDataset):
        return x.num_batches
    arrays = keras.tree.flatten(x)
    if not arrays or not (isinstance(arrays[0], np.ndarray) or tf.is_tensor(arrays[0])):
        return None
    return -(-int(len(arrays[0]) * (1 - validation_split)) // batch_size)


class _WithoutNone(keras.utils.PyDataset):
    """A `PyDataset` without the None of a batch (x, None, weight), of which Keras can make no `tf.data.Dataset`."""

    def __init__(self, data):
        super().__init__(data.workers, data.use_multiprocessing, data.max_queue_size)
        self.data = data

    def __getitem__(self, index):
        x, y, weight = keras.utils.unpack_x_y_sample_weight(self.data[index])
        batch = (x, weight if y is None else y, weight)
        return tuple(part for part in batch if part is not None)

    @property
    def num_batches(self):
        return self.data.num_batches

    def on_epoch_begin(self):
        self.data.on_epoch_begin()

    def on_epoch_end(self):
        self.data.on_epoch_end()
