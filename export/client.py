"""Talks to a TensorFlow Serving server that runs an export, over REST or gRPC.

    python export/client.py encode digit.png
    python export/client.py decode 0.1 -1.3 --out image.png
    python export/client.py generate 7 8 9 --out image.png --grpc
    python export/client.py --label 3 generate 7 8 9        (a conditional model: three images of class 3)

REST needs numpy alone; gRPC needs tensorflow-serving-api as well. Requests are compared with contract.json before they
are sent: when a server batches, one malformed request fails everybody's whose rows it was merged with.
"""

import argparse
import base64
import json
import pathlib
import sys
import urllib.error
import urllib.request

import numpy as np


class ServingError(Exception):
    """The server could not be reached, or refused the request."""


class Client:
    """What both protocols have in common. `contract` is the path of contract.json, or its content."""

    def __init__(self, contract):
        if not isinstance(contract, dict):
            contract = json.loads(pathlib.Path(contract).read_text())
        self.contract = contract

    # A conditional model wants `label=[...]` as well, the class of each row, in all of these.

    def encode_png(self, *files, **label):
        """PNG or JPEG files, as bytes -> dict of arrays [n, d]: z_mean and z_log_var, or z of an autoencoder."""
        return self.predict("encoder", "encode_png", image_bytes=list(files), **label)

    def decode(self, z, **label):
        """z [n, d] -> images float32 [n, h, w, c] in [0, 1]."""
        return self.predict("decoder", "serve", z=z, **label)["image"]

    def decode_png(self, z, **label):
        """z [n, d] -> PNG files, as bytes [n]."""
        return self.predict("decoder", "decode_png", z=z, **label)["image_bytes"]

    def generate(self, seeds, **label):
        """Seeds [n] -> dict of arrays: z [n, d] and image [n, h, w, c]. The same seed gives the same image."""
        return self.predict("decoder", "generate", seed=seeds, **label)

    def predict(self, model, signature, *, version=None, version_label=None, **inputs):
        """Calls a signature with a batch of rows.

        Args:
            model, signature: Names, as in contract.json.
            version: Int, or None for the newest that the server has.
            version_label: Label of a version, instead of its number.
            **inputs: Arrays, or what becomes one.

        Returns:
            Dict of arrays.

        Raises:
            ValueError: if the contract does not allow the request; nothing was sent.
            ServingError: if the server could not be reached, or refused the request.
        """
        entry = self._entry(model, signature)
        arrays = check_inputs(entry["inputs"], inputs, entry["max_rows"])
        answer = self._send(model, signature, version, version_label, arrays, entry)
        missing = set(entry["outputs"]) - set(answer)
        if missing:
            raise ServingError(f"The answer of {model}/{signature} has no {', '.join(sorted(missing))}.")
        return answer

    def _entry(self, model, signature):
        models = self.contract["models"]
        if model not in models:
            raise ValueError(f"Unknown model {model!r}. Expected one of: {', '.join(models)}.")
        signatures = models[model]["signatures"]
        if signature not in signatures:
            raise ValueError(f"Unknown signature {signature!r} of {model}. Expected one of: {', '.join(signatures)}.")
        return signatures[signature]


