"""Training steps as one program: several steps compiled together by XLA, with the optimizer, and started once."""

import itertools
import math

import keras
import tensorflow as tf

from keras_vae.train import runners

BYTES_AT_ONCE = 2**25  # of the batches that are waiting for one program


class CompiledSteps:
    """What Keras calls for a training step, and what runs many of them at a time.

    Keras calls it for each step, as ever, and calls all callbacks. The first call takes as many batches as there are
    until a callback looks, and runs one program on them; the next calls find their steps done. `pending` is how many
    steps that are done Keras has not yet come to.

    The rest of a data set, smaller than its batches, runs in the same program, filled up with examples of weight 0.
    Only where an example's loss depends on the others of its batch each size of a batch has a program of its own.
    Whether all is finite is looked at when a program is over, which costs less than after each step. If it is not, its
    steps are done again by a program that stops before the one that goes wrong.

    Args:
        model: The compiled model, on one device.
    """

    def __init__(self, model):
        self.model = model
        self.pads = runners.examples_are_independent(model)
        self.batch_size = 0  # of the largest batch so far
        self.forget()
        self.begin()

    def forget(self):
        """Drops the programs: the next call compiles the model as it is then."""
        # Keras does not convert a step with AutoGraph either, which would take two seconds
        self.program = tf.function(self._steps, jit_compile=True, autograph=False)
        self.careful_program = tf.function(self._careful_steps, jit_compile=True, autograph=False)

    def begin(self, callbacks=(), steps_per_epoch=None, at_once=1):
        """Begins a call of `fit`.

        Args:
            callbacks: The callbacks, flat.
            steps_per_epoch: Int, or None where the data end by themselves.
            at_once: Int, steps in a program.
        """
        self.callbacks = callbacks
        self.steps_per_epoch = steps_per_epoch
        self.at_once = at_once
        self.room = 1  # batches taken at a time: at first one, which says how large they are
        self.steps_done = 0
        self.begin_epoch()

    def begin_epoch(self):
        """Begins an epoch."""
        self.done, self.pending, self.logs = 0, 0, None

    def __call__(self, iterator):
        """Iterator over batches -> dict of the metrics so far."""
        at_a_call = self.model.steps_per_execution
        if not self.pending:
            self.pending = self._run_ahead(iterator)
        if not self.pending:
            raise StopIteration
        self.pending -= min(at_a_call, self.pending)
        return self.logs

    def _run_ahead(self, iterator):
        """Runs the steps until a callback looks, or until the data end. Returns how many."""
        at_a_call = self.model.steps_per_execution
        waits = (runners.steps_until(callback, self.steps_done) for callback in self.callbacks)
        wanted = min([self.at_once, *(wait for wait in waits if wait is not None)])
        wanted = max(1, wanted // at_a_call) * at_a_call
        if self.steps_per_epoch:
            wanted = min(wanted, self.steps_per_epoch - self.done)
        taken = 0
        while taken < wanted and (batches := self._take(iterator, min(self.room, wanted - taken))):
            taken += len(batches)
            for _, alike in itertools.groupby(batches, key=_shapes):
                self.logs = self._run(list(alike))
        self.done += taken
        self.steps_done += taken
        return taken

    def _take(self, iterator, count):
        """The next batches, at most `count`, as tensors."""
        batches = [_as_tensors(batch) for batch in itertools.islice(iterator, count)]
        return [self._padded(batch) for batch in batches] if self.pads else batches

    def _padded(self, batch):
        """(x, y, weight) of as many examples as the largest batch has: those that are added have the weight 0."""
        x, y, weight = keras.utils.unpack_x_y_sample_weight(batch)
        count = len(tf.nest.flatten(x)[0])
        self.batch_size = max(self.batch_size, count)
        weight = tf.ones([count]) if weight is None else tf.reshape(tf.cast(weight, "float32"), [-1])
        if count in (0, self.batch_size):
            return x, y, weight
        again = tf.range(self.batch_size) % count  # examples of the batch itself, whose terms are finite if all are
        x, y = keras.tree.map_structure(lambda part: None if part is None else tf.gather(part, again), (x, y))
        return x, y, tf.pad(weight, [[0, self.batch_size - count]])

    def _run(self, batches):
        """Runs a step on each of some batches of one size."""
        self.model.build_optimizer()  # of a model that Keras built when it saw the data
        bytes_of_a_batch = sum(part.dtype.size * math.prod(part.shape) for part in _parts(batches[0]))
        self.room = min(self.at_once, max(1, BYTES_AT_ONCE // max(1, bytes_of_a_batch)))
        for first in range(0, len(batches), self.room):
            some = batches[first : first + self.room]
            filled = some + some[:1] * (self.room - len(some))
            given = keras.tree.map_structure(_stack, *filled), tf.constant(len(some))
            before = [(variable, tf.convert_to_tensor(variable)) for variable in self._variables()]  # not copied
            finite, logs = self.program(*given)
            if not finite:
                for variable, value in before:
                    variable.assign(value)
                finite, logs = self.careful_program(*given)
            if not finite:
                for batch in some:
                    self.model.check_batch(batch)
                raise self.model.non_finite_error()
        return keras.tree.map_structure(lambda value: value.numpy(), logs)

    def _variables(self):
        """Everything that a step changes."""
        return [*self.model.variables, *self.model.optimizer.variables]

    def _steps(self, batches, count):
        def step(number, finite):
            return number + 1, finite & self.model.unguarded_step(_batch(batches, number))

        _, finite = tf.while_loop(lambda number, finite: number < count, step, (0, True))
        for variable in self.model.trainable_variables:
            finite &= tf.reduce_all(tf.math.is_finite(tf.convert_to_tensor(variable)))
        return finite, self.model.get_metrics_result()

    def _careful_steps(self, batches, count):
        def step(number, finite):
            return number + 1, self.model.guarded_step(_batch(batches, number))

        _, finite = tf.while_loop(lambda number, finite: (number < count) & finite, step, (0, True))
        return finite, self.model.get_metrics_result()


def _as_tensors(batch):
    """A batch of tensors; None where there is nothing, for which Keras's data sets have an empty Optional."""

    def tensor(part):
        return None if part is None or isinstance(part, tf.experimental.Optional) else tf.convert_to_tensor(part)

    return keras.tree.map_structure(tensor, batch)


def _parts(batch):
    return [part for part in keras.tree.flatten(batch) if part is not None]


def _shapes(batch):
    return [tuple(part.shape) for part in _parts(batch)]


def _stack(*parts):
    return None if parts[0] is None else tf.stack(parts)


def _batch(batches, number):
    return keras.tree.map_structure(lambda part: None if part is None else part[number], batches)
