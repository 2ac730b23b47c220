"""What the latent explorer of a report needs: the networks, as `network.js` runs them, and images to begin with."""

import base64
import math

import numpy as np

from keras_vae.evaluation import batched

SLIDERS = 8  # latent dimensions that can be moved where there are more than two
EXAMPLES = 20  # test images to choose from
CODES = 2000  # points of a latent plane
DRAWS = 500  # draws from the prior
ACTIVATIONS = ("linear", "relu", "tanh", "sigmoid", "elu", "gelu", "silu", "softplus")  # those of network.js
# Likelihoods whose mean network.js computes.
MEANS = ("Bernoulli", "ContinuousBernoulli", "DiscretizedLogistic", "Gaussian")


class UnsupportedNetwork(ValueError):
    """A network that the page cannot run. The message says which part of it."""


def can_show(images):
    """Whether the page can show these examples: grey or RGB images of pixels in [0, 1]."""
    return images.ndim == 4 and images.shape[-1] in (1, 3) and images.min() >= 0 and images.max() <= 1


def explorer_data(model, images, labels, kl=None, binarization="none", class_names=None):
    """Everything that the explorer needs, for JSON. Arrays are base64 of little-endian float32 or of uint8.

    Args:
        model: A trained `VAE` or `Autoencoder`.
        images: Float32 [n, h, w, c], test images in [0, 1], binarised as the model was trained.
        labels: Int [n], or None where there are none and the model does not ask.
        kl: [d] nats of each latent dimension, or None: sliders go to the dimensions with the most, or to those in
            which the codes vary most.
        binarization: How the images were binarised: what is drawn in the page is treated alike.
        class_names: Names of the classes 0, 1, ..., or None.

    Returns:
        Dict: weights, encoder, decoder, shape, examples, the dimensions that can be moved and so on.

    Raises:
        UnsupportedNetwork: if a network has a layer that `network.js` does not know.
    """
    likelihood = type(model.likelihood).__name__
    if likelihood not in MEANS:
        raise UnsupportedNetwork(f"a {likelihood} likelihood")
    weights = _Weights()
    networks = {
        "encoder": _steps(model.encoder, model.encoder.outputs[0], weights),
        "decoder": _steps(model.decoder, model.decoder.outputs[0], weights),
    }
    given = [labels[:CODES]] if model.takes_labels else []
    codes = batched(model.code, images[:CODES], *given)
    order = np.argsort(-(np.var(codes, axis=0) if kl is None else np.asarray(kl)), kind="stable")
    is_vae = hasattr(model, "prior")
    reach = np.quantile(np.abs(codes), 0.995, axis=0)
    reach = np.maximum(reach, 3.0 if is_vae else 0.1)
    chosen = _one_of_each_class(labels, len(images))
    return {
        **networks,
        "weights": _base64(np.concatenate(weights.arrays), "<f4"),
        "mean": likelihood,
        "scale": model.likelihood.statistics().get("scale"),
        "shape": list(images.shape[1:]),
        "binary": binarization != "none",
        "latentDim": codes.shape[1],
        "dims": [0, 1] if codes.shape[1] == 2 else order[:SLIDERS].tolist(),
        "reach": [float(round(value, 1)) for value in reach],
        "draws": _base64(model.lowest(model.prior.sample(DRAWS, 0)), "<f4") if is_vae else None,
        "examples": _base64(np.round(255 * images[chosen]), "u1"),
        "classes": model.condition.num_classes if model.takes_labels else None,
        "names": None if class_names is None else list(map(str, class_names)),
        "labels": None if labels is None else [int(labels[index]) for index in chosen],
        "plane": _plane(codes, labels) if codes.shape[1] == 2 else None,
    }


class _Weights:
    """Arrays one after the other; `add` says where in them an array begins."""

    def __init__(self):
        self.arrays = []
        self.size = 0

    def add(self, array):
        start = self.size
        self.arrays.append(np.asarray(array, "float32").ravel())
        self.size += array.size
        return start


def _steps(network, output, weights):
    """The layers that lead from a network's input to one of its outputs, as steps for `network.js`.

    A step names its inputs by number: the network's inputs come first, an image or z and perhaps the label, and then
    what each step computes.
    """
    makers = {id(layer.output): layer for layer in network.layers if not isinstance(layer.output, list)}
    steps, numbers = [], {id(tensor): index for index, tensor in enumerate(network.inputs)}

    def number(tensor):
        if id(tensor) not in numbers:
            layer = makers[id(tensor)]
            kind = type(layer).__name__
            inputs = [number(given) for given in (layer.input if isinstance(layer.input, list) else [layer.input])]
            if kind not in STEPS and kind not in RESHAPES:
                raise UnsupportedNetwork(f"a {kind} layer")
            if kind in STEPS:
                steps.append({"inputs": inputs, **STEPS[kind](layer, weights)})
            numbers[id(tensor)] = len(network.inputs) + len(steps) - 1 if kind in STEPS else inputs[0]
        return numbers[id(tensor)]

    number(output)
    return steps


