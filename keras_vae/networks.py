"""Networks: functional builders of an encoder and a decoder.

Each builder is a pair of functions in `NETWORKS`: the encoder's trunk, image -> features, and the decoder's,
z -> parameters. `build` adds what all have in common. A new network is one pair and one row of the table.
"""

import math

import keras
from keras import layers

from keras_vae.layers import Conv2DTranspose, OneHot


def build(
    network,
    image_shape,
    latent_dim,
    *,
    hidden=(),
    activation="relu",
    dense=0,
    decoder_channels=64,
    padding="same",
    initializer="fan_in_uniform",
    heads=None,
    code_activation="linear",
    params_per_channel=1,
    num_classes=0,
):
    """Builds the encoder and the decoder of a named network.

    Args:
        network: Name of the network, a key of `NETWORKS`.
        image_shape: Triple (height, width, channels).
        latent_dim: Int, d.
        hidden: Ints: units (mlp, gated) or channels (conv, resnet) of the encoder's hidden layers; the decoder mirrors
            them.
        activation: Name of the hidden layers' activation; the gated network has its own.
        dense: Int, conv and resnet only: units of a dense layer before the heads; 0 for none.
        decoder_channels: Int, conv and resnet only: channels of the decoder's first feature map.
        padding: Conv and resnet only: padding of the encoder's strided convolutions, "same" or "valid".
        initializer: Weights of dense layers at the start, "fan_in_uniform" or "glorot_uniform".
        heads: Dict: name of each output of the encoder -> its shape (n,); None for z_mean and z_log_var, each (d,).
        code_activation: Name of the activation of the encoder's outputs.
        params_per_channel: Int, numbers that the decoder emits for each channel of each pixel.
        num_classes: Int, K, for networks that take a label as well; 0 for none. As a one-hot vector the label joins the
            flattened pixels (linear, mlp, gated) or, as K constant planes, the channels (conv, resnet), and z.

    Returns:
        Pair (encoder, decoder) of functional models: image [b, h, w, c] -> a list of the heads, or the one there is;
        z [b, d] -> parameters [b, h, w, c * params_per_channel], not squashed. With `num_classes` they take lists
        [image, label] and [z, label], the labels being int64 [b].

    Raises:
        ValueError: for an unknown name, or an image size that the network cannot produce.

    Example:

    >>> from keras_vae import networks
    >>> encoder, decoder = networks.build("mlp", (28, 28, 1), latent_dim=2, hidden=(16,))
    >>> encoder.output_names, decoder.output_shape
    (['z_mean', 'z_log_var'], (None, 28, 28, 1))
    """
    if network not in NETWORKS:
        raise ValueError(f"Unknown network. Expected one of: {', '.join(NETWORKS)}. Received: network={network!r}")
    height, width, channels = image_shape
    output_shape = (height, width, channels * params_per_channel)
    encode, decode = NETWORKS[network]

    def dense_layer(units, **options):  # each with an initializer of its own, which draws its seed when it is made
        return layers.Dense(units, kernel_initializer=INITIALIZERS[initializer](), **options)

    image = keras.Input(image_shape, name="image")
    image_inputs, label = _with_label(image, num_classes)
    features = encode(image, label, dense_layer, hidden=hidden, activation=activation, dense=dense, padding=padding)
    heads = heads or {"z_mean": (latent_dim,), "z_log_var": (latent_dim,)}
    codes = [dense_layer(size, activation=code_activation, name=head)(features) for head, (size,) in heads.items()]
    z = keras.Input((latent_dim,), name="z")
    z_inputs, label = _with_label(z, num_classes)
    params = decode(
        _joined(z, label),
        dense_layer,
        output_shape,
        hidden=hidden,
        activation=activation,
        decoder_channels=decoder_channels,
    )
    encoder = keras.Model(image_inputs, codes[0] if len(codes) == 1 else codes, name="encoder")
    return encoder, keras.Model(z_inputs, params, name="decoder")


def _with_label(inputs, num_classes):
    """(what a model takes, the one-hot label [b, K] or None)."""
    if not num_classes:
        return inputs, None
    label = keras.Input((), dtype="int64", name="label")
    return [inputs, label], OneHot(num_classes)(label)


def _joined(features, label):
    """Vectors [b, n] with the one-hot label [b, K], if there is one, behind them."""
    return features if label is None else layers.Concatenate()([features, label])


def build_latent(input_dim, latent_dim, *, hidden=(), activation="relu", initializer="fan_in_uniform"):
    """Builds the encoder and the decoder of an upper stochastic layer: both mlps, from z to Gaussians.

    Args:
        input_dim: Int, d1, the dimensions of the latent layer below.
        latent_dim: Int, d2.
        hidden: Ints, units of the encoder's hidden layers; the decoder mirrors them.
        activation: Name of the hidden layers' activation.
        initializer: As for `build`.

    Returns:
        Pair (encoder, decoder) of functional models: z1 [b, d1] -> [z_mean, z_log_var], each [b, d2];
        z2 [b, d2] -> [mean, log_var] of p(z1|z2), each [b, d1].

    Example:

    >>> from keras_vae import networks
    >>> encoder, decoder = networks.build_latent(4, 2, hidden=(8,))
    >>> encoder.output_names, decoder.output_names
    (['z_mean', 'z_log_var'], ['mean', 'log_var'])
    """

    def gaussian_network(inputs, units, output_dim, heads, name):
        features = inputs
        for each in units:
            features = layers.Dense(each, activation=activation, kernel_initializer=INITIALIZERS[initializer]())(
                features
            )
        outputs = [
            layers.Dense(output_dim, kernel_initializer=INITIALIZERS[initializer](), name=head)(features)
            for head in heads
        ]
        return keras.Model(inputs, outputs, name=name)

    below, z = keras.Input((input_dim,), name="z_below"), keras.Input((latent_dim,), name="z")
    encoder = gaussian_network(below, hidden, latent_dim, ("z_mean", "z_log_var"), "upper_encoder")
    return encoder, gaussian_network(z, hidden[::-1], input_dim, ("mean", "log_var"), "upper_decoder")


