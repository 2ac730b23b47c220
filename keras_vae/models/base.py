"""What all models share: a decoder, its likelihood, codes, reconstructions, and the check of data."""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_vae import likelihoods
from keras_vae.config import InputError
from keras_vae.train import Trainer


class LatentModel(Trainer):
    """Base class of the models: an encoder, a decoder and a likelihood, trained on the mean of per-example losses.

    A subclass says what the terms of the loss are in `loss_terms` and names them in `term_names`; how it is trained
    and evaluated is in `keras_vae.train`.
    """

    takes_labels = False  # whether the networks take a class label beside an image or z, and fit and evaluate need y

    def __init__(self, encoder, decoder, likelihood="bernoulli", **kwargs):
        super().__init__(**kwargs)
        self.encoder = encoder
        self.decoder = decoder
        self.likelihood = likelihoods.get(likelihood)

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

    # -- what training asks ----------------------------------------------------------------------------------------

    def _example_batch(self):
        if not self.built:
            return None
        image = tf.zeros((1, *self.image_shape))
        return ([image, tf.zeros((1,), "int64")],) if self.takes_labels else image

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
