"""What all models share: a decoder, its likelihood, a condition, codes, reconstructions, and the check of data."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_vae import conditions, likelihoods, networks
from keras_vae.config import InputError
from keras_vae.train import Trainer, only


class LatentModel(Trainer):
    """Base class of the models: an encoder, a decoder and a likelihood, trained on the mean of per-example losses.

    A subclass says what the terms of the loss are in `loss_terms` and names them in `term_names`; how it is trained
    and evaluated is in `keras_vae.train`. x is a batch of examples of any event shape, `event_shape`; a condition, such
    as a class label, goes with it wherever the model was made with one.
    """

    def __init__(self, encoder, decoder, likelihood="bernoulli", condition=None, **kwargs):
        super().__init__(**kwargs)
        self.encoder = encoder
        self.decoder = decoder
        self.likelihood = likelihoods.get(likelihood)
        self.condition = conditions.get(condition)

    @property
    def takes_labels(self):
        """Whether the condition is a class label."""
        return isinstance(self.condition, conditions.Label)

    def decode(self, z, condition=None):
        """z [b, d], and conditions [b, ...] -> the mean of p(x|z), float32 [b, ...]."""
        return self.likelihood.mean(ops.cast(self.decoder(self._with(z, condition), training=False), "float32"))

    def start_at_mean(self, mean):
        """Sets the output bias of the untrained decoder so that it starts at the mean training example.

        Args:
            mean: Float [...], the shape of one example.

        Raises:
            InputError: if the decoder does not end in a layer with a bias of as many numbers as values or channels.

        Reference:
            Burda et al., Importance Weighted Autoencoders, 2016, and its code: the logit of the mean, clipped.
        """
        biases = [layer.bias for layer in self.decoder.layers if getattr(layer, "bias", None) is not None]
        params = self.likelihood.params_of(ops.convert_to_tensor(mean, "float32"))
        if biases and biases[-1].shape == params.shape[-1:] and len(params.shape) > 1:
            params = self.likelihood.params_of(ops.mean(mean, axis=tuple(range(len(params.shape) - 1))))
        params = ops.reshape(params, (-1,))
        if not biases or biases[-1].shape != params.shape:
            raise InputError("The decoder must end in a layer with a bias for each value or each channel.")
        biases[-1].assign(params)

    def code(self, x, condition=None):
        """x [b, ...] -> the code that `decode` takes, without noise: float32 [b, d]."""
        raise NotImplementedError(f"{type(self).__name__} must say what its code is.")

    def reconstruct(self, x, condition=None):
        """x [b, ...] -> decode(code(x)), float32 [b, ...]: no noise."""
        return self.decode(self.code(x, condition), condition)

    def interpolate(self, start, end, steps=10, condition=None):
        """Decodes the straight lines between the codes of two batches.

        Args:
            start, end: Float [b, ...].
            steps: Int, at least 2, the number of examples on a line, both ends included.
            condition: That of both ends and of all between, [b, ...].

        Returns:
            Float32 [b, steps, ...].
        """
        z = lines_between(self.code(start, condition), self.code(end, condition), steps)
        between = None if condition is None else np.repeat(condition, steps, axis=0)
        decoded = self.decode(tf.reshape(z, (-1, z.shape[-1])), between)
        return tf.reshape(decoded, (z.shape[0], steps, *decoded.shape[1:]))

    @classmethod
    def from_preset(cls, name, event_shape=(28, 28, 1), seed=None, weights=None, **overrides):
        """Builds the untrained model of a preset, or a trained one.

        Args:
            name: Name of a preset, as `keras-vae presets` lists them, or a folder that `keras-vae publish` wrote:
                its model is trained.
            event_shape: Shape of one example of an untrained model: (height, width, channels), (t, n) or (n,).
            seed: Int seed of the noise, or None. Weights follow `keras.utils.set_random_seed`.
            weights: None, or the name of the data set that the weights were trained on, "mnist". They come with the
                package; nothing is downloaded.
            **overrides: What the command line takes for the model, of an untrained one: `latent_dim=2`,
                `likelihood="gaussian"`, `beta=4.0`.

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

        if weights is None and (name in PRESETS or not Path(name).is_dir()):
            model = build_model(get_preset(name).config.model.replace(**overrides), event_shape, seed=seed)
        elif overrides:
            raise InputError(f"A trained model is as it is: leave out {', '.join(overrides)}.")
        else:
            model = load(name if weights is None else find_weights(name, weights), seed=seed)
        if not isinstance(model, cls):
            raise InputError(f"Preset {name!r} is a {type(model).__name__}. Use {type(model).__name__}.from_preset.")
        return model

    # -- Keras's contract ---------------------------------------------------------------------------------------

    def call(self, x, training=False):
        """The same as `reconstruct`, so that `predict` gives reconstructions. With a condition x is [x, condition]."""
        if self.condition is None:
            return self.reconstruct(only(x))
        if not isinstance(x, (tuple, list)) or len(x) != 2:
            self.condition.refuse("none")
        return self.reconstruct(*x)

    def predict_step(self, data):
        x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
        if self.condition is not None and not (isinstance(x, (tuple, list)) and len(x) == 2):
            x = list(self._inputs(x, y))  # a dataset as `fit` takes it
        return self(x, training=False)

    def save(self, filepath, overwrite=True, zipped=None, **kwargs):
        """Saves the model; see `keras.Model.save`.

        Raises:
            InputError: for a `.h5` file, from which Keras loads no class that is registered under a package.
        """
        if str(filepath).endswith((".h5", ".hdf5")):
            raise InputError(
                f"A {type(self).__name__} cannot be loaded from HDF5: save it as .keras, or its weights alone by "
                f"save_weights as .weights.h5. Received: filepath={str(filepath)!r}"
            )
        return super().save(filepath, overwrite=overwrite, zipped=zipped, **kwargs)

    def export(self, filepath, *args, input_signature=None, **kwargs):
        """Exports `call`, x -> reconstructions; see `keras.Model.export`.

        `keras_vae.export_saved_models` exports the encoder and the decoder, to be served.
        """
        if input_signature is None and self.built:
            input_signature = [self._specs_of_call()]
        return super().export(filepath, *args, input_signature=input_signature, **kwargs)

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "encoder": serialize(self.encoder),
            "decoder": serialize(self.decoder),
            "likelihood": serialize(self.likelihood),
            "condition": serialize(self.condition),
        }

    @classmethod
    def from_config(cls, config):
        return cls(**{name: keras.saving.deserialize_keras_object(value) for name, value in config.items()})

    # -- what training asks ----------------------------------------------------------------------------------------

    def _specs_of_call(self):
        """What `call` takes of a model that is built: the spec of x, or those of x and the condition."""
        x = tf.TensorSpec((None, *self.event_shape), tf.float32, networks.input_name(self.event_shape))
        if self.condition is None:
            return x
        shape, dtype = self.condition.event_shape, self.condition.event_dtype
        return [x, tf.TensorSpec((None, *shape), dtype, self.condition.field)]

    def example_batch(self):
        if not self.built:
            return None
        batch = tf.nest.map_structure(lambda spec: tf.zeros((1, *spec.shape[1:]), spec.dtype), self._specs_of_call())
        return batch if self.condition is None else (batch,)

    def _inputs(self, x, y):
        x = tf.cast(only(x), "float32")
        if x.shape.rank is None:  # of a dataset that does not say it
            x = tf.ensure_shape(x, (None, *self.event_shape))
        if self.condition is None:
            return (x,)
        if y is None:
            self.condition.refuse("none")
        y = tf.cast(y, self.condition.event_dtype)
        return x, tf.ensure_shape(y, (None, *self.condition.event_shape)) if y.shape.rank is None else y

    def _supported(self, x, condition=None):
        known = True if condition is None else self.condition.supports(condition)
        return tf.reduce_all(self.likelihood.supports(x)) & known

    def _with(self, values, condition):
        """What a network takes: values [b, ...], and the condition if there is one."""
        values = ops.convert_to_tensor(values, "float32")
        if self.condition is not None:
            return [values, self.condition.tensor(condition, values.shape[0])]
        if condition is not None:
            raise InputError(f"This {type(self).__name__} has no condition: leave the argument `condition` out.")
        return values

    def _build_networks(self, input_shape, heads):
        """Builds encoder and decoder and checks that they fit each other. Returns the shape of z, (None, d).

        `heads` takes the shape of one z and gives the encoder's outputs: name -> shape.
        """
        if isinstance(input_shape[0], (tuple, list)):  # of x, and of the condition
            input_shape = tuple(input_shape[0])
        self.event_shape = tuple(input_shape[1:])
        given = []
        if self.condition is not None:
            given = [keras.KerasTensor((None, *self.condition.event_shape), self.condition.event_dtype)]
        outputs = [(head, (None, *shape)) for head, shape in heads((None,)).items()]
        z_shape = check_network("encoder", self.encoder, input_shape, outputs, given)
        outputs = [(head, (None, *shape)) for head, shape in heads(z_shape[1:]).items()]
        check_network("encoder", self.encoder, input_shape, outputs, given)
        params_shape = (None, *self.likelihood.param_shape(self.event_shape))
        check_network("decoder", self.decoder, z_shape, [("parameters of p(x|z)", params_shape)], given)
        return z_shape

    def _check_data(self, x, y=None):
        """Refuses examples, and conditions, that can be seen to be wrong before any work starts."""
        if isinstance(x, (list, tuple, dict)):
            raise InputError(
                f"Expected examples in one array, [n, ...]. Received {type(x).__name__} of {len(x)}. "
                "A condition, such as labels, is the argument `y`."
            )
        spec = x
        if isinstance(x, tf.data.Dataset):
            parts = x.element_spec if isinstance(x.element_spec, tuple) else (x.element_spec,)
            spec, y = only(parts[0]), parts[1] if len(parts) > 1 else None
        if not self.built and tf.TensorShape(getattr(spec, "shape", None))[1:].is_fully_defined():
            self.build((None, *spec.shape[1:]))  # Keras would wait until the networks are called within a step
        if not self.built:
            if isinstance(spec, tf.TensorSpec) and spec.shape.rank is None:
                raise InputError(
                    "The model is not built, and its networks and the dataset do not say their shapes: call it on "
                    "examples first."
                )
            return
        if isinstance(spec, tf.TensorSpec) and not spec.shape[1:].is_compatible_with(self.event_shape):
            raise InputError(_shape_message(self.event_shape, tuple(spec.shape[1:])))
        is_array = isinstance(x, np.ndarray) or tf.is_tensor(x) or hasattr(x, "to_numpy")
        if is_array:
            self.check_examples(x)
        if self.condition is not None and (is_array or isinstance(x, tf.data.Dataset)):
            if isinstance(y, tf.TensorSpec):
                self.condition.check_spec(y)
            else:
                self.condition.check(y, len(x) if is_array else None)

    def check_batch(self, batch):
        x, y, _ = keras.utils.unpack_x_y_sample_weight(batch)
        self.check_examples(x, None if self.condition is None else y)

    def unsupported_error(self):
        """What `fit` and `evaluate` raise for a batch with values that have no probability."""
        condition = "" if self.condition is None else f" {self.condition.expected()}"
        return InputError(
            f"{self.likelihood.expected()}{condition} Received others in a batch.{self.likelihood.advice()}"
        )

    def check_examples(self, x, condition=None):
        """Raises InputError for a batch of a wrong shape, or with values that p(x|z) gives no probability."""
        _check_columns(x)
        x = np.asarray(x)
        if x.shape[1:] != self.event_shape:
            raise InputError(_shape_message(self.event_shape, x.shape[1:]))
        if x.dtype.kind not in "uifb" and x.dtype.name != "bfloat16":
            raise InputError(f"Examples must be real numbers: floats, integers or bools. Received dtype: {x.dtype}")
        self.likelihood.check(x)
        if condition is not None:
            self.condition.check(condition, len(x))


