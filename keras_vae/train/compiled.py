"""Training steps as one program: several steps compiled together by XLA, with the optimizer, and started once."""

import itertools
import math

import tensorflow as tf

BYTES_AT_ONCE = 2**25  # of the batches that are waiting for one program


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
                for batch in some:
                    self.model.check_batch(batch)
                raise self.model.non_finite_error()
        return logs

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


def _batch(batches, number):
    return tf.nest.map_structure(lambda part: part[number], batches)