def _dense(layer, weights):
    if len(layer.input.shape) != 2:
        raise UnsupportedNetwork("a Dense layer over more than one axis")
    kernel = np.asarray(layer.kernel)  # [in, out]: a convolution of one pixel
    return _convolution(layer, kernel[None, None], (1, 1), (1, 1), (1, 1), weights)


def _conv(layer, weights):
    kernel = np.asarray(layer.kernel)  # [kh, kw, in, out]
    return _convolution(layer, kernel, layer.input.shape[1:3], layer.output.shape[1:3], layer.strides, weights)


def _conv_transpose(layer, weights):
    kernel = np.asarray(layer.kernel).swapaxes(2, 3)  # [kh, kw, out, in] -> [kh, kw, in, out]
    return _convolution(
        layer, kernel, layer.input.shape[1:3], layer.output.shape[1:3], layer.strides, weights, transposed=True
    )


def _convolution(layer, kernel, input_size, output_size, strides, weights, transposed=False):
    """A step: the smaller map's row y and the larger map's row `strides * y + ky - pad` meet in the kernel's row ky."""
    if any(getattr(layer, name, default) not in (default, (default, default)) for name, default in PLAIN.items()):
        raise UnsupportedNetwork(f"a {type(layer).__name__} layer with " + " or ".join(PLAIN))
    small, large = (input_size, output_size) if transposed else (output_size, input_size)
    pad = [0, 0]
    if getattr(layer, "padding", "valid") == "same":
        pad = [
            max((s - 1) * stride + k - n, 0) // 2
            for s, n, k, stride in zip(small, large, kernel.shape, strides, strict=False)
        ]
    bias = np.zeros(kernel.shape[3]) if layer.bias is None else np.asarray(layer.bias)
    return {
        "kind": "convolve",
        "from": list(input_size),
        "to": list(output_size),
        "kernel": list(kernel.shape),
        "strides": list(strides),
        "pad": pad,
        "transposed": transposed,
        "activation": _activation(layer),
        "weights": weights.add(kernel),
        "bias": weights.add(bias),
    }


def _concatenate(layer, weights):
    if layer.axis not in (-1, len(layer.output.shape) - 1):
        raise UnsupportedNetwork("a Concatenate layer over another axis than the last")
    channels = [tensor.shape[-1] for tensor in layer.input]
    return {"kind": "concatenate", "channels": channels, "activation": "linear"}


def _activation(layer):
    name = layer.activation.__name__
    if name not in ACTIVATIONS:
        raise UnsupportedNetwork(f"the activation {name}")
    return name


PLAIN = {"dilation_rate": 1, "groups": 1, "data_format": "channels_last", "output_padding": None}
STEPS = {
    "Dense": _dense,
    "Conv2D": _conv,
    "Conv2DTranspose": _conv_transpose,
    "Add": lambda layer, weights: {"kind": "add", "activation": "linear"},
    "Multiply": lambda layer, weights: {"kind": "multiply", "activation": "linear"},
    "Concatenate": _concatenate,
    "Label": lambda layer, weights: {"kind": "oneHot", "size": layer.num_classes, "activation": "linear"},
    "RepeatVector": lambda layer, weights: {"kind": "repeat", "times": layer.n, "activation": "linear"},
    "Activation": lambda layer, weights: {"kind": "add", "activation": _activation(layer)},  # of one map
}
RESHAPES = ("Flatten", "Reshape")  # no step: maps are stored as Keras flattens them


def _one_of_each_class(labels, count):
    """Positions of `EXAMPLES` images: the classes in turn, in order, where there are labels."""
    if labels is None:
        return list(range(min(EXAMPLES, count)))
    classes = np.unique(labels)
    each = math.ceil(EXAMPLES / len(classes))
    rounds = [np.flatnonzero(labels == name)[:each] for name in classes[:EXAMPLES]]
    return [int(found[turn]) for turn in range(each) for found in rounds if turn < len(found)][:EXAMPLES]


def _plane(codes, labels):
    """The points of a latent plane and their classes."""
    shown = labels is not None and len(np.unique(labels)) <= 10
    return {
        "points": _base64(codes, "<f4"),
        "labels": np.unique(labels[: len(codes)], return_inverse=True)[1].tolist() if shown else None,
    }


def _base64(array, dtype):
    return base64.b64encode(np.ascontiguousarray(array, dtype).tobytes()).decode()