class RestClient(Client):
    """A client of the REST interface, for example at http://localhost:8501.

    Args:
        contract: Path of contract.json, or its content.
        url: Address of the server.
        rows: Whether to send and receive a batch row by row ("instances") or column by column ("inputs").
        timeout: Seconds.
    """

    def __init__(self, contract, url="http://localhost:8501", rows=False, timeout=10):
        super().__init__(contract)
        self.url, self.rows, self.timeout = url.rstrip("/"), rows, timeout

    def _send(self, model, signature, version, version_label, arrays, entry):
        document = rest_document(signature, arrays, self.rows)
        place = f"/versions/{version}" if version is not None else ""
        place = f"/labels/{version_label}" if version_label is not None else place
        request = urllib.request.Request(
            f"{self.url}/v1/models/{model}{place}:predict",
            json.dumps(document).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as response:
                return from_rest_document(json.load(response), entry["outputs"])
        except urllib.error.HTTPError as error:
            reason = error.read().decode(errors="replace")
            raise ServingError(f"{model}/{signature}: status {error.code}: {reason}") from None
        except (urllib.error.URLError, TimeoutError) as error:
            raise ServingError(f"No answer from {self.url}: {error}") from None


class GrpcClient(Client):
    """A client of the gRPC interface, for example at localhost:8500. Arguments like those of `RestClient`."""

    def __init__(self, contract, address="localhost:8500", timeout=10):
        super().__init__(contract)
        import grpc
        from tensorflow_serving.apis import prediction_service_pb2_grpc

        options = [("grpc.max_receive_message_length", 2**28), ("grpc.max_send_message_length", 2**28)]
        self.channel = grpc.insecure_channel(address, options)
        self.stub, self.timeout = prediction_service_pb2_grpc.PredictionServiceStub(self.channel), timeout

    def _send(self, model, signature, version, version_label, arrays, entry):
        import grpc
        import tensorflow as tf

        request = grpc_request(model, signature, arrays, version, version_label)
        try:
            answer = self.stub.Predict(request, timeout=self.timeout)
        except grpc.RpcError as error:
            raise ServingError(f"{model}/{signature}: {error.code().name}: {error.details()}") from None
        return {name: tf.make_ndarray(tensor) for name, tensor in answer.outputs.items()}


# -- requests and answers ------------------------------------------------------------------------------------------


def check_inputs(fields, inputs, max_rows):
    """Compares inputs with the contract. Returns them as arrays, bytes as an array of objects.

    Raises:
        ValueError: for a missing or an unknown input, a wrong shape or dtype, an empty batch, more than `max_rows`
            rows, batches of different sizes, or values that are out of range.
    """
    if set(inputs) != set(fields):
        raise ValueError(f"Expected the inputs {', '.join(fields)}. Received: {', '.join(inputs) or 'none'}.")
    arrays = {}
    for name, field in fields.items():
        array = np.asarray(inputs[name], dtype=object if field["dtype"] == "string" else None)
        wanted = field["shape"][1:]
        if array.ndim != 1 + len(wanted) or list(array.shape[1:]) != wanted or not len(array):
            raise ValueError(f"{name} must have the shape (n, {', '.join(map(str, wanted))}) with n at least 1. "
                             f"Received: {array.shape}.")  # fmt: skip
        if len(array) > max_rows:
            raise ValueError(f"{name} must have at most {max_rows} rows. Received: {len(array)}.")
        if field["dtype"] == "string":
            if not all(isinstance(value, bytes) and value for value in array):
                raise ValueError(f"{name} must be files as bytes that are not empty.")
        else:
            array = _to_dtype(name, array, field)
        arrays[name] = array
    rows = {name: len(array) for name, array in arrays.items()}
    if len(set(rows.values())) > 1:
        raise ValueError(f"All inputs must have the same number of rows. Received: {rows}.")
    return arrays


def _to_dtype(name, array, field):
    kinds = {"float32": "fiu", "uint8": "iu", "int64": "iu"}[field["dtype"]]
    if array.dtype.kind not in kinds:
        raise ValueError(f"{name} must be {field['dtype']}. Received: {array.dtype}.")
    if "range" in field:
        low, high = field["range"]
        if not (low <= array.min() and array.max() <= high):  # NaN fails both comparisons
            raise ValueError(f"{name} must be from {low} to {high}. Received: {array.min()} to {array.max()}.")
    return array.astype(field["dtype"])


def rest_document(signature, arrays, rows):
    """The JSON document of a predict request, row by row or column by column."""
    columns = {name: _to_json(array) for name, array in arrays.items()}
    if not rows:
        return {"signature_name": signature, "inputs": columns}
    instances = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return {"signature_name": signature, "instances": instances}


def from_rest_document(document, fields):
    """The outputs, as arrays, of the server's answer. It leaves out the name of an output that is the only one."""
    if "outputs" in document:
        columns = document["outputs"] if len(fields) > 1 else {next(iter(fields)): document["outputs"]}
    else:
        rows = document["predictions"]
        if len(fields) == 1:
            columns = {next(iter(fields)): rows}
        else:
            columns = {name: [row[name] for row in rows] for name in fields}
    return {name: _from_json(values, fields[name]["dtype"]) for name, values in columns.items()}


def _to_json(array):
    if array.dtype == object:
        return [{"b64": base64.b64encode(value).decode()} for value in array]
    return array.tolist()


def _from_json(values, dtype):
    if dtype == "string":
        return np.array([base64.b64decode(value["b64"]) for value in values], dtype=object)
    return np.array(values, dtype)


def grpc_request(model, signature, arrays, version=None, version_label=None):
    """A PredictRequest."""
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    if version_label is not None:
        request.model_spec.version_label = version_label
    elif version is not None:
        request.model_spec.version.value = version
    for name, array in arrays.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(array, shape=array.shape))
    return request


# -- command line --------------------------------------------------------------------------------------------------


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Ask a TensorFlow Serving server that runs an export.")
    parser.add_argument("--contract", default="contract.json", help="path of the export's contract.json")
    parser.add_argument("--server", help="http://localhost:8501, or with --grpc localhost:8500")
    parser.add_argument("--grpc", action="store_true", help="gRPC instead of REST")
    parser.add_argument("--label", type=int, help="of a conditional model: the class of the images")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("encode", help="PNG or JPEG -> z").add_argument("file", type=pathlib.Path)
    decode = commands.add_parser("decode", help="z -> PNG")
    decode.add_argument("z", type=float, nargs="+")
    generate = commands.add_parser("generate", help="seeds -> PNGs")
    generate.add_argument("seed", type=int, nargs="+")
    for command in (decode, generate):
        command.add_argument("--out", type=pathlib.Path, default=pathlib.Path("image.png"))
    options = parser.parse_args(arguments)
    try:
        address = [options.server] if options.server else []
        client = (GrpcClient if options.grpc else RestClient)(options.contract, *address)

        def label(count):
            return {} if options.label is None else {"label": [options.label] * count}

        if options.command == "encode":
            for name, value in client.encode_png(options.file.read_bytes(), **label(1)).items():
                print(name, value[0].tolist())
            return 0
        if options.command == "decode":
            z = np.array([options.z])
        else:
            z = client.generate(options.seed, **label(len(options.seed)))["z"]
        for number, file in enumerate(client.decode_png(z, **label(len(z)))):
            path = options.out.with_stem(f"{options.out.stem}-{number}") if len(z) > 1 else options.out
            path.write_bytes(file)
            print(path)
    except (OSError, ValueError, ServingError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
