"""ONNX and LiteRT: both halves of a model without randomness, compared with Keras as they are written."""

import importlib.util
import os
import tempfile

import numpy as np
import tensorflow as tf

from keras_vae.config import InputError
from keras_vae.serving import contract as contracts
from keras_vae.serving import signatures

ONNX_OPSET = 18
TOLERANCE = 1e-4  # relative for values above 1


def check_packages(format):
    """Raises InputError, with the command that helps, if a package that a format needs is not installed."""
    packages = FORMATS[format][0]
    missing = [package for module, package in packages.items() if importlib.util.find_spec(module) is None]
    if missing:
        command = f"pip install {' '.join(packages.values())}"
        raise InputError(f"Format {format} needs {' and '.join(missing)}. Install with: {command}")


def write(format, model, folder):
    """Writes `encoder.<suffix>` and `decoder.<suffix>` into `folder`, with the inputs and outputs of signature `serve`.

    There are no input checks in these files: they are for programs that run the model in their own process.

    Raises:
        InputError: if a file does not give what Keras gives.
    """
    _, suffix, convert, load = FORMATS[format]
    fields = signatures.build(model)
    halves = {"encoder": lambda *inputs: signatures.encode(model, *inputs), "decoder": model.decode}
    for name, function in halves.items():
        signature = fields[name]["serve"]
        output_names = list(signature.outputs)
        computed = _named(function, list(signature.inputs), output_names)
        path = os.path.join(folder, f"{name}.{suffix}")
        convert(computed, [field.spec(key) for key, field in signature.inputs.items()], path)
        run = load(path)
        rows = {key: contracts.golden_input(model, key, field).numpy() for key, field in signature.inputs.items()}
        for batch in (rows, {key: value[:1] for key, value in rows.items()}):
            expected = computed(**{key: tf.constant(value) for key, value in batch.items()})
            answer = run(batch)
            for output in output_names:
                error = np.max(np.abs(answer[output] - expected[output]) / np.maximum(1, np.abs(expected[output])))
                if not error <= TOLERANCE:
                    raise InputError(
                        f"{name}.{suffix} differs from Keras by {error:.3g} in {output}. Nothing was written."
                    )


def _named(function, input_names, output_names):
    """A tf.function from tensors of those names to a dict of tensors of those names."""

    def named(**inputs):
        result = function(*(inputs[name] for name in input_names))
        return result if isinstance(result, dict) else {output_names[0]: result}

    return tf.function(named, autograph=False)


def _convert_to_onnx(function, specs, path):
    import logging

    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    import tf2onnx

    names = [spec.name for spec in specs]
    positional = tf.function(lambda *tensors: function(**dict(zip(names, tensors, strict=True))), autograph=False)
    tf2onnx.convert.from_function(positional, specs, opset=ONNX_OPSET, output_path=path)


def _load_onnx(path):
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda rows: dict(zip(names, session.run(None, rows), strict=True))


def _convert_to_litert(function, specs, path):
    module = tf.Module()
    concrete = function.get_concrete_function(**{spec.name: spec for spec in specs})
    module.weights = list(concrete.graph.variables)
    with tempfile.TemporaryDirectory() as folder:  # the way through a SavedModel keeps the names
        tf.saved_model.save(module, folder, {"serve": concrete})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=["serve"])
        with open(path, "wb") as file:
            file.write(converter.convert())


def _load_litert(path):
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_path=path).get_signature_runner("serve")
    return lambda rows: runner(**rows)


# name -> (module: package of each thing needed, suffix of the files, writer, loader)
FORMATS = {
    "onnx": ({"tf2onnx": "tf2onnx", "onnxruntime": "onnxruntime"}, "onnx", _convert_to_onnx, _load_onnx),
    "litert": ({"ai_edge_litert": "ai-edge-litert"}, "tflite", _convert_to_litert, _load_litert),
}
