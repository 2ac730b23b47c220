"""Training steps as one program: several steps compiled together by XLA, with the optimizer, and started once."""

import itertools
import math

import keras
import tensorflow as tf

from keras_vae.layers import RandomLayer

STEPS_AT_ONCE = 64  # for one draw of z; with an MLP a tenth of a second, in which the start of a program is lost
MIN_STEPS_AT_ONCE = 16  # however many draws: a second of an IWAE with k = 50 and 100 images in a batch
BYTES_AT_ONCE = 2**25  # of the batches that are waiting for one program
MIN_TRAINING_STEPS = 1000  # from here on the seconds that compiling takes come back
PACKAGES = ("keras", "keras_vae")


def choose(model, steps_per_epoch, epochs, waits=()):
    """Whether XLA compiles the training of a model, and how many steps it runs at once: pair (bool, int).

    See `LatentModel.plan_execution` for the arguments.
    """
    compiled, asked = model.jit_compile_steps, model.steps_asked_for
    if compiled == "auto":
        compiled = (steps_per_epoch or 0) * epochs >= MIN_TRAINING_STEPS and compiles_well(model)
    if not compiled or model.run_eagerly or model._distribute_strategy is not None:
        return False, asked
    draws = getattr(getattr(model, "objective", None), "num_samples", 1)
    limits = [max(MIN_STEPS_AT_ONCE, STEPS_AT_ONCE // draws), *waits, *([steps_per_epoch] if steps_per_epoch else [])]
    return True, asked if asked > 1 else max(1, min(limits))


def compiles_well(model):
    """Whether XLA is faster than TensorFlow's own operations for this model, and known to take all of it.

    On a CPU it is slow at convolutions and at the random numbers of Keras's layers (docs/performance.md), and nothing
    is known of code that is not Keras's or of this package.
    """
    parts = [model, model.optimizer, *model._flatten_layers(include_self=False)]
    parts += [getattr(model, "objective", None)]
    known = all(type(part).__module__.split(".")[0] in PACKAGES for part in parts if part is not None)
    plain = all(getattr(part, "compute_dtype", "float32") == "float32" for part in parts)
    if not (known and plain) or model._compile_metrics or any(isinstance(part, keras.layers.Lambda) for part in parts):
        return False
    if tf.config.list_logical_devices("GPU"):
        return True
    return not any(
        "Conv" in type(part).__name__ or (hasattr(part, "seed_generator") and not isinstance(part, RandomLayer))
        for part in parts
    )


def steps_between_calls(callback):
    """How many steps may pass between two calls of the batch hooks of a callback."""
    if getattr(callback, "_should_trace", False):  # TensorBoard with `profile_batch`
        return 1
    for name in ("every", "save_freq", "update_freq"):  # of this package, of ModelCheckpoint, of TensorBoard
        if hasattr(callback, name):
            every = getattr(callback, name)
            return every if isinstance(every, int) and every else STEPS_AT_ONCE
    if isinstance(callback, keras.callbacks.CallbackList):
        return min(map(steps_between_calls, callback.callbacks), default=STEPS_AT_ONCE)
    hooks = ("on_train_batch_begin", "on_train_batch_end", "on_batch_begin", "on_batch_end")
    base = keras.callbacks.Callback
    looks = any(hook in vars(callback) or getattr(type(callback), hook) is not getattr(base, hook) for hook in hooks)
    return 1 if looks and not isinstance(callback, keras.callbacks.ProgbarLogger) else STEPS_AT_ONCE


class CompiledSteps:
    """What Keras calls for several training steps: it takes the batches and runs one program on them.

    Each size of a batch has a program of its own: of most data sets the whole batches, and the rest at the end.
    Whether all is finite is looked at when a program is over, which costs less than after each step. If it is not, its
    steps are done again by a program that stops before the one that goes wrong.

    Args:
        model: The compiled model, on one device.
        at_once: Int, the steps in one program.
    """

    def __init__(self, model, at_once):
        self.model = model
        self.at_once = at_once
        self.program = tf.function(self._steps, jit_compile=True)
        self.careful_program = tf.function(self._careful_steps, jit_compile=True)
        self.room = 1  # batches taken at a time: at first one, which says how large they are
        self.start(None)

    def start(self, steps_per_epoch):
        """Begins an epoch: of so many steps, where the data have no end."""
        self.steps_per_epoch = steps_per_epoch
        self.done = 0

    def __call__(self, iterator):
        """Iterator over batches -> dict of the metrics so far."""
        left = min(self.at_once, self.steps_per_epoch - self.done) if self.steps_per_epoch else self.at_once
        logs = None
        while left and (batches := list(itertools.islice(iterator, min(self.room, left)))):
            left -= len(batches)
            self.done += len(batches)
            for _, alike in itertools.groupby(batches, key=lambda batch: len(tf.nest.flatten(batch)[0])):
                logs = self._run(list(alike))
        if logs is None:
            raise StopIteration
        if self.done == self.steps_per_epoch:
            self.done = 0
        return logs

    def _run(self, batches):
        """Runs a step on each of some batches of one size."""
        bytes_of_a_batch = sum(part.dtype.size * math.prod(part.shape) for part in tf.nest.flatten(batches[0]))
        self.room = min(self.at_once, max(1, BYTES_AT_ONCE // bytes_of_a_batch))
        for first in range(0, len(batches), self.room):
            some = batches[first : first + self.room]
            filled = some + [tf.nest.map_structure(tf.zeros_like, some[0])] * (self.room - len(some))
            given = tf.nest.map_structure(lambda *parts: tf.stack(parts), *filled), tf.constant(len(some))
            before = [(variable, tf.convert_to_tensor(variable)) for variable in self._variables()]  # not copied
            finite, logs = self.program(*given)
            if not finite:
                for variable, value in before:
                    variable.assign(value)
                finite, logs = self.careful_program(*given)
            if not finite:
                raise self.model.non_finite_error()
        return logs

    def _variables(self):
        """Everything that a step changes."""
        return [*self.model.variables, *self.model.optimizer.variables]

    def _steps(self, batches, count):
        def step(number, finite):
            terms = self.model.unguarded_step(_batch(batches, number))
            return number + 1, finite & tf.reduce_all(tf.math.is_finite(terms["loss"]))

        _, finite = tf.while_loop(lambda number, finite: number < count, step, (0, True))
        for variable in self.model.trainable_variables:
            finite &= tf.reduce_all(tf.math.is_finite(tf.convert_to_tensor(variable)))
        return finite, self.model.get_metrics_result()

    def _careful_steps(self, batches, count):
        def step(number, finite):
            return number + 1, self.model.guarded_step(_batch(batches, number))

        _, finite = tf.while_loop(lambda number, finite: (number < count) & finite, step, (0, True))
        return finite, self.model.get_metrics_result()


def _batch(batches, number):
    return tf.nest.map_structure(lambda part: part[number], batches)
