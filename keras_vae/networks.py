"""Networks: how an encoder and a decoder are computed.

A network builds the encoder's trunk, x -> features, and the decoder, z -> parameters. `build` adds what all have in
common: inputs, heads and the condition. A new network is one class and one row of `NETWORKS` below.
"""

import abc
import math
from collections.abc import Sequence
from typing import Any, Literal

import keras
from keras import layers

from keras_vae import conditions, named
from keras_vae.config import InputError
from keras_vae.event_shapes import input_name, kind_of
from keras_vae.layers import Conv2DTranspose
from keras_vae.options import Activation, NonNegativeInt, PositiveInt, Sizes

Tensor = Any

# The first is uniform within 1 / sqrt(inputs); docs/architecture.md says what each brings.
INITIALIZERS = {
    "fan_in_uniform": lambda: keras.initializers.VarianceScaling(1 / 3, mode="fan_in", distribution="uniform"),
    "glorot_uniform": keras.initializers.GlorotUniform,
}
Initializer = Literal["fan_in_uniform", "glorot_uniform"]


class Network(abc.ABC):
    """Base class: a pair of builders.

    `kinds` says what the network is for: vectors, sequences, images. `initializer` names the weights of its dense
    layers at the start, a key of `INITIALIZERS`.
    """

    kinds: tuple[str, ...] = ("vector", "sequence", "image")
    initializer = "fan_in_uniform"

    @abc.abstractmethod
    def encode(self, x: Any, features: Any) -> Tensor:
        """Features, float [b, n].

        Args:
            x: Symbolic tensor [b, ...].
            features: Symbolic features of the condition, [b, k], or None.
        """

    @abc.abstractmethod
    def decode(self, z: Any, output_shape: tuple[int, ...]) -> Tensor:
        """Parameters [b, *output_shape], not squashed, from z [b, d], behind which are the features of a condition."""

    def dense(self, units: int, **options: Any) -> layers.Dense:
        """A dense layer with an initializer of its own, which draws its seed when it is made."""
        return layers.Dense(units, kernel_initializer=INITIALIZERS[self.initializer](), **options)


class MLP(Network):
    """Dense layers, over the flattened values of x: for examples of any shape.

    Args:
        hidden: Ints, units of the encoder's hidden layers; the decoder mirrors them.
        activation: Activation of the hidden layers.
        initializer: Weights of dense layers at the start: uniform within 1/sqrt(inputs), or Keras's default.
    """

    def __init__(
        self,
        hidden: Sizes = (400,),
        activation: Activation = "relu",
        initializer: Initializer = "fan_in_uniform",
    ) -> None:
        self.hidden = _sizes(hidden)
        self.activation = activation
        self.initializer = initializer

    def encode(self, x: Tensor, features: Tensor | None) -> Tensor:
        outputs = join(layers.Flatten()(x), features)
        for units in self.hidden:
            outputs = self.layer(outputs, units)
        return outputs

    def decode(self, z: Tensor, output_shape: tuple[int, ...]) -> Tensor:
        outputs = z
        for units in reversed(self.hidden):
            outputs = self.layer(outputs, units)
        return layers.Reshape(output_shape)(self.dense(math.prod(output_shape))(outputs))

    def layer(self, inputs: Tensor, units: int) -> Tensor:
        """One hidden layer."""
        return self.dense(units, activation=self.activation)(inputs)


class Linear(MLP):
    """No hidden layer.

    Args:
        initializer: Weights of dense layers at the start: uniform within 1/sqrt(inputs), or Keras's default.
    """

    def __init__(self, initializer: Initializer = "fan_in_uniform") -> None:
        super().__init__(hidden=(), initializer=initializer)


class Gated(MLP):
    """Like the mlp, of gated layers: (W x + b) * sigmoid(V x + c).

    Args:
        hidden: Ints, units of the encoder's hidden layers; the decoder mirrors them.
        initializer: Weights of dense layers at the start: uniform within 1/sqrt(inputs), or Keras's default.

    Reference:
        Tomczak and Welling, VAE with a VampPrior, 2018, section 5.
    """

    def __init__(self, hidden: Sizes = (300, 300), initializer: Initializer = "fan_in_uniform") -> None:
        super().__init__(hidden=hidden, initializer=initializer)

    def layer(self, inputs: Tensor, units: int) -> Tensor:
        return layers.Multiply()([self.dense(units)(inputs), self.dense(units, activation="sigmoid")(inputs)])


