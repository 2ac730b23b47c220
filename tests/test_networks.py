"""Networks: what they compute, written again in numpy, and what they refuse."""

import keras
import numpy as np
import pytest

from keras_vae import networks

RNG = np.random.default_rng(0)
X = RNG.uniform(size=(4, 6, 4, 2)).astype("float32")
SETTINGS = {
    "linear": {},
    "mlp": {"hidden": (7, 5)},
    "gated": {"hidden": (7, 5)},
    "conv": {"hidden": (3,), "decoder_channels": 4},
    "resnet": {"hidden": (3,), "decoder_channels": 4},
}
every_network = pytest.mark.parametrize("name", networks.NETWORKS)


def build(name, **options):
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(1)
    encoder, decoder = networks.build(name, X.shape[1:], 3, **{**SETTINGS[name], **options})
    for weight in (*encoder.weights, *decoder.weights):  # biases too, which start at 0
        weight.assign(rng.normal(scale=0.3, size=weight.shape))
    return encoder, decoder


def dense(x, model, name):
    kernel, bias = (weight.numpy() for weight in model.get_layer(name).weights)
    return x @ kernel + bias


def test_mlp_is_what_numpy_computes():
    encoder, decoder = build("mlp", activation="tanh")
    features = X.reshape(4, -1)
    hidden = [layer.name for layer in encoder.layers if layer.name.startswith("dense")]
    for name in hidden:
        features = np.tanh(dense(features, encoder, name))
    z_mean, z_log_var = encoder(X)
    np.testing.assert_allclose(z_mean, dense(features, encoder, "z_mean"), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(z_log_var, dense(features, encoder, "z_log_var"), rtol=1e-4, atol=1e-5)
    *hidden, last = [layer.name for layer in decoder.layers if layer.name.startswith("dense")]
    features = z_mean.numpy()
    for name in hidden:
        features = np.tanh(dense(features, decoder, name))
    expected = dense(features, decoder, last).reshape(X.shape)
    np.testing.assert_allclose(decoder(z_mean), expected, rtol=1e-4, atol=1e-5)


def test_gated_is_what_numpy_computes():
    encoder, decoder = build("gated")

    def gates(x, model, names):
        for value, gate in zip(names[::2], names[1::2], strict=True):
            x = dense(x, model, value) / (1 + np.exp(-dense(x, model, gate)))
        return x

    features = gates(X.reshape(4, -1), encoder, [layer.name for layer in encoder.layers if "dense" in layer.name])
    z_mean, z_log_var = encoder(X)
    np.testing.assert_allclose(z_mean, dense(features, encoder, "z_mean"), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(z_log_var, dense(features, encoder, "z_log_var"), rtol=1e-4, atol=1e-5)
    *names, last = [layer.name for layer in decoder.layers if "dense" in layer.name]
    expected = dense(gates(z_mean.numpy(), decoder, names), decoder, last).reshape(X.shape)
    np.testing.assert_allclose(decoder(z_mean), expected, rtol=1e-4, atol=1e-5)


def convolved(x, kernel, bias):
    """3x3, stride 1, padding "same"."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = x.shape[1:3]
    taps = [(row, column) for row in range(3) for column in range(3)]
    return sum(padded[:, r : r + height, c : c + width] @ kernel[r, c] for r, c in taps) + bias


def test_residual_block_adds_two_convolutions_and_starts_as_the_identity():
    keras.utils.set_random_seed(0)
    image = keras.Input(X.shape[1:])
    block = keras.Model(image, networks.get("resnet").block(image))
    np.testing.assert_array_equal(block(X), X)  # which has no negative values
    for weight in block.weights:
        weight.assign(RNG.normal(scale=0.5, size=weight.shape))
    first, first_bias, second, second_bias = (weight.numpy() for weight in block.weights)
    change = convolved(np.maximum(convolved(X, first, first_bias), 0), second, second_bias)
    np.testing.assert_allclose(block(X), np.maximum(X + change, 0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(28, 28, 1), (28, 28, 3), (32, 32, 1), (32, 32, 3)])
def test_resnet_fits_grey_and_colour_of_the_usual_sizes(shape):
    encoder, decoder = networks.build("resnet", shape, 2, hidden=(4, 6), decoder_channels=5)
    assert decoder(encoder(np.zeros((1, *shape)))[0]).shape == (1, *shape)
    assert not any("normalization" in layer.name for layer in (*encoder.layers, *decoder.layers))
    plain = networks.build("conv", shape, 2, hidden=(4, 6), decoder_channels=5)[0]
    blocks = sum(2 * (9 * channels**2 + channels) for channels in (4, 6))
    assert encoder.count_params() - plain.count_params() == blocks


@pytest.mark.parametrize("name, units", [("mlp", [7, 5]), ("conv", [3])])
def test_decoder_mirrors_the_hidden_layers_of_the_encoder(name, units):
    encoder, decoder = build(name)
    widths = [
        layer.units if isinstance(layer, keras.layers.Dense) else layer.filters
        for layer in (*encoder.layers, *decoder.layers)
        if hasattr(layer, "units") or hasattr(layer, "filters")
    ]
    heads = [3, 3]
    first, last = ([], [48]) if name == "mlp" else ([3 * 2 * 4], [2])
    assert widths == [*units, *heads, *first, *units[::-1], *last]


def test_linear_is_linear():
    encoder, decoder = build("linear")
    other = RNG.uniform(size=X.shape).astype("float32")
    for network, a, b in ((encoder, X, other), (decoder, X[:, 0, :3, 0], other[:, 0, :3, 0])):
        outputs = [np.asarray(network(x)) for x in (a, b, a + b, 0 * a)]
        np.testing.assert_allclose(outputs[2] + outputs[3], outputs[0] + outputs[1], atol=1e-4)


def test_an_option_of_another_network_is_refused_and_not_ignored():
    with pytest.raises(ValueError, match="network linear.*hidden"):
        build("linear", hidden=(9,))
    encoder, decoder = build("linear")
    assert encoder.count_params() == 2 * (48 * 3 + 3)
    assert decoder.count_params() == 3 * 48 + 48


@pytest.mark.parametrize("name", ["linear", "mlp", "gated"])
@pytest.mark.parametrize("shape", [(5,), (6, 2), (3, 4, 5)])
def test_dense_networks_take_examples_of_any_shape(name, shape):
    encoder, decoder = networks.build(name, shape, 2)
    assert encoder.input.name == ("image" if len(shape) == 3 else "x")
    assert encoder.input_shape == decoder.output_shape == (None, *shape)


def test_a_network_for_other_data_is_refused_with_those_that_fit():
    with pytest.raises(ValueError, match=r"conv is for image data.*vector.*linear, mlp, gated"):
        networks.build("conv", (5,), 2)
    with pytest.raises(ValueError, match="event_shape"):
        networks.build("mlp", (1, 2, 3, 4), 2)


@every_network
def test_decoder_outputs_are_not_squashed(name):
    _, decoder = build(name)
    params = np.asarray(decoder(100 * RNG.normal(size=(20, 3)).astype("float32")))
    assert params.min() < -1 and params.max() > 2


@every_network
def test_shapes_names_and_several_parameters_a_channel(name):
    encoder, decoder = build(name, param_shape=(6, 4, 6))
    assert encoder.output_names == ["z_mean", "z_log_var"] and encoder.input_shape == (None, 6, 4, 2)
    assert decoder(encoder(X)[0]).shape == (4, 6, 4, 6)
    encoder, _ = build(name, heads={"z": (3,)}, code_activation="relu")
    code = np.asarray(encoder(X))
    assert code.shape == (4, 3) and code.min() == 0 and code.max() > 0


@pytest.mark.parametrize("padding, flat", [("same", 3 * 2 * 5), ("valid", 2 * 1 * 5)])
def test_conv_halves_the_image_with_either_padding(padding, flat):
    encoder, _ = build("conv", hidden=(5,), padding=padding)
    assert encoder.get_layer("z_mean").kernel.shape[0] == flat
    encoder, _ = build("conv", hidden=(5,), padding=padding, dense=11)
    assert encoder.get_layer("z_mean").kernel.shape[0] == 11


@pytest.mark.parametrize("name", ["conv", "resnet"])
@pytest.mark.parametrize("shape", [(27, 28, 1), (28, 30, 1)])
def test_conv_refuses_a_size_that_it_cannot_produce(shape, name):
    with pytest.raises(ValueError, match=f"divisible by 4.*{shape[0]}x{shape[1]}"):
        networks.build(name, shape, 2, hidden=(4, 4))


def test_unknown_network_is_refused_with_the_choices():
    with pytest.raises(ValueError, match=r"linear, mlp, gated, conv, resnet.*'resnet-50'"):
        networks.build("resnet-50", (8, 8, 1), 2)


@pytest.mark.parametrize("initializer", ["fan_in_uniform", "glorot_uniform"])
def test_weights_follow_the_global_seed_and_differ_between_layers(initializer):
    def kernels(seed):
        keras.utils.set_random_seed(seed)
        encoder, _ = networks.build("mlp", (4, 4, 1), 16, hidden=(16, 16), initializer=initializer)
        return [np.asarray(weight) for weight in encoder.weights if weight.name == "kernel"]

    first, again, other = kernels(1), kernels(1), kernels(2)
    assert len(first) == 4  # all of 16 x 16
    for index, kernel in enumerate(first):
        np.testing.assert_array_equal(kernel, again[index])
        assert not np.allclose(kernel, other[index])
        assert all(not np.allclose(kernel, later) for later in first[index + 1 :])
    limit = {"fan_in_uniform": 1 / 4, "glorot_uniform": np.sqrt(6 / 32)}[initializer]
    assert 0.9 * limit < max(np.abs(kernel).max() for kernel in first) <= limit
