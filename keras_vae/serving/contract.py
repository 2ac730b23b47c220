"""The contract of an export, for people and programs that call it: contract.json, and the server's configuration."""

import base64
import json
import math

import numpy as np
import tensorflow as tf

import keras_vae
from keras_vae.serving import limits

GOLDEN_ROWS = 2
GOLDEN_SEEDS = (7, 2**40 + 1)

MODELS_CONFIG_HEADER = """\
# tensorflow_model_server --model_config_file. Paths are those in the server's container.
# The two newest versions stay loaded, so that a label can move back to the older one.
"""

MODEL_CONFIG = """\
  config {{
    name: "{name}"
    base_path: "/models/{name}"
    model_platform: "tensorflow"
    model_version_policy {{ latest {{ num_versions: 2 }} }}
    # For a pinned version or labels: model_version_policy {{ specific {{ versions: 1 versions: 2 }} }} and
    # version_labels {{ key: "stable" value: 1 }} version_labels {{ key: "canary" value: 2 }}
  }}
"""

BATCHING_CONFIG = """\
# tensorflow_model_server --enable_batching --batching_parameters_file
# no more rows than every signature allows (max_rows in contract.json)
max_batch_size {{ value: {sizes[0]} }}
# how long a request waits for others, in microseconds
batch_timeout_micros {{ value: 500 }}
# set it to the number of cores
num_batch_threads {{ value: 4 }}
max_enqueued_batches {{ value: 100 }}
# batches are padded to one of these sizes
{allowed}"""

MONITORING_CONFIG = """\
# tensorflow_model_server --monitoring_config_file, read at the REST port
prometheus_config {
  enable: true
  path: "/monitoring/prometheus/metrics"
}
"""


def describe(model, served, version, weights, warmup):
    """The contract of an export.

    Args:
        model: The Keras model.
        served: What `signatures.build` returns for it.
        version: Int.
        weights: Dict, name of the served model -> the variables that it stores.
        warmup: Bool, whether there are warmup requests.

    Returns:
        Dict, the content of contract.json.
    """
    return {
        "contract": 1,
        "version": version,
        "model": type(model).__name__,
        "request_bytes": limits.REQUEST_BYTES,
        "event_shape": list(model.event_shape),
        "latent_dim": model.latent_dim,
        "written_with": {"keras_vae": keras_vae.__version__, "tensorflow": tf.__version__},
        "tolerance": "golden outputs hold to 1e-4, relative for values above 1; 8-bit pixels to one step",
        "models": {
            name: {
                "parameters": sum(math.prod(weight.shape) for weight in weights[name]),
                "parameter_bytes": sum(math.prod(weight.shape) * weight.dtype.size for weight in weights[name]),
                "warmup": warmup,
                "serving_default": next(iter(entries)),
                "signatures": {key: _describe_signature(model, entry) for key, entry in entries.items()},
            }
            for name, entries in served.items()
        },
    }


def _describe_signature(model, signature):
    request = {name: golden_input(model, name, field) for name, field in signature.inputs.items()}
    answer = {name: value.numpy() for name, value in signature.function(**request).items()}
    return {
        "description": signature.description,
        "max_rows": signature.max_rows,
        "inputs": {name: _describe_field(field) for name, field in signature.inputs.items()},
        "outputs": {name: _describe_field(field) for name, field in signature.outputs.items()},
        "golden": {
            "inputs": {name: to_json(value.numpy()) for name, value in request.items()},
            "outputs": {name: to_json(answer[name]) for name in signature.outputs},
        },
    }


def _describe_field(field):
    described = {"dtype": field.dtype, "shape": [None, *field.shape], "unit": field.unit}
    if field.range is not None:
        described["range"] = list(field.range)
    if field.max_bytes is not None:
        described["max_bytes"] = field.max_bytes
    return {**described, "description": field.description}


def golden_input(model, name, field):
    """A batch of GOLDEN_ROWS rows for an input, the same at every export, as a tensor."""
    generator = np.random.default_rng(0)
    shape = (GOLDEN_ROWS, *(model.event_shape if name == "image_bytes" else field.shape))
    if name == "seed":
        return tf.constant(GOLDEN_SEEDS, tf.int64)
    if field.dtype == "int64":
        return tf.constant(field.range, tf.int64)
    if name != "image_bytes" and field.dtype == "float32" and field.range[1] > 1:
        return tf.constant(np.round(generator.normal(size=shape), 3), tf.float32)
    # mostly black with a few shades, as short in JSON as numbers can be
    shades = generator.choice([0.0, 0.25, 0.5, 0.75, 1.0], p=[0.6, 0.1, 0.1, 0.1, 0.1], size=shape)
    pixels = np.round(shades * 255).astype(np.uint8)
    if name == "image_bytes":
        return tf.io.encode_png(pixels)
    return tf.constant(pixels if field.dtype == "uint8" else shades, field.dtype)


def to_json(array):
    """A batch as nested lists: floats of five significant digits, bytes as {"b64": ...} like the server's REST."""
    if array.dtype == object:
        return [{"b64": base64.b64encode(value).decode()} for value in array]
    if array.dtype.kind == "f":
        digits = [float(f"{value:.5g}") for value in array.reshape(-1).tolist()]
        return np.array(digits).reshape(array.shape).tolist()
    return array.tolist()


def dumps(contract):
    """JSON with one line for each golden vector."""
    vectors = []

    def shorten(value):
        if isinstance(value, dict):
            return {key: shorten(item) for key, item in value.items()}
        if isinstance(value, list):
            vectors.append(json.dumps(value, separators=(",", ":")))
            return f"@{len(vectors) - 1}@"
        return value

    text = json.dumps(shorten(contract), indent=1)
    for index, vector in enumerate(vectors):
        text = text.replace(f'"@{index}@"', vector, 1)
    return text + "\n"


def server_files(served):
    """The server's configuration files: name -> text. `served` as for `describe`."""
    models = "".join(MODEL_CONFIG.format(name=name) for name in served)
    most = min(256, *(entry.max_rows for entries in served.values() for entry in entries.values()))
    sizes = [most, *(size for size in (128, 32, 8, 1) if size < most)]
    allowed = "".join(f"allowed_batch_sizes: {size}\n" for size in reversed(sizes))
    return {
        "models.config": f"{MODELS_CONFIG_HEADER}model_config_list {{\n{models}}}\n",
        "batching.config": BATCHING_CONFIG.format(sizes=sizes, allowed=allowed),
        "monitoring.config": MONITORING_CONFIG,
    }