class Conv(Network):
    """3x3 convolutions of stride 2, and transposed ones back from a small feature map.

    Args:
        hidden: Ints, channels of the encoder's convolutions; the decoder mirrors them.
        activation: Activation of the hidden layers.
        dense: Int, units of a dense layer before the latent one; 0 for none.
        decoder_channels: Int, channels of the decoder's first feature map.
        padding: Padding of the encoder's strided convolutions.
        initializer: Weights of dense layers at the start: uniform within 1/sqrt(inputs), or Keras's default.
    """

    kinds = ("image",)

    def __init__(
        self,
        hidden: Sizes = (32, 64),
        activation: Activation = "relu",
        dense: NonNegativeInt = 0,
        decoder_channels: PositiveInt = 64,
        padding: Literal["same", "valid"] = "same",
        initializer: Initializer = "fan_in_uniform",
    ) -> None:
        self.hidden = _sizes(hidden)
        self.activation = activation
        self.dense_units = dense
        self.decoder_channels = decoder_channels
        self.padding = padding
        self.initializer = initializer

    def encode(self, x: Tensor, features: Tensor | None) -> Tensor:
        outputs = x
        if features is not None:  # as constant planes
            height, width, _ = x.shape[1:]
            planes = layers.Reshape((height, width, features.shape[-1]))(layers.RepeatVector(height * width)(features))
            outputs = layers.Concatenate()([x, planes])
        for channels in self.hidden:
            convolution = layers.Conv2D(channels, 3, strides=2, padding=self.padding, activation=self.activation)
            outputs = self.block(convolution(outputs))
        outputs = layers.Flatten()(outputs)
        return self.dense(self.dense_units, activation=self.activation)(outputs) if self.dense_units else outputs

    def decode(self, z: Tensor, output_shape: tuple[int, ...]) -> Tensor:
        height, width, channels = output_shape
        factor = 2 ** len(self.hidden)
        if height % factor or width % factor:
            raise InputError(
                f"Networks conv and resnet with {len(self.hidden)} hidden layers need a height and width divisible by "
                f"{factor}. Received: {height}x{width}. Resize the images, or change the number of hidden layers."
            )
        small_map = (height // factor, width // factor, self.decoder_channels)
        outputs = layers.Reshape(small_map)(self.dense(math.prod(small_map), activation=self.activation)(z))
        for filters in reversed(self.hidden):
            convolution = Conv2DTranspose(filters, 3, strides=2, padding="same", activation=self.activation)
            outputs = self.block(convolution(outputs))
        return Conv2DTranspose(channels, 3, padding="same")(outputs)

    def block(self, inputs: Tensor) -> Tensor:
        """What follows on each strided convolution."""
        return inputs


class ResNet(Conv):
    """Like conv, with a residual block after each convolution but the last: activation(x + F(x)).

    F is two 3x3 convolutions, of which the second starts at 0, so that no normalisation is needed.

    Reference:
        He et al., Deep Residual Learning, 2016, equation 1; Zhang et al., Fixup Initialization, 2019, section 3.
    """

    def block(self, inputs: Tensor) -> Tensor:
        channels = inputs.shape[-1]
        change = layers.Conv2D(channels, 3, padding="same", activation=self.activation)(inputs)
        change = layers.Conv2D(channels, 3, padding="same", kernel_initializer="zeros")(change)
        return layers.Activation(self.activation)(layers.Add()([inputs, change]))


NETWORKS: dict[str, type[Network]] = {"linear": Linear, "mlp": MLP, "gated": Gated, "conv": Conv, "resnet": ResNet}


def get(identifier: Any, **options: Any) -> Network:
    """Returns a network by name, made with `options`, or the network itself.

    Raises:
        InputError: for an unknown name, or an option that the network does not have.
    """
    if isinstance(identifier, Network):
        return identifier
    made: Network = named.make("network", identifier, NETWORKS, options)
    return made


def build(
    network: Any,
    event_shape: tuple[int, ...],
    latent_dim: int,
    *,
    heads: dict[str, tuple[int, ...]] | None = None,
    code_activation: str = "linear",
    param_shape: tuple[int, ...] | None = None,
    condition: Any = None,
    **options: Any,
) -> tuple[keras.Model, keras.Model]:
    """Builds the encoder and the decoder of a named network.

    Args:
        network: Name of a network, a dict of the name and options, or a `Network`.
        event_shape: Shape of one example: (n,), (t, n) or (height, width, channels).
        latent_dim: Int, d.
        heads: Dict: name of each output of the encoder -> its shape (n,); None for z_mean and z_log_var, each (d,).
        code_activation: Name of the activation of the encoder's outputs.
        param_shape: Shape of the decoder's output; None for `event_shape`.
        condition: Name of a condition, or a condition, for networks that take one as well; None for none. Its features
            join the flattened values of x (linear, mlp, gated) or, as constant planes, the channels (conv, resnet),
            and z.
        **options: Options of a network given by name.

    Returns:
        Pair (encoder, decoder) of functional models: x [b, ...] -> a list of the heads, or the one there is;
        z [b, d] -> parameters [b, *param_shape], not squashed. With a condition they take lists [x, condition] and
        [z, condition].

    Raises:
        InputError: for an unknown name, a network that is not for such examples, or a size that it cannot produce.

    Example:

    >>> from keras_vae import networks
    >>> encoder, decoder = networks.build("mlp", (28, 28, 1), latent_dim=2, hidden=(16,))
    >>> encoder.output_names, decoder.output_shape
    (['z_mean', 'z_log_var'], (None, 28, 28, 1))
    """
    event_shape, made, condition = tuple(event_shape), get(network, **options), conditions.get(condition)
    if kind_of(event_shape) not in made.kinds:
        fitting = ", ".join(name for name, cls in NETWORKS.items() if kind_of(event_shape) in cls.kinds)
        chosen = next((name for name, cls in NETWORKS.items() if cls is type(made)), type(made).__name__)
        raise InputError(
            f"Network {chosen} is for {' or '.join(made.kinds)} data, and shape {event_shape} is that of a "
            f"{kind_of(event_shape)}. Expected one of: {fitting}."
        )
    x = keras.Input(event_shape, name=input_name(event_shape))
    inputs, features = _with_condition(x, condition)
    outputs = made.encode(x, features)
    heads = heads or {"z_mean": (latent_dim,), "z_log_var": (latent_dim,)}
    codes = [made.dense(size, activation=code_activation, name=head)(outputs) for head, (size,) in heads.items()]
    encoder = keras.Model(inputs, codes[0] if len(codes) == 1 else codes, name="encoder")
    z = keras.Input((latent_dim,), name="z")
    inputs, features = _with_condition(z, condition)
    params = made.decode(join(z, features), tuple(param_shape or event_shape))
    return encoder, keras.Model(inputs, params, name="decoder")


def build_latent(
    input_dim: int,
    latent_dim: int,
    *,
    hidden: Sizes = (),
    activation: Activation = "relu",
    initializer: Initializer = "fan_in_uniform",
) -> tuple[keras.Model, keras.Model]:
    """Builds the encoder and the decoder of an upper stochastic layer: both mlps, from z to Gaussians.

    Args:
        input_dim: Int, d1, the dimensions of the latent layer below.
        latent_dim: Int, d2.
        hidden: Ints, units of the encoder's hidden layers; the decoder mirrors them.
        activation: Name of the hidden layers' activation.
        initializer: As for `MLP`.

    Returns:
        Pair (encoder, decoder) of functional models: z1 [b, d1] -> [z_mean, z_log_var], each [b, d2];
        z2 [b, d2] -> [mean, log_var] of p(z1|z2), each [b, d1].

    Example:

    >>> from keras_vae import networks
    >>> encoder, decoder = networks.build_latent(4, 2, hidden=(8,))
    >>> encoder.output_names, decoder.output_names
    (['z_mean', 'z_log_var'], ['mean', 'log_var'])
    """
    mlp = MLP(hidden, activation, initializer)

    def network(inputs: Tensor, units: tuple[int, ...], heads: dict[str, int], name: str) -> keras.Model:
        outputs = inputs
        for each in units:
            outputs = mlp.layer(outputs, each)
        return keras.Model(inputs, [mlp.dense(size, name=head)(outputs) for head, size in heads.items()], name=name)

    below, z = keras.Input((input_dim,), name="z_below"), keras.Input((latent_dim,), name="z")
    encoder = network(below, hidden, {"z_mean": latent_dim, "z_log_var": latent_dim}, "upper_encoder")
    return encoder, network(z, hidden[::-1], {"mean": input_dim, "log_var": input_dim}, "upper_decoder")


def join(values: Tensor, features: Tensor | None) -> Tensor:
    """Vectors [b, n] with the features of a condition [b, k], if there is one, behind them."""
    return values if features is None else layers.Concatenate()([values, features])


def _with_condition(inputs: Tensor, condition: Any) -> tuple[Any, Any]:
    """(what a model takes, the features of the condition [b, k] or None)."""
    if condition is None:
        return inputs, None
    given = keras.Input(condition.event_shape, dtype=condition.event_dtype, name=condition.field)
    config = {**condition.get_config(), "name": f"{condition.field}_features"}
    return [inputs, given], type(condition).from_config(config)(given)


def _sizes(hidden: Sequence[int]) -> tuple[int, ...]:
    hidden = tuple(hidden)
    if not all(isinstance(size, int) and size >= 1 for size in hidden):
        raise InputError(f"Invalid value for argument `hidden`. Expected ints of at least 1. Received: hidden={hidden}")
    return hidden
