"""compile, fit and evaluate, as Keras has them, for a model that brings its own loss."""

from contextlib import contextmanager

import keras
import numpy as np
import tensorflow as tf

from keras_vae.train import runners
from keras_vae.train.compiled import CompiledSteps
from keras_vae.train.replicas import distributed_function, refuse_under_strategy
from keras_vae.train.step import NON_FINITE, UNSUPPORTED, TrainStep


class Trainer(TrainStep):
    """Keras's contract of training and evaluation; how a step is run is chosen by `runners.choose`."""

    def compile(self, optimizer="adam", *, loss=None, jit_compile="auto", **kwargs):
        """Configures training; see `keras.Model.compile`. The model brings its own loss.

        Under a strategy build and compile the model in its scope. `jit_compile` lets XLA compile the training, several
        steps as one program; "auto" does so where it is faster (docs/performance.md). Under a strategy of several
        replicas it is the forward and the backward pass of a step, and only with True. `fit` chooses
        `steps_per_execution` where it is 1.

        Raises:
            ValueError: if a `loss` is given, and for what cannot work under the strategy.
        """
        if loss is not None:
            raise ValueError(
                f"{type(self).__name__} brings its own loss: choose it with the arguments `likelihood` and, for a VAE, "
                f"`objective` of the model. Received: loss={loss!r}"
            )
        super().compile(optimizer=optimizer, jit_compile=jit_compile, **kwargs)
        self.has_metrics = bool(kwargs.get("metrics") or kwargs.get("weighted_metrics"))
        self.jit_compile_steps = jit_compile
        self.steps_asked_for, self._plan = self.steps_per_execution, None
        self.jit_compile = False  # of Keras's own functions: XLA drops assertions and cannot reduce over replicas
        refuse_under_strategy(self.distribute_strategy, self.optimizer, kwargs.get("metrics"))

    def compile_from_config(self, config):
        """Compiles a loaded model as it was when it was saved; Keras leaves that to classes with their own compile."""
        config = keras.saving.deserialize_keras_object(config)
        self.compile(**{name: value for name, value in config.items() if name not in ("loss", "loss_weights")})
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

    def fit(self, x=None, y=None, **kwargs):
        """Trains; see `keras.Model.fit`.

        Args:
            x: Examples [n, ...], as an array, a DataFrame, or a dataset or generator of batches: x, (x, y) or
                (x, y, sample_weight). The loss is the weighted mean over the batch.
            y: Conditions, such as labels, which only a model that was made with a condition looks at.
            **kwargs: Everything else that `keras.Model.fit` takes.

        Raises:
            InputError: for examples of a wrong shape, and for values that the likelihood gives no probability; whatever
                holds the data, no step is made with them.
            NonFiniteLossError: if the loss or a gradient becomes NaN or infinite; the weights stay those before.
        """
        self._check_data(x, y)
        validation = kwargs.get("validation_data")
        if validation is not None:
            self._check_data(*validation[:2] if isinstance(validation, (tuple, list)) else (validation,))
        if isinstance(x, tf.data.Dataset):
            kwargs.setdefault("shuffle", False)  # a dataset shuffles itself, and Keras warns that it will not
        y = _labels(x, y, kwargs)
        self._prepare_execution(x, kwargs)
        with self._explained(x):
            return super().fit(x, y, **kwargs)

    def evaluate(self, x=None, y=None, **kwargs):
        """Evaluates; see `keras.Model.evaluate`. Returns the terms of the loss, in nats, averaged over the images.

        Raises:
            InputError: for examples of a wrong shape, and for values that the likelihood gives no probability.
        """
        if not kwargs.get("_use_cached_eval_dataset"):
            self._check_data(x, y)
        with self._explained(x):
            return super().evaluate(x, _labels(x, y, kwargs), **kwargs)

    @contextmanager
    def _explained(self, x):
        """Turns what a step says of data and of infinities into errors that say what to do."""
        try:
            yield
        except tf.errors.InvalidArgumentError as error:
            if UNSUPPORTED in error.message:
                if isinstance(x, tf.data.Dataset):  # most often it is the first batch, whose values can then be named
                    for batch in x.take(1):
                        self.check_batch(batch)
                raise self.unsupported_error() from None
            if NON_FINITE in error.message:
                raise self.non_finite_error() from None
            raise

    def check_batch(self, batch):
        """Raises InputError for a batch, as a dataset has it, with values that have no probability."""

    def make_train_function(self, force=False):
        if self.distribute_strategy.num_replicas_in_sync == 1:
            super().make_train_function(force)
        elif self.train_function is None or force:
            self.train_function = distributed_function(self, self.train_step)

    def plan_execution(self, steps_per_epoch, epochs, waits=()):
        """Settles whether XLA compiles the training, and how many steps run at once, for all calls of `fit` to come.

        Without it each call settles that for itself; `compile` forgets it.

        Args:
            steps_per_epoch: Int, or None if the steps cannot be counted.
            epochs: Int.
            waits: Ints, for how many steps at most a callback can wait for its next call.
        """
        self._plan = runners.choose(self, steps_per_epoch, epochs, waits)

    def _prepare_execution(self, x, options):
        """Sets what Keras needs to know of the plan before `fit`."""
        steps_per_epoch = options.get("steps_per_epoch")
        callbacks = keras.tree.flatten(options.get("callbacks") or [])
        compiled, at_once = self._plan or runners.choose(
            self,
            steps_per_epoch or _count_steps(x, options.get("batch_size") or 32),
            options.get("epochs", 1),
            [runners.steps_between_calls(callback) for callback in callbacks],
        )
        if (compiled, at_once) != (isinstance(self.train_function, CompiledSteps), self.steps_per_execution):
            self.steps_per_execution = at_once
            self.train_function = CompiledSteps(self, at_once) if compiled else None
            self.test_function = self.predict_function = None
        if compiled:
            self.train_function.start(steps_per_epoch)

    def make_test_function(self, force=False):
        if self.distribute_strategy.num_replicas_in_sync == 1:
            super().make_test_function(force)
        elif self.test_function is None or force:
            self.test_function = distributed_function(self, self.test_step)

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        # Keras would average the first batch over the replicas, which fails where their shares differ in size
        example = self._example_batch()
        super()._maybe_symbolic_build(*((iterator, data_batch) if example is None else (None, example)))

    def _check_data(self, x, y=None):
        """Refuses data that can be seen to be wrong before any work starts. Builds the model where it can."""

    def _example_batch(self):
        """A batch of one example, as `fit` takes it, with which Keras can build; None where that is not known yet."""
        return None


def _count_steps(x, batch_size):
    """Number of batches in a pass over `x`, or None if it cannot be known."""
    if isinstance(x, tf.data.Dataset):
        return max(int(x.cardinality()), 0) or None
    return -(-len(x) // batch_size) if isinstance(x, np.ndarray) or tf.is_tensor(x) else None


def _labels(x, y, kwargs):
    """Labels for Keras, which drops the sample weights of images without any."""
    return x if y is None and kwargs.get("sample_weight") is not None else y