def lines_between(first, last, steps):
    """The straight lines between codes [b, d], both ends included: float32 [b, steps, d]."""
    if steps < 2:
        raise InputError(f"Invalid value for argument `steps`. Expected at least 2. Received: steps={steps}")
    share = tf.linspace(0.0, 1.0, steps)[None, :, None]
    return (1 - share) * first[:, None] + share * last[:, None]


def check_network(name, network, input_shape, expected, given=()):
    """Builds a network and refuses it unless its outputs are as `expected`.

    Args:
        name: Name of the argument that the network was.
        network: The network.
        input_shape: Shape of what it takes.
        expected: List of (name, shape).
        given: List of the symbolic condition that it takes as well, of one or none.

    Returns:
        Shape of the first output.
    """
    wanted = ", ".join(f"{output} {list(shape)}" for output, shape in expected)
    try:
        inputs = keras.KerasTensor(input_shape)
        outputs = keras.tree.flatten(network([inputs, *given] if given else inputs))
    except ValueError as error:
        taken = f"a list of {input_shape} and a condition {given[0].shape}" if given else input_shape
        raise InputError(f"Argument `{name}` must take {taken} and return {wanted}. It fails: {error}") from None
    shapes = [tuple(output.shape) for output in outputs]
    fits = [tf.TensorShape(got).is_compatible_with(want) for got, (_, want) in zip(shapes, expected, strict=False)]
    if len(shapes) != len(expected) or not all(fits):
        raise InputError(f"Argument `{name}` must return {wanted}. Received: {', '.join(map(str, shapes))}")
    return shapes[0]


def _check_columns(x: Any) -> None:
    """Refuses a DataFrame with columns that are no numbers to numpy: text, categories, and pandas's nullable types."""
    if not hasattr(x, "columns"):
        return
    others = [
        f"{name} ({dtype})"
        for name, dtype in zip(x.columns, x.dtypes, strict=True)
        if not isinstance(dtype, np.dtype) or dtype.kind not in "uifb"
    ]
    if others:
        raise InputError(
            f"Columns of a DataFrame must be numbers. Received others: {', '.join(others[:5])}. Leave them out, or "
            'make numbers of them with astype("float32").'
        )


def _shape_message(expected, received):
    expected, received = (", ".join(map(str, shape)) for shape in (expected, received))
    return f"Examples have the wrong shape. Expected (n, {expected}). Received (n, {received})."
