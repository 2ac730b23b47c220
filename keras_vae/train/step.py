"""The only train_step and test_step of the package."""

import math

import keras
import tensorflow as tf

from keras_vae.config import RunStopped
from keras_vae.train.replicas import all_reduce_sum, num_replicas

NON_FINITE = "keras_vae: a loss or a gradient is not finite"
UNSUPPORTED = "keras_vae: the data have values without a probability"


class NonFiniteLossError(RunStopped):
    """Training met a loss or a gradient that is NaN or infinite. The weights are those before that step."""


def only(x):
    """x of a list of one, as Keras takes it of a model with one input; all else as it is."""
    return x[0] if isinstance(x, (list, tuple)) and len(x) == 1 else x


class TrainStep(keras.Model):
    """A model that is trained on the mean of per-example losses: one step of training and of evaluation.

    A subclass says what the terms of the loss are in `loss_terms` and names them in `term_names`.
    """

    term_names: tuple[str, ...] = ("loss", "reconstruction_loss")
    condition = None  # what y is, of a model that takes it
    has_metrics = False  # whether `compile` was given metrics beside the terms

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.step = self.add_weight(
            name="step",
            shape=(),
            dtype="int64",
            initializer="zeros",
            trainable=False,
            autocast=False,
            aggregation="only_first_replica",
        )
        self.trackers = [keras.metrics.Mean(name=name) for name in self.term_names]

    def loss_terms(self, x, condition=None, training=False):
        """Terms of each example's loss.

        Args:
            x: Float32 [b, ...].
            condition: Conditions [b, ...], of a model that takes them.
            training: Bool.

        Returns:
            Dict of float32 [b], nats: a value for each of `term_names`.
        """
        raise NotImplementedError(f"{type(self).__name__} must say what its loss is made of.")

    def _inputs(self, x, y):
        """The arguments of `loss_terms` and `reconstruct`, (x,) or (x, condition), from x and y as `fit` takes them."""
        return (x,)

    def _supported(self, x, condition=None):
        """Whether all values of a batch have a probability: scalar bool tensor."""
        return tf.constant(True)

    def train_step(self, data):
        inputs, weight, terms, gradients, finite, supported = self._gradients_of(data)
        checks = [
            tf.debugging.Assert(supported, [UNSUPPORTED]),
            tf.debugging.Assert(finite | ~supported, [NON_FINITE]),
        ]
        with tf.control_dependencies(checks):  # else the counters would move
            gradients = [None if g is None else tf.identity(g) for g in gradients]
            logs = self._update_metrics(inputs, terms, weight)  # of the weights that made the gradients
            self._apply(gradients)
        return logs

    def unguarded_step(self, data):
        """`train_step` for XLA, which knows no assertions, whatever the loss. Returns whether it was finite."""
        inputs, weight, terms, gradients, _, supported = self._gradients_of(data)
        self._update_metrics(inputs, terms, weight)
        self._apply(gradients)
        return tf.reduce_all(tf.math.is_finite(terms["loss"])) & supported

    def guarded_step(self, data):
        """`train_step` for XLA, which knows no assertions. Returns whether the loss and the gradients were finite.

        If they were not, weights, optimizer and step are left as they are.
        """
        inputs, weight, terms, gradients, finite, _ = self._gradients_of(data)
        variables = [*self.trainable_variables, *self.optimizer.variables, self.step]
        before = [tf.convert_to_tensor(variable) for variable in variables]
        self._update_metrics(inputs, terms, weight)
        self._apply(gradients)
        for variable, value in zip(variables, before, strict=True):
            variable.assign(tf.where(finite, tf.convert_to_tensor(variable), value))
        return finite

    def _gradients_of(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        inputs = self._inputs(x, y)
        weight = self._example_weight(inputs, sample_weight)
        total_weight = all_reduce_sum(tf.reduce_sum(weight))
        passes = self._passes
        is_compiled = self.jit_compile_steps is True and not self.run_eagerly
        if is_compiled and num_replicas() > 1:  # one for each, which holds its variables
            passes = tf.function(passes, jit_compile=True, autograph=False)
        terms, loss, gradients = passes(inputs, weight, total_weight)
        supported = self._supported(*inputs)
        loss = tf.where(supported, loss, math.nan)  # so that the other replicas stop as well
        return inputs, weight, terms, *self._global_gradients(gradients, loss), supported

    def _apply(self, gradients):
        if self.trainable_variables:
            self.optimizer.apply(gradients, self.trainable_variables)
        self.step.assign_add(1)

    def _passes(self, inputs, weight, total_weight):
        """Forward and backward: (terms, loss, gradients) of this replica's examples."""
        with tf.GradientTape() as tape:
            terms = self._terms(inputs, training=True)
            # The one place where examples become a scalar. Each replica's share is divided by the weight of the
            # whole batch, so that the sum over replicas is the mean over the batch, however it was dealt out.
            loss = tf.reduce_sum(weight * terms["loss"]) / tf.maximum(total_weight, 1e-30)
            scaled_loss = self.optimizer.scale_loss(loss)
        return terms, loss, tape.gradient(scaled_loss, self.trainable_variables)

    def test_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        inputs = self._inputs(x, y)
        with tf.control_dependencies([tf.debugging.Assert(self._supported(*inputs), [UNSUPPORTED])]):
            inputs = tuple(tf.identity(part) for part in inputs)
        terms = self._terms(inputs, training=False)
        return self._update_metrics(inputs, terms, self._example_weight(inputs, sample_weight))

    def _terms(self, inputs, training):
        """`loss_terms`, with the regularisers of the networks' layers in the loss of each example."""
        terms = self.loss_terms(*inputs, training=training)
        if not self.losses:
            return terms
        extra = tf.add_n([tf.cast(loss, terms["loss"].dtype) for loss in self.losses])
        return {**terms, "loss": terms["loss"] + extra}

    def _example_weight(self, inputs, sample_weight):
        """Weight of each example, float32 [b]."""
        ones = tf.ones([tf.shape(inputs[0])[0]])
        return ones if sample_weight is None else ones * tf.reshape(tf.cast(sample_weight, "float32"), [-1])

    def _global_gradients(self, gradients, loss):
        """The gradients of the whole batch, which an optimizer clips and looks at for infinities; are they finite?"""
        reduced = iter(all_reduce_sum([g for g in gradients if g is not None]))
        gradients = [None if g is None else next(reduced) for g in gradients]
        checked = all_reduce_sum(loss)  # so that all replicas come to the same answer
        if not isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer):  # which skips infinite gradients itself
            squares = [tf.nn.l2_loss(tf.convert_to_tensor(g)) for g in gradients if g is not None]
            checked += sum(tf.cast(s, "float32") for s in squares)
        return gradients, tf.math.is_finite(checked)

    def _update_metrics(self, inputs, terms, weight):
        for tracker in self.trackers:
            tracker.update_state(terms[tracker.name], sample_weight=weight)
        if not self.has_metrics:
            return self.get_metrics_result()
        return self.compute_metrics(inputs[0], inputs[0], self.reconstruct(*inputs), sample_weight=weight)

    def non_finite_error(self):
        """What `fit` raises after a step whose loss or gradients were not finite."""
        return NonFiniteLossError(
            f"The loss became NaN or infinite at step {self.step.numpy() + 1}. The weights are those before it. "
            "Try a lower learning rate, or gradient clipping (global_clipnorm=1.0 of the optimizer)."
        )
