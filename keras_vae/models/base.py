"""The only train_step and test_step of the package, and what all models share."""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_vae import likelihoods
from keras_vae.config import InputError, RunStopped
from keras_vae.models import execution
from keras_vae.models.replicas import all_reduce_sum, distributed_function, num_replicas, refuse_under_strategy

NON_FINITE = "keras_vae: a loss or a gradient is not finite"


class NonFiniteLossError(RunStopped):
    """Training met a loss or a gradient that is NaN or infinite. The weights are those before that step."""


class LatentModel(keras.Model):
    """Base class of the models: an encoder, a decoder and a likelihood, trained on the mean of per-example losses.

    A subclass says what the terms of the loss are in `loss_terms` and names them in `term_names`; everything else
    of training and evaluation is here.
    """

    term_names: tuple[str, ...] = ("loss", "reconstruction_loss")
    takes_labels = False  # whether the networks take a class label beside an image or z, and fit and evaluate need y

    def __init__(self, encoder, decoder, likelihood="bernoulli", **kwargs):
        super().__init__(**kwargs)
        self.encoder = encoder
        self.decoder = decoder
        self.likelihood = likelihoods.get(likelihood)
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

    def loss_terms(self, x, training):
        """Terms of each example's loss.

        Args:
            x: Float32 [b, ...], pixels in [0, 1]; with labels, a list of these and int64 [b].
            training: Bool.

        Returns:
            Dict of float32 [b], nats: a value for each of `term_names`.
        """
        raise NotImplementedError(f"{type(self).__name__} must say what its loss is made of.")

    def decode(self, z):
        """z [b, d] -> the mean of p(x|z), float32 [b, ...], clipped to pixels in [0, 1]."""
        params = ops.cast(self.decoder(z, training=False), "float32")
        return ops.clip(self.likelihood.mean(params), 0.0, 1.0)

    def start_at_mean(self, mean_image):
        """Sets the output bias of the untrained decoder so that it starts at the mean training image.

        Args:
            mean_image: Float [h, w, c], pixels in [0, 1].

        Raises:
            InputError: if the decoder does not end in a layer with a bias of as many numbers as pixels or channels.

        Reference:
            Burda et al., Importance Weighted Autoencoders, 2016, and its code: the logit of the mean, clipped.
        """
        biases = [layer.bias for layer in self.decoder.layers if getattr(layer, "bias", None) is not None]
        mean = ops.convert_to_tensor(mean_image, "float32")
        if biases and biases[-1].shape == mean.shape[-1:]:
            mean = ops.mean(mean, axis=(0, 1))
        params = ops.reshape(self.likelihood.params_of(mean), (-1,))
        if not biases or biases[-1].shape != params.shape:
            raise InputError("The decoder must end in a layer with a bias for each pixel or each channel.")
        biases[-1].assign(params)

    def code(self, x):
        """Images [b, ...] in [0, 1] -> the code that `decode` takes, without noise: float32 [b, d]."""
        raise NotImplementedError(f"{type(self).__name__} must say what its code is.")

    def reconstruct(self, x):
        """Images [b, ...] -> decode(code(x)), float32 [b, ...] in [0, 1]: no noise."""
        return self.decode(self.code(x))

    def interpolate(self, start, end, steps=10):
        """Decodes the straight lines between the codes of two batches of images.

        Args:
            start, end: Float [b, ...], pixels in [0, 1].
            steps: Int, at least 2, the number of images on a line, both ends included.

        Returns:
            Float32 [b, steps, ...], pixels in [0, 1].
        """
        z = lines_between(self.code(start), self.code(end), steps)
        images = self.decode(tf.reshape(z, (-1, z.shape[-1])))
        return tf.reshape(images, (z.shape[0], steps, *images.shape[1:]))

    @classmethod
    def from_preset(cls, name, image_shape=(28, 28, 1), seed=None, weights=None):
        """Builds the untrained model of a preset, or a trained one.

        Args:
            name: Name of a preset, as `keras-vae presets` lists them, or a folder that `keras-vae publish` wrote:
                its model is trained.
            image_shape: Triple (height, width, channels) of an untrained model.
            seed: Int seed of the noise, or None. Weights follow `keras.utils.set_random_seed`.
            weights: None, or the name of the data set that the weights were trained on, "mnist". They come with the
                package; nothing is downloaded.

        Raises:
            InputError: for an unknown preset, one of another model class, weights that there are none of, and a
                folder with damaged files. Nothing in a folder is executed.

        Example:

        >>> import keras_vae
        >>> vae = keras_vae.VAE.from_preset("mlp")
        >>> vae.encoder.input_shape
        (None, 28, 28, 1)
        >>> tuple(keras_vae.VAE.from_preset("mlp", weights="mnist").generate(4, seed=1).shape)
        (4, 28, 28, 1)
        """
        from keras_vae.models import build_model
        from keras_vae.models.published import load
        from keras_vae.presets import PRESETS, find_weights, get_preset

        if weights is not None:
            model = load(find_weights(name, weights), seed=seed)
        elif name not in PRESETS and Path(name).is_dir():
            model = load(name, seed=seed)
        else:
            model = build_model(get_preset(name).config.model, image_shape, seed=seed)
        if not isinstance(model, cls):
            raise InputError(f"Preset {name!r} is a {type(model).__name__}. Use {type(model).__name__}.from_preset.")
        return model

    # -- Keras's contract ---------------------------------------------------------------------------------------

    def call(self, x, training=False):
        """The same as `reconstruct`, so that `predict` gives reconstructions."""
        return self.reconstruct(x)

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
        # without the "loss" tracker that Keras adds by itself: ours weighs every example alike
        return [metric for metric in super().metrics if metric is not self._loss_tracker]

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """Updates the metrics given to `compile`: an image is the target of its own reconstruction."""
        images = tf.nest.flatten(x)[0]
        return super().compute_metrics(images, images, y_pred, sample_weight)

    def fit(self, x=None, y=None, **kwargs):
        """Trains; see `keras.Model.fit`.

        Args:
            x: Images in [0, 1], as an array or as a dataset of images, (images, labels) or
                (images, labels, sample_weight). The loss is the weighted mean over the batch.
            y: Labels, which only a `ConditionalVAE` looks at.
            **kwargs: Everything else that `keras.Model.fit` takes.

        Raises:
            InputError: for images of a wrong shape, NaN, or pixels out of [0, 1], before training starts.
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
        try:
            return super().fit(x, y, **kwargs)
        except tf.errors.InvalidArgumentError as error:
            if NON_FINITE not in error.message:
                raise
            raise self.non_finite_error() from None

    def evaluate(self, x=None, y=None, **kwargs):
        """Evaluates; see `keras.Model.evaluate`. Returns the terms of the loss, in nats, averaged over the images.

        Raises:
            InputError: for images of a wrong shape, NaN, or pixels out of [0, 1].
        """
        if not kwargs.get("_use_cached_eval_dataset"):
            self._check_data(x, y)
        return super().evaluate(x, _labels(x, y, kwargs), **kwargs)

    def train_step(self, data):
        x, weight, terms, gradients, finite = self._gradients_of(data)
        with tf.control_dependencies([tf.debugging.Assert(finite, [NON_FINITE])]):  # else the counters would move
            self._apply([None if g is None else tf.identity(g) for g in gradients])
        return self._update_metrics(x, terms, weight)

    def unguarded_step(self, data):
        """`train_step` for XLA, which knows no assertions: no matter whether all is finite. Returns the terms."""
        x, weight, terms, gradients, _ = self._gradients_of(data)
        self._apply(gradients)
        self._update_metrics(x, terms, weight)
        return terms

    def guarded_step(self, data):
        """`train_step` for XLA, which knows no assertions. Returns whether the loss and the gradients were finite.

        If they were not, weights, optimizer and step are left as they are.
        """
        x, weight, terms, gradients, finite = self._gradients_of(data)
        variables = [*self.trainable_variables, *self.optimizer.variables, self.step]
        before = [tf.convert_to_tensor(variable) for variable in variables]
        self._apply(gradients)
        for variable, value in zip(variables, before, strict=True):
            variable.assign(tf.where(finite, tf.convert_to_tensor(variable), value))
        self._update_metrics(x, terms, weight)
        return finite

    def _gradients_of(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        x = self._inputs(x, y)
        weight = self._example_weight(x, sample_weight)
        total_weight = all_reduce_sum(tf.reduce_sum(weight))
        passes = self._passes
        if self.jit_compile_steps is True and num_replicas() > 1:  # one for each, which holds its variables
            passes = tf.function(passes, jit_compile=True)
        terms, loss, gradients = passes(x, weight, total_weight)
        return x, weight, terms, *self._global_gradients(gradients, loss)

    def _apply(self, gradients):
        self.optimizer.apply(gradients, self.trainable_variables)
        self.step.assign_add(1)

    def _passes(self, x, weight, total_weight):
        """Forward and backward: (terms, loss, gradients) of this replica's examples."""
        with tf.GradientTape() as tape:
            terms = self.loss_terms(x, training=True)
            # The one place where examples become a scalar. Each replica's share is divided by the weight of the
            # whole batch, so that the sum over replicas is the mean over the batch, however it was dealt out.
            loss = tf.reduce_sum(weight * terms["loss"]) / tf.maximum(total_weight, 1e-30)
            if self.losses:  # regularisers in the user's own networks, one copy on each replica
                loss += tf.add_n([tf.cast(extra, loss.dtype) for extra in self.losses]) / num_replicas()
            scaled_loss = self.optimizer.scale_loss(loss)
        return terms, loss, tape.gradient(scaled_loss, self.trainable_variables)

    def test_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        x = self._inputs(x, y)
        terms = self.loss_terms(x, training=False)
        return self._update_metrics(x, terms, self._example_weight(x, sample_weight))

    def make_train_function(self, force=False):
        if self.train_function is None or force:
            self.train_function = self._function_of(self.train_step)

    def plan_execution(self, steps_per_epoch, epochs, waits=()):
        """Settles whether XLA compiles the training, and how many steps run at once, for all calls of `fit` to come.

        Without it each call settles that for itself; `compile` forgets it.

        Args:
            steps_per_epoch: Int, or None if the steps cannot be counted.
            epochs: Int.
            waits: Ints, for how many steps at most a callback can wait for its next call.
        """
        self._plan = execution.choose(self, steps_per_epoch, epochs, waits)

    def _prepare_execution(self, x, options):
        """Sets what Keras needs to know of the plan before `fit`."""
        steps_per_epoch = options.get("steps_per_epoch")
        callbacks = keras.tree.flatten(options.get("callbacks") or [])
        compiled, at_once = self._plan or execution.choose(
            self,
            steps_per_epoch or _count_steps(x, options.get("batch_size") or 32),
            options.get("epochs", 1),
            [execution.steps_between_calls(callback) for callback in callbacks],
        )
        if (compiled, at_once) != (isinstance(self.train_function, execution.CompiledSteps), self.steps_per_execution):
            self.steps_per_execution = at_once
            self.train_function = execution.CompiledSteps(self, at_once) if compiled else None
            self.test_function = self.predict_function = None
        if compiled:
            self.train_function.start(steps_per_epoch)

    def non_finite_error(self):
        """What `fit` raises after a step whose loss or gradients were not finite."""
        return NonFiniteLossError(
            f"The loss became NaN or infinite at step {self.step.numpy() + 1}. The weights are those before it. "
            "Try a lower learning rate, gradient clipping (global_clipnorm=1.0 of the optimizer), or check the "
            "data for values outside [0, 1]."
        )

    def make_test_function(self, force=False):
        if self.test_function is None or force:
            self.test_function = self._function_of(self.test_step)

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "encoder": serialize(self.encoder),
            "decoder": serialize(self.decoder),
            "likelihood": serialize(self.likelihood),
        }

    @classmethod
    def from_config(cls, config):
        return cls(**{name: keras.saving.deserialize_keras_object(value) for name, value in config.items()})

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        # Keras would average the first batch over the replicas, which fails where their shares differ in size
        if self.built:
            iterator, data_batch = None, tf.zeros((1, *self.image_shape))
            if self.takes_labels:
                data_batch = ([data_batch, tf.zeros((1,), "int64")],)
        super()._maybe_symbolic_build(iterator, data_batch)

    # -- helpers ------------------------------------------------------------------------------------------------

    def _inputs(self, x, y):
        """What `loss_terms` and `reconstruct` take, from images and labels as they came to `fit`."""
        return x

    def _build_networks(self, input_shape, heads):
        """Builds encoder and decoder and checks that they fit each other. Returns the shape of z, (None, d)."""
        self.image_shape = tuple(input_shape[1:])
        labels = [keras.KerasTensor((None,), "int64")] if self.takes_labels else []
        outputs = [(head, (None, None)) for head in heads]
        z_shape = check_network("encoder", self.encoder, input_shape, outputs, labels)
        *pixels, channels = input_shape
        params_shape = (*pixels, channels * self.likelihood.params_per_channel)
        check_network("decoder", self.decoder, z_shape, [("parameters of p(x|z)", params_shape)], labels)
        return z_shape

    def _function_of(self, step):
        """What Keras calls for `steps_per_execution` steps."""
        several = self.distribute_strategy.num_replicas_in_sync > 1
        return distributed_function(self, step) if several else self._make_function(step)

    def _example_weight(self, x, sample_weight):
        """Weight of each example, float32 [b]."""
        ones = tf.ones([tf.shape(tf.nest.flatten(x)[0])[0]])
        return ones if sample_weight is None else ones * tf.reshape(tf.cast(sample_weight, "float32"), [-1])

    def _global_gradients(self, gradients, loss):
        """The gradients of the whole batch, in the share that `optimizer.apply` sums over replicas; are they finite?"""
        replicas = num_replicas()
        if replicas > 1:
            gradients = [None if g is None else all_reduce_sum(g) for g in gradients]
            # An optimizer clips before it sums over replicas; the right order is to sum first.
            gradients = self.optimizer._clip_gradients(gradients)
        checked = all_reduce_sum(loss)  # so that all replicas come to the same answer
        if not isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer):  # which skips infinite gradients itself
            squares = [tf.nn.l2_loss(tf.convert_to_tensor(g)) for g in gradients if g is not None]
            checked += tf.add_n([tf.cast(s, "float32") for s in squares])
        return [None if g is None else g / replicas for g in gradients], tf.math.is_finite(checked)

    def _update_metrics(self, x, terms, weight):
        for tracker in self.trackers:
            tracker.update_state(terms[tracker.name], sample_weight=weight)
        if self._compile_metrics is None:
            return self.get_metrics_result()
        return self.compute_metrics(x, x, self.reconstruct(x), sample_weight=weight)

    def _check_data(self, x, y=None):
        """Refuses images, and labels, that can be seen to be wrong before any work starts."""
        spec = x
        if isinstance(x, tf.data.Dataset):
            spec = x.element_spec[0] if isinstance(x.element_spec, tuple) else x.element_spec
        if not self.built and tf.TensorShape(getattr(spec, "shape", None))[1:].is_fully_defined():
            self.build((None, *spec.shape[1:]))  # Keras would wait until the networks are called within a step
        if not self.built:
            return
        if isinstance(spec, tf.TensorSpec) and not spec.shape[1:].is_compatible_with(self.image_shape):
            raise InputError(_shape_message(self.image_shape, tuple(spec.shape[1:])))
        if isinstance(x, np.ndarray) or tf.is_tensor(x):
            check_pixels(x, self.image_shape)


