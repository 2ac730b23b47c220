"""A stand-in for TensorFlow Serving: its REST and gRPC interfaces, as its documents describe them, over a session.

It is no proof that the real server runs an export; it proves that the client's bytes are what the interfaces take.
"""

import base64
import concurrent.futures
import http.server
import json
import re
import threading

import numpy as np
import tensorflow as tf

from keras_vae.serving import verify

PATH = re.compile(r"/v1/models/(\w+)(?:/versions/(\d+)|/labels/(\w+))?:predict")


class StandIn:
    """Serves the models in `paths`, name -> folder, until closed."""

    def __init__(self, paths, version=1, labels=()):
        self.models = {name: verify.Model(path) for name, path in paths.items()}
        self.version, self.labels = version, set(labels)
        self.rest = http.server.ThreadingHTTPServer(("localhost", 0), self._handler())
        threading.Thread(target=self.rest.serve_forever, daemon=True).start()
        self.url = f"http://localhost:{self.rest.server_port}"

    def close(self):
        self.rest.shutdown()
        self.rest.server_close()

    def start_grpc(self):
        import grpc
        from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

        stand_in = self

        class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
            def Predict(self, request, context):
                spec = request.model_spec
                wanted = (spec.version.value if spec.HasField("version") else None, spec.version_label)
                if spec.name not in stand_in.models or not stand_in.has(*wanted):
                    context.abort(grpc.StatusCode.NOT_FOUND, "Servable not found for request")
                inputs = {name: tf.make_ndarray(tensor) for name, tensor in request.inputs.items()}
                try:
                    outputs = stand_in.models[spec.name].run(spec.signature_name, inputs)
                except tf.errors.InvalidArgumentError as error:
                    context.abort(grpc.StatusCode.INVALID_ARGUMENT, error.message)
                response = predict_pb2.PredictResponse()
                for name, value in outputs.items():
                    response.outputs[name].CopyFrom(tf.make_tensor_proto(value, shape=value.shape))
                return response

        server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Service(), server)
        self.address = f"localhost:{server.add_insecure_port('localhost:0')}"
        server.start()
        return server

    def has(self, version, label):
        return (version in (None, self.version)) and (not label or label in self.labels)

    def _handler(self):
        stand_in = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                try:
                    code, answer = 200, stand_in.predict(self.path, json.loads(body))
                except LookupError as error:
                    code, answer = 404, {"error": str(error)}
                except (tf.errors.InvalidArgumentError, ValueError) as error:
                    code, answer = 400, {"error": str(error)}
                data = json.dumps(answer).encode()
                self.send_response(code)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        return Handler

    def predict(self, path, document):
        """The REST interface of TensorFlow Serving: "instances" row by row or "inputs" column by column."""
        name, version, label = PATH.fullmatch(path).groups()
        if name not in self.models or not self.has(version and int(version), label):
            raise LookupError(f"Servable not found for request: {path}")
        signature = document.get("signature_name", "serving_default")
        infos = self.models[name].signatures[signature]
        if ("instances" in document) == ("inputs" in document):
            raise ValueError("one of instances and inputs is expected")
        if "instances" in document:
            rows = document["instances"]
            if len(infos.inputs) == 1 and not isinstance(rows[0], dict):  # a lone input may go without its name
                rows = [{next(iter(infos.inputs)): row} for row in rows]
            columns = {key: [row[key] for row in rows] for key in infos.inputs}
        else:
            columns = document["inputs"]
            if len(infos.inputs) == 1 and not isinstance(columns, dict):
                columns = {next(iter(infos.inputs)): columns}
        inputs = {key: self._decode(values, infos.inputs[key].dtype) for key, values in columns.items()}
        outputs = {key: self._encode(key, value) for key, value in self.models[name].run(signature, inputs).items()}
        lone = next(iter(outputs.values())) if len(outputs) == 1 else None
        if "inputs" in document:
            return {"outputs": outputs if lone is None else lone}
        if lone is not None:
            return {"predictions": lone}
        return {"predictions": [dict(zip(outputs, row, strict=True)) for row in zip(*outputs.values(), strict=True)]}

    @staticmethod
    def _decode(values, dtype):
        if dtype == tf.string.as_datatype_enum:
            return np.array([base64.b64decode(value["b64"]) for value in values], dtype=object)
        return np.array(values, tf.as_dtype(dtype).as_numpy_dtype)

    @staticmethod
    def _encode(name, value):
        if value.dtype == object:  # base64 for names that end in _bytes, text for others
            return [
                {"b64": base64.b64encode(item).decode()} if name.endswith("_bytes") else item.decode() for item in value
            ]
        return value.tolist()
