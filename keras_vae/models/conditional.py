"""The variational autoencoder of images with class labels."""

from contextlib import contextmanager

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_vae import priors
from keras_vae.config import InputError
from keras_vae.models.base import lines_between
from keras_vae.models.vae import VAE

UNKNOWN_LABEL = "keras_vae: a label is out of range"


@keras.saving.register_keras_serializable(package="keras_vae")
class ConditionalVAE(VAE):
    """A variational autoencoder of images given their class: q(z|x, y), p(z) and p(x|z, y).

    All numbers are those of log p(x|y); the label itself costs nothing. Wherever a `VAE` takes images, this model takes
    images and labels, as two arguments or as one pair.

    Args:
        encoder: Model, [image [b, ...], label int64 [b]] -> (z_mean, z_log_var), each [b, d].
        decoder: Model, [z [b, d], label int64 [b]] -> parameters of p(x|z, y), shaped like the images, not squashed.
        num_classes: Int, K: labels are from 0 to K - 1.
        likelihood: Name of a likelihood or a likelihood layer: p(x|z, y).
        prior: Name of a prior or a prior layer: p(z), the same for all classes. Not a VampPrior, whose pseudo-inputs
            have no labels.
        objective: Name of an objective, or an objective.
        beta: Weight of the KL term, for an objective given by name alone.
        seed: Int seed of the noise, or None for a random one.

    Example:

    >>> import numpy as np, keras_vae
    >>> from keras_vae import networks
    >>> vae = keras_vae.ConditionalVAE(*networks.build("linear", (8, 8, 1), 2, num_classes=10), num_classes=10)
    >>> vae.compile(optimizer="adam")
    >>> history = vae.fit(np.zeros((8, 8, 8, 1), "float32"), np.arange(8), epochs=1, verbose=0)
    >>> tuple(vae.generate([3, 3, 7], seed=1).shape)
    (3, 8, 8, 1)

    Reference:
        Kingma et al., Semi-supervised Learning with Deep Generative Models, 2014, equation 6 without the prior of y;
        Sohn et al., Learning Structured Output Representation using Deep Conditional Generative Models, 2015.
    """

    takes_labels = True

    def __init__(
        self,
        encoder,
        decoder,
        num_classes,
        likelihood="bernoulli",
        posterior="diagonal_gaussian",
        prior="standard_normal",
        objective="elbo",
        beta=1.0,
        seed=None,
        **kwargs,
    ):
        if not (isinstance(num_classes, int) and num_classes >= 1):
            raise InputError(
                "Invalid value for argument `num_classes`. Expected an int of at least 1. "
                f"Received: num_classes={num_classes!r}"
            )
        prior = priors.get(prior)
        if isinstance(prior, priors.VampPrior):
            raise InputError("A ConditionalVAE has no vampprior: pseudo-inputs have no labels. Use another prior.")
        super().__init__(encoder, decoder, likelihood, posterior, prior, objective, beta, seed, **kwargs)
        self.num_classes = num_classes

    def build(self, input_shape):
        with_labels = isinstance(input_shape[0], (tuple, list))
        super().build(tuple(input_shape[0]) if with_labels else input_shape)

    def loss_terms(self, x, training):
        return super().loss_terms(self._pair(x), training)

    def log_likelihood(self, x, z, training=False):
        """log p(x|z, y) of images under several z each.

        Args:
            x: Pair of images, float32 [b, ...] in [0, 1], and labels, int [b].
            z: Float [s, b, d].
            training: Bool.

        Returns:
            Float32 [s, b], nats.
        """
        images, labels = self._pair(x)
        labels = ops.tile(labels, (ops.shape(z)[0],))  # (s * b,)
        params = self.decoder([ops.reshape(z, (-1, z.shape[-1])), labels], training=training)
        params = ops.reshape(ops.cast(params, "float32"), (*ops.shape(z)[:1], -1, *params.shape[1:]))
        return self.likelihood.log_prob(images, params)

    def encode(self, x, labels=None):
        """Images [b, ...] in [0, 1] and labels [b] -> (z_mean, z_log_var), each float32 [b, d]."""
        return super().encode(self._pair(x, labels))

    def code(self, x, labels=None):
        """Images [b, ...] in [0, 1] and labels [b] -> z_mean, float32 [b, d]."""
        return self.encode(x, labels)[0]

    def decode(self, z, labels):
        """z [b, d] and labels [b] -> the mean of p(x|z, y), float32 [b, ...], clipped to pixels in [0, 1]."""
        z = ops.convert_to_tensor(z, "float32")
        return super().decode([z, self._labels(labels, z.shape[0])])

    def reconstruct(self, x, labels=None):
        """Images [b, ...] and labels [b] -> decode(code(x, labels), labels), float32 [b, ...]: no noise."""
        images, labels = self._pair(x, labels)
        return self.decode(self.code(images, labels), labels)

    def interpolate(self, start, end, labels, steps=10):
        """Decodes the straight lines between the codes of two batches of images of the same classes.

        Args:
            start, end: Float [b, ...], pixels in [0, 1].
            labels: Int [b], the class of both ends and of all between.
            steps: Int, at least 2, the number of images on a line, both ends included.

        Returns:
            Float32 [b, steps, ...], pixels in [0, 1].
        """
        z = lines_between(self.code(start, labels), self.code(end, labels), steps)
        images = self.decode(tf.reshape(z, (-1, z.shape[-1])), np.repeat(labels, steps))
        return tf.reshape(images, (z.shape[0], steps, *images.shape[1:]))

    def generate(self, labels, seed=None):
        """Decodes draws from the prior, one for each label.

        Args:
            labels: Int [n], the classes of the images.
            seed: Int, or None for other images at each call.

        Returns:
            Float32 [n, ...], pixels in [0, 1]: means of p(x|z, y), z ~ p(z).
        """
        self.latent_dim  # noqa: B018  raises where the model is not built
        labels = self._labels(labels)
        return self.decode(self.prior.sample(len(labels), seed), labels)

    def fit(self, x=None, y=None, **kwargs):
        """Trains on images and labels; see `VAE.fit`.

        Args:
            x: Images in [0, 1], or a dataset of (images, labels) or (images, labels, sample_weight).
            y: Labels of an array of images, int [n].
            **kwargs: Everything else that `keras.Model.fit` takes.

        Raises:
            InputError: for labels that are missing, out of range or no integers; else as `VAE.fit`.
        """
        with self._labels_refused():
            return super().fit(x, y, **kwargs)

    def evaluate(self, x=None, y=None, **kwargs):
        """Evaluates on images and labels, as `fit` takes them; see `VAE.evaluate`."""
        with self._labels_refused():
            return super().evaluate(x, y, **kwargs)

    def get_config(self):
        return {**super().get_config(), "num_classes": self.num_classes}

    # -- labels -------------------------------------------------------------------------------------------------

    def _inputs(self, x, y):
        if y is None:
            self._refuse_labels("none")
        labels = tf.cast(y, "int64")
        known = tf.reduce_all((labels >= 0) & (labels < self.num_classes))
        with tf.control_dependencies([tf.debugging.Assert(known, [UNKNOWN_LABEL])]):
            return [x, tf.identity(labels)]

    def _pair(self, x, labels=None):
        """[images, labels], from both or from the pair that `x` is."""
        if labels is None:
            if not isinstance(x, (tuple, list)) or len(x) != 2:
                self._refuse_labels("none")
            x, labels = x
        images = ops.cast(x, "float32")
        return [images, self._labels(labels, images.shape[0])]

    def _labels(self, labels, count=None):
        """Labels as int64 [b]; `count` is b where it is known."""
        if tf.executing_eagerly():
            self._check_labels(np.asarray(labels), count)
        return tf.cast(labels, "int64")

    def _check_data(self, x, y=None):
        super()._check_data(x, y)
        if isinstance(x, tf.data.Dataset):
            parts = x.element_spec if isinstance(x.element_spec, tuple) else ()
            y = parts[1] if len(parts) > 1 else None
        if y is None and (isinstance(x, (np.ndarray, tf.data.Dataset)) or tf.is_tensor(x)):
            self._refuse_labels("none")
        if isinstance(y, tf.TensorSpec):
            if not y.dtype.is_integer or y.shape.rank not in (None, 1):
                self._refuse_labels(f"{y.dtype.name} of shape {y.shape}")
        elif y is not None:
            self._check_labels(np.asarray(y), len(x) if hasattr(x, "__len__") else None)

    def _check_labels(self, labels, count=None):
        if labels.dtype.kind not in "iu" or labels.ndim != 1:
            self._refuse_labels(f"{labels.dtype} of shape {labels.shape}")
        if count not in (None, len(labels)):
            self._refuse_labels(f"{len(labels)} labels for {count}")
        if labels.size and not (labels.min() >= 0 and labels.max() < self.num_classes):
            self._refuse_labels(f"labels from {labels.min()} to {labels.max()}")

    def _refuse_labels(self, received):
        raise InputError(
            f"A ConditionalVAE needs a label for each image: integers from 0 to {self.num_classes - 1}, of shape (n,). "
            f"Received: {received}."
        )

    @contextmanager
    def _labels_refused(self):
        """Labels are looked at within the step where they come from a dataset."""
        try:
            yield
        except tf.errors.InvalidArgumentError as error:
            if UNKNOWN_LABEL not in error.message:
                raise
            self._refuse_labels("others, in a dataset")