def _count_steps(x, batch_size):
    """Number of batches in a pass over `x`, or None if it cannot be known."""
    if isinstance(x, tf.data.Dataset):
        return max(int(x.cardinality()), 0) or None
    return -(-len(x) // batch_size) if isinstance(x, np.ndarray) or tf.is_tensor(x) else None


def _labels(x, y, kwargs):
    """Labels for Keras, which drops the sample weights of images without any."""
    return x if y is None and kwargs.get("sample_weight") is not None else y


def check_pixels(x, shape=None):
    """Checks that `x` is a batch of images.

    Args:
        x: Array [n, ...].
        shape: Shape of one image, or None for any.

    Raises:
        InputError: for a wrong shape, NaN, infinities, or pixels out of [0, 1].
    """
    x = np.asarray(x)
    if shape is not None and x.shape[1:] != tuple(shape):
        raise InputError(_shape_message(shape, x.shape[1:]))
    low, high = (x.min(), x.max()) if x.size else (0, 0)
    if not (0 <= low and high <= 1):  # NaN fails both comparisons
        raise InputError(
            f"Pixels must be in [0, 1], without NaN. Received values from {low} to {high} (dtype {x.dtype}). "
            "Divide 8-bit images by 255."
        )


def lines_between(first, last, steps):
    """The straight lines between codes [b, d], both ends included: float32 [b, steps, d]."""
    if steps < 2:
        raise InputError(f"Invalid value for argument `steps`. Expected at least 2. Received: steps={steps}")
    share = tf.linspace(0.0, 1.0, steps)[None, :, None]
    return (1 - share) * first[:, None] + share * last[:, None]


def check_network(name, network, input_shape, expected, labels=()):
    """Builds a network and refuses it unless its outputs are as `expected`: a list of (name, shape).

    Args:
        name: Name of the argument that the network was.
        network: The network.
        input_shape: Shape of what it takes.
        expected: List of (name, shape).
        labels: List of the symbolic labels that it takes as well, of one or none.

    Returns:
        Shape of the first output.
    """
    wanted = ", ".join(f"{output} {list(shape)}" for output, shape in expected)
    try:
        inputs = keras.KerasTensor(input_shape)
        outputs = keras.tree.flatten(network([inputs, *labels] if labels else inputs))
    except ValueError as error:
        taken = f"a list of {input_shape} and labels [None]" if labels else input_shape
        raise InputError(f"Argument `{name}` must take {taken} and return {wanted}. It fails: {error}") from None
    shapes = [tuple(output.shape) for output in outputs]
    fits = [tf.TensorShape(got).is_compatible_with(want) for got, (_, want) in zip(shapes, expected, strict=False)]
    if len(shapes) != len(expected) or not all(fits):
        raise InputError(f"Argument `{name}` must return {wanted}. Received: {', '.join(map(str, shapes))}")
    return shapes[0]


def _shape_message(expected, received):
    expected, received = (", ".join(map(str, shape)) for shape in (expected, received))
    return f"Images have the wrong shape. Expected (n, {expected}). Received (n, {received})."
