"""Warmup requests, which TensorFlow Serving replays before it lets a version answer."""

import importlib.util
import os

import tensorflow as tf

from keras_vae.serving import contract as contracts

# TensorFlow goes on optimising at the second run of a graph, and the third is as fast as any.
REPEATS = 2

FILE = os.path.join("assets.extra", "tf_serving_warmup_requests")
MISSING = (
    "No warmup requests were written, so the first request after a load will be slow: tensorflow-serving-api is not "
    "installed. Install it with: pip install 'keras-vae[serving]'"
)


def available():
    """Whether tensorflow-serving-api is installed."""
    return importlib.util.find_spec("tensorflow_serving") is not None


def write(path, name, model, served):
    """Writes REPEATS requests of one row for each signature of a served model.

    Args:
        path: Folder of the version.
        name: Name of the served model.
        model: The Keras model.
        served: Dict, name of the signature -> `signatures.Signature`.
    """
    from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

    with tf.io.TFRecordWriter(os.path.join(path, FILE)) as writer:
        for signature_name, signature in {"serving_default": next(iter(served.values())), **served}.items():
            request = predict_pb2.PredictRequest()
            request.model_spec.name = name
            request.model_spec.signature_name = signature_name
            for field_name, field in signature.inputs.items():
                row = contracts.golden_input(model, field_name, field)[:1]
                request.inputs[field_name].CopyFrom(tf.make_tensor_proto(row))
            log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=request))
            for _ in range(REPEATS):
                writer.write(log.SerializeToString())