def encode_mlp(image, label, dense_layer, *, hidden, activation, **_):
    """784-h-...: dense layers over flattened pixels. With no hidden layers this is the linear encoder."""
    features = _joined(layers.Flatten()(image), label)
    for units in hidden:
        features = dense_layer(units, activation=activation)(features)
    return features


def decode_mlp(z, dense_layer, output_shape, *, hidden, activation, **_):
    """The mirror image of `encode_mlp`."""
    features = z
    for units in reversed(hidden):
        features = dense_layer(units, activation=activation)(features)
    return layers.Reshape(output_shape)(dense_layer(math.prod(output_shape))(features))


def encode_gated(image, label, dense_layer, *, hidden, **_):
    """Like `encode_mlp`, of gated layers."""
    features = _joined(layers.Flatten()(image), label)
    for units in hidden:
        features = gated_layer(features, dense_layer, units)
    return features


def decode_gated(z, dense_layer, output_shape, *, hidden, **_):
    """The mirror image of `encode_gated`."""
    features = z
    for units in reversed(hidden):
        features = gated_layer(features, dense_layer, units)
    return layers.Reshape(output_shape)(dense_layer(math.prod(output_shape))(features))


def gated_layer(features, dense_layer, units):
    """(W x + b) * sigmoid(V x + c).

    Reference:
        Tomczak and Welling, VAE with a VampPrior, 2018, section 5.
    """
    return layers.Multiply()([dense_layer(units)(features), dense_layer(units, activation="sigmoid")(features)])


def encode_conv(image, label, dense_layer, *, hidden, activation, dense, padding, residual=False):
    """3x3 convolutions of stride 2, one for each entry of `hidden`."""
    features = image
    if label is not None:
        height, width, _ = image.shape[1:]
        planes = layers.Reshape((height, width, label.shape[-1]))(layers.RepeatVector(height * width)(label))
        features = layers.Concatenate()([image, planes])
    for channels in hidden:
        features = layers.Conv2D(channels, 3, strides=2, padding=padding, activation=activation)(features)
        if residual:
            features = residual_block(features, activation)
    features = layers.Flatten()(features)
    return dense_layer(dense, activation=activation)(features) if dense else features


def decode_conv(z, dense_layer, output_shape, *, hidden, activation, decoder_channels, residual=False):
    """A dense layer to a small feature map, then 3x3 transposed convolutions of stride 2."""
    height, width, channels = output_shape
    factor = 2 ** len(hidden)
    if height % factor or width % factor:
        raise ValueError(
            f"Networks conv and resnet with {len(hidden)} hidden layers need a height and width divisible by {factor}. "
            f"Received: {height}x{width}. Resize the images, or change the number of hidden layers."
        )
    small_map = (height // factor, width // factor, decoder_channels)
    features = dense_layer(math.prod(small_map), activation=activation)(z)
    features = layers.Reshape(small_map)(features)
    for filters in reversed(hidden):
        features = Conv2DTranspose(filters, 3, strides=2, padding="same", activation=activation)(features)
        if residual:
            features = residual_block(features, activation)
    return Conv2DTranspose(channels, 3, padding="same")(features)


def encode_resnet(image, label, dense_layer, **options):
    """`encode_conv` with a residual block after each convolution."""
    return encode_conv(image, label, dense_layer, residual=True, **options)


def decode_resnet(z, dense_layer, output_shape, **options):
    """`decode_conv` with a residual block after each transposed convolution but the last."""
    return decode_conv(z, dense_layer, output_shape, residual=True, **options)


def residual_block(features, activation):
    """activation(x + F(x)), F two 3x3 convolutions of which the second starts at 0, so that no normalisation is needed.

    Reference:
        He et al., Deep Residual Learning, 2016, equation 1; Zhang et al., Fixup Initialization, 2019, section 3.
    """
    channels = features.shape[-1]
    change = layers.Conv2D(channels, 3, padding="same", activation=activation)(features)
    change = layers.Conv2D(channels, 3, padding="same", kernel_initializer="zeros")(change)
    return layers.Activation(activation)(layers.Add()([features, change]))


def encode_linear(image, label, dense_layer, **_):
    """No hidden layer."""
    return encode_mlp(image, label, dense_layer, hidden=(), activation=None)


def decode_linear(z, dense_layer, output_shape, **_):
    """No hidden layer."""
    return decode_mlp(z, dense_layer, output_shape, hidden=(), activation=None)


# The first is uniform within 1 / sqrt(inputs); docs/architecture.md says what each brings.
INITIALIZERS = {
    "fan_in_uniform": lambda: keras.initializers.VarianceScaling(1 / 3, mode="fan_in", distribution="uniform"),
    "glorot_uniform": keras.initializers.GlorotUniform,
}

NETWORKS = {
    "linear": (encode_linear, decode_linear),
    "mlp": (encode_mlp, decode_mlp),
    "gated": (encode_gated, decode_gated),
    "conv": (encode_conv, decode_conv),
    "resnet": (encode_resnet, decode_resnet),
}
