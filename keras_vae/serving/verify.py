"""Checks an export from the outside: with TensorFlow, numpy and the standard library, without keras or keras_vae.

Run as a script it prints one line of JSON for each step and, at the end, what failed; see `verify_export` for the
caller's side. Requests go through a session, as in the server, so that malformed ones reach the graph itself.
"""

import base64
import binascii
import contextlib
import json
import os
import re
import struct
import sys
import tempfile
import zlib

if __name__ == "__main__":
    # The modules beside this script must not hide others of the same name, and neither package may be imported:
    # TensorFlow by itself would import keras.
    sys.path[:] = [entry for entry in sys.path if entry != os.path.dirname(os.path.abspath(__file__))]
    sys.modules.update({"keras": None, "keras_vae": None})  # type: ignore[dict-item]  # importing them now fails

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.framework import tensor_pb2
from tensorflow.core.protobuf import config_pb2, saved_model_pb2

CONTRACT = os.path.join("assets.extra", "contract.json")
WARMUP = os.path.join("assets.extra", "tf_serving_warmup_requests")
TOLERANCE = 1e-4  # of golden outputs, relative to values above 1

# A SavedModel may be larger than its parameters by this share and this many bytes.
SIZE_SHARE, SIZE_BYTES = 0.1, 150_000

PYTHON_OPERATIONS = {"PyFunc", "PyFuncStateless", "EagerPyFunc"}
XLA_ATTRIBUTES = ("_XlaMustCompile", "_XlaCompile")


def check_export(directory, report=lambda step: None):
    """Checks the newest version of an export, and that older ones are whole.

    Args:
        directory: What `export_saved_models` wrote into.
        report: Called with a line of text before each step.

    Returns:
        List of failures, one line each; empty if all is well.
    """
    failures = []
    try:
        contract = _read_json(os.path.join(directory, "contract.json"))
        version, models = contract["version"], contract["models"]
    except (OSError, ValueError, KeyError) as error:
        return [f"contract.json cannot be read, so this is no export: {type(error).__name__}: {error}"]
    for entry in sorted(os.listdir(directory)):
        if entry.startswith(".ready-"):
            failures.append(f"{entry}: an export was stopped while it was put in place. The next export finishes it.")
    config = os.path.join(directory, "models.config")
    text = open(config, encoding="utf-8").read() if os.path.exists(config) else ""
    for name in models:
        report(f"{name}: files")
        if not re.search(rf'name:\s*"{re.escape(name)}"', text):
            failures.append(f"models.config does not name the model {name}.")
        base = os.path.join(directory, name)
        versions = [int(entry) for entry in os.listdir(base) if entry.isdigit()] if os.path.isdir(base) else []
        for present in sorted(versions):
            failures += [f"{name}/{present}: {missing}" for missing in _missing(os.path.join(base, str(present)))]
        if version not in versions:
            failures.append(f"{name}/{version} is missing, but contract.json names it.")
        elif max(versions) != version:
            failures.append(f"{name}/{max(versions)} is newer than version {version} of contract.json.")
        else:
            path = os.path.join(base, str(version))
            if not _missing(path):
                failures += check_version(path, models[name], report=lambda step, name=name: report(f"{name}: {step}"))
    return failures


def check_version(path, contract, hostile=True, report=lambda step: None):
    """Checks one version of one model.

    Args:
        path: Folder with saved_model.pb.
        contract: The model's entry in contract.json.
        hostile: Whether to send malformed requests, which kill a process that holds a bad model, and to mind the size.
        report: Called with a line of text before each step.

    Returns:
        List of failures.
    """
    name = "/".join(os.path.normpath(path).split(os.sep)[-2:])
    try:
        with _plainly_named(path) as plain:
            failures = _check_version(plain, contract, hostile, report)
    except (OSError, ValueError, KeyError, tf.errors.OpError, DecodeError) as error:
        reason = getattr(error, "message", str(error)).strip().splitlines()
        failures = [f"cannot be read: {type(error).__name__}: {reason[-1] if reason else ''}"]
    return [f"{name}: {failure}" for failure in failures]


@contextlib.contextmanager
def _plainly_named(path):
    """A path of the same folder that TensorFlow does not read as a pattern: it finds no weights under run[1]."""
    if not set(os.path.abspath(path)) & set("[]*?\\"):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        link = os.path.join(folder, "version")
        os.symlink(os.path.abspath(path), link)
        yield link


def _check_version(path, contract, hostile, report):
    failures = []
    report("structure")
    if _read_json(os.path.join(path, CONTRACT)) != without_golden(contract):
        failures.append(f"{CONTRACT} differs from contract.json.")
    failures += _check_graph(path) + _check_weights(path, contract)
    if hostile:
        failures += _check_size(path, contract)
    with Model(path) as model:
        failures += _check_signatures(model, contract)
        if not failures:
            for signature, entry in _entries(contract).items():
                report(f"{signature}: golden vectors")
                failures += _check_golden(model, signature, entry)
            report("warmup")
            failures += _check_warmup(model, path, contract)
        if hostile and not failures:
            for signature, description, request in hostile_requests(contract):
                report(f"{signature}: {description}")
                failures += _check_refused(model, signature, description, request)
    if hostile and not failures:
        report("tf.saved_model.load")
        loaded = set(tf.saved_model.load(path).signatures)
        if loaded != set(_entries(contract)):
            failures.append(f"tf.saved_model.load finds the signatures {sorted(loaded)}.")
    return failures


class Model:
    """A SavedModel in a session of its own: what the server does, with Python around it."""

    def __init__(self, path):
        meta_graph = _read_saved_model(path).meta_graphs[0]
        with tf.Graph().as_default() as graph:
            self._session = tf.compat.v1.Session(graph=graph)
            saver = tf.compat.v1.train.import_meta_graph(meta_graph)
            with _plainly_named(path) as plain:
                saver.restore(self._session, os.path.join(plain, "variables", "variables"))
        self._calls = {}
        self.signatures = {
            name: signature for name, signature in meta_graph.signature_def.items() if not name.startswith("__")
        }

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._session.close()

    def run(self, signature, request):
        """Answers a dict of arrays with a dict of arrays. Shapes and dtypes are left to the graph to check."""
        names = self.signatures[signature]
        key = (signature, *request)
        if key not in self._calls:
            options = config_pb2.CallableOptions()
            options.feed.extend(names.inputs[name].name for name in request)
            options.fetch.extend(info.name for info in names.outputs.values())
            # Session.run would compare the shapes in Python, before the graph sees them, which the server does not
            self._calls[key] = self._session._make_callable_from_options(options)
        return dict(zip(names.outputs, self._calls[key](*request.values()), strict=True))


# -- golden vectors and malformed requests ------------------------------------------------------------------------


def to_array(values, dtype):
    """A field of the contract's golden vectors -> array. Bytes are {"b64": ...}, as in the server's REST interface."""
    if dtype == "string":
        return np.array([base64.b64decode(value["b64"]) for value in values], dtype=object)
    return np.array(values, dtype=dtype)


def golden_request(entry):
    """The inputs of a signature's golden vectors, as a dict of arrays."""
    return golden_arrays(entry, "inputs")


def golden_arrays(entry, side):
    """The golden "inputs" or "outputs" of a signature, as a dict of arrays."""
    return {name: to_array(values, entry[side][name]["dtype"]) for name, values in entry["golden"][side].items()}


def without_golden(contract):
    """A model's entry in contract.json without the golden vectors: what each version keeps beside its graph."""
    signatures = {
        name: {key: value for key, value in entry.items() if key != "golden"}
        for name, entry in contract["signatures"].items()
    }
    return {**contract, "signatures": signatures}


def hostile_requests(contract):
    """Malformed requests to each signature of a model, each with one thing wrong.

    Args:
        contract: A model's entry in contract.json.

    Yields:
        Triples (signature, description, dict of arrays).
    """
    for signature, entry in contract["signatures"].items():
        good = golden_request(entry)
        for name, field in entry["inputs"].items():
            for description, value in _bad_values(good[name], field):
                yield signature, f"{name}: {description}", {**good, name: value}
            if len(good) > 1:
                yield signature, f"{name}: one row more than the others", {**good, name: _rows(good[name], 3)}
                yield signature, f"{name}: one row for several", {**good, name: good[name][:1]}
                yield signature, f"{name}: missing", {key: value for key, value in good.items() if key != name}
        many = entry["max_rows"] + 1
        yield signature, "too many rows", {name: _rows(value, many) for name, value in good.items()}


def _bad_values(good, field):
    """Pairs (description, array)."""
    yield "no batch axis", good[0] if good.ndim > 1 else np.array(good[0], dtype=good.dtype)
    yield "one axis more", good[..., None]
    yield "scalar", np.array(good.reshape(-1)[0], dtype=good.dtype)
    yield "empty batch", good[:0]
    if good.ndim > 1:
        yield "flattened", good.reshape(-1)
        yield "last axis too long", np.concatenate([good, good], axis=-1)
        yield "last axis empty", good[..., :0]
    if good.ndim > 2:
        yield "rows flattened", good.reshape(len(good), -1)
        yield "first axis too long", np.concatenate([good, good], axis=1)
    wrong = {"float32": "float64", "uint8": "float32", "int64": "int32"}
    yield "wrong dtype", np.zeros(good.shape, wrong.get(field["dtype"], "float32"))
    if field["dtype"] in ("float32", "int64"):
        low, high = field["range"]
        if field["dtype"] == "float32":
            beyond = {"NaN": np.nan, "infinity": np.inf, "minus infinity": -np.inf, "largest": 3.4e38}
            beyond |= {"below the range": low - 0.01 * (high - low), "above the range": high + 0.01 * (high - low)}
        else:
            beyond = {"negative": -1, "smallest": -(2**63), "above the range": high + 1, "largest": 2**63 - 1}
        for description, value in beyond.items():
            bad = good.copy()
            bad.reshape(-1)[-1] = value
            yield description, bad
    if field["dtype"] == "string":
        png = good[-1]
        width, height = struct.unpack(">II", png[16:24])
        surplus = field["max_bytes"]["compressed pixels of a PNG"]
        files = {
            "no bytes": b"",
            "text": b"a line of text, long enough to be looked at",
            "PNG without pixels": png[:33],
            "truncated PNG": png[: len(png) // 2 + 20],
            "PNG of another size": _png(1, 1),
            "PNG of 2^31-1 pixels": _png(2**31 - 1, 1),
            "PNG of 60,000 x 60,000": _png(60_000, 60_000),
            "PNG of 23,170 x 23,170 behind another chunk": _png(23_170, 23_170, 1, struct.pack(">II", width, height)),
            "PNG with surplus data": _png(width, height, pixels=bytes(height * (width + 1)), surplus=surplus),
            "GIF": b"GIF89a" + bytes(64),
            "JPEG of noise": b"\xff\xd8\xff\xe0" + bytes(range(256)),
            "JPEG of 65,000 x 65,000": _jpeg_header(65_000, 65_000),
            "too many bytes": png + bytes(2**24),
        }
        for description, contents in files.items():
            yield description, np.array([*good[:-1], contents], dtype=object)


def _rows(array, count):
    return np.resize(array, (count, *array.shape[1:]))


def _png(width, height, depth=8, before=b"", pixels=bytes(2), surplus=0):
    """A grey PNG file whose header states that size, with a handful of pixels in it.

    Args:
        width, height: Ints, pixels.
        depth: Int, bits of a pixel.
        before: Content of a chunk before the header.
        pixels: The rows, each a byte and the pixels.
        surplus: Number of bytes after the compressed pixels.
    """

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", binascii.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0))
    first = chunk(b"teSt", before) if before else b""
    pixels = chunk(b"IDAT", zlib.compress(pixels) + bytes(surplus))
    return b"\x89PNG\r\n\x1a\n" + first + header + pixels + chunk(b"IEND", b"")


def _jpeg_header(width, height):
    """The beginning of a JPEG file whose frame states that size."""
    frame = struct.pack(">BHHB", 8, height, width, 1) + b"\x01\x11\x00"
    return b"\xff\xd8\xff\xc0" + struct.pack(">H", len(frame) + 2) + frame + b"\xff\xd9" + bytes(32)


# -- the checks ---------------------------------------------------------------------------------------------------


def _missing(path):
    files = ("saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001", CONTRACT)
    return [f"{file} is missing." for file in files if not os.path.isfile(os.path.join(path, file))]


def _check_graph(path):
    """No Python functions, no stateful randomness, no XLA."""
    saved_model = _read_saved_model(path)
    if len(saved_model.meta_graphs) != 1:
        return [f"saved_model.pb holds {len(saved_model.meta_graphs)} graphs instead of one."]
    graph = saved_model.meta_graphs[0].graph_def
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    failures = [f"operation {node.op} runs Python." for node in nodes if node.op in PYTHON_OPERATIONS]
    stateful = {node.op for node in nodes if "Random" in node.op and "Stateless" not in node.op}
    stateful |= {node.op for node in nodes if node.op.startswith("Stateful") and "PartitionedCall" not in node.op}
    failures += [f"operation {op} draws from a state." for op in sorted(stateful)]
    attributes = [node.attr for node in nodes] + [function.attr for function in graph.library.function]
    if any(attribute[key].b for attribute in attributes for key in XLA_ATTRIBUTES if key in attribute):
        failures.append("the graph asks for XLA.")
    return failures


def _check_weights(path, contract):
    """Every parameter is stored, and stored once."""
    shapes = dict(tf.train.list_variables(os.path.join(path, "variables", "variables")))
    shapes = {name: shape for name, shape in shapes.items() if ".ATTRIBUTES/VARIABLE_VALUE" in name}
    stored = sum(int(np.prod(shape)) for name, shape in shapes.items() if not name.startswith("save_counter"))
    parameters = contract["parameters"]
    return [] if stored == parameters else [f"{stored} parameters are stored instead of {parameters}."]


def _check_size(path, contract):
    """The folder is hardly larger than the parameters."""
    size = sum(os.path.getsize(os.path.join(folder, file)) for folder, _, files in os.walk(path) for file in files)
    limit = int(contract["parameter_bytes"] * (1 + SIZE_SHARE) + SIZE_BYTES)
    if size <= limit:
        return []
    return [f"{size} bytes, more than {limit}: the parameters, {SIZE_SHARE:.0%} and {SIZE_BYTES} bytes."]


def _check_signatures(model, contract):
    """Names, dtypes and shapes are as the contract says."""
    entries = _entries(contract)
    if set(model.signatures) != set(entries):
        return [f"signatures {sorted(model.signatures)} instead of {sorted(entries)}."]
    failures = []
    for name, entry in entries.items():
        for side in ("inputs", "outputs"):
            served = {
                field: [tf.as_dtype(info.dtype).name, _shape(info.tensor_shape)]
                for field, info in getattr(model.signatures[name], side).items()
            }
            written = {field: [info["dtype"], info["shape"]] for field, info in entry[side].items()}
            if served != written:
                failures.append(f"{name}: {side} are {served} instead of {written}.")
    return failures


def _entries(contract):
    """The contract's entries of all signatures, the default one included."""
    return {"serving_default": contract["signatures"][contract["serving_default"]], **contract["signatures"]}


def _shape(proto):
    return None if proto.unknown_rank else [None if dim.size < 0 else dim.size for dim in proto.dim]


def _check_golden(model, signature, entry):
    """The golden inputs give the golden outputs, whole and row by row."""
    request = golden_request(entry)
    expected = golden_arrays(entry, "outputs")
    failures = []
    rows = len(next(iter(request.values())))
    for which in (slice(None), *(slice(row, row + 1) for row in range(rows))):
        answer = model.run(signature, {name: value[which] for name, value in request.items()})
        for name, value in expected.items():
            error = _difference(answer[name], value[which])
            if not error <= TOLERANCE:
                failures.append(f"{signature}: golden output {name} is off by {error:.3g}.")
    return failures


def _difference(answer, expected):
    """Largest relative difference; of 8-bit images in units of their range, a step of rounding set aside."""
    if answer.shape != expected.shape:
        return np.inf
    if expected.dtype == object:  # PNG files: other bytes may hold the same pixels
        return _difference(*(np.stack([tf.io.decode_png(file) for file in files]) for files in (answer, expected)))
    difference = np.abs(answer.astype(np.float64) - expected.astype(np.float64))
    if expected.dtype == np.uint8:
        return float(np.max(np.maximum(difference - 1, 0)) / 255)
    return float(np.max(difference / np.maximum(1, np.abs(expected))))


def _check_refused(model, signature, description, request):
    try:
        model.run(signature, request)
    except tf.errors.InvalidArgumentError:
        return []
    except Exception as error:
        return [f"{signature}: {description}: answered {type(error).__name__} instead of INVALID_ARGUMENT."]
    return [f"{signature}: {description}: answered OK instead of INVALID_ARGUMENT."]


def _check_warmup(model, path, contract):
    """The warmup requests are answered, and there is one for every signature."""
    file = os.path.join(path, WARMUP)
    if not os.path.exists(file):
        return [f"{WARMUP} is missing."] if contract["warmup"] else []
    covered, failures = set(), []
    records = list(tf.data.TFRecordDataset(file).as_numpy_iterator())
    if len(records) > 1000:
        failures.append(f"{WARMUP} holds {len(records)} records; the server takes 1000.")
    for record in records:
        name, signature, request = parse_warmup(record)
        covered.add(signature)
        try:
            model.run(signature, request)
        except (tf.errors.OpError, KeyError) as error:
            failures.append(f"warmup of {name}, {signature}: {type(error).__name__}.")
    failures += [f"no warmup of {signature}." for signature in sorted(set(_entries(contract)) - covered)]
    return failures


def parse_warmup(record):
    """A serialized PredictionLog -> (model name, signature name, dict of arrays).

    Reads the wire format itself, so that the check needs no tensorflow-serving-api: PredictionLog.predict_log = 6,
    PredictLog.request = 1; PredictRequest: model_spec = 1, inputs = 2; ModelSpec: name = 1, signature_name = 3.
    """
    request = _fields(_fields(_fields(record)[6][0])[1][0])
    spec = _fields(request[1][0])
    inputs = {}
    for entry in request[2]:
        item = _fields(entry)
        inputs[item[1][0].decode()] = tf.make_ndarray(tensor_pb2.TensorProto.FromString(item[2][0]))
    return spec[1][0].decode(), spec[3][0].decode(), inputs


def _fields(message):
    """Field number -> list of payloads of the length-delimited fields of a protocol buffer message."""
    fields, position = {}, 0
    while position < len(message):
        tag, position = _varint(message, position)
        if tag & 7 == 0:
            _, position = _varint(message, position)
        elif tag & 7 == 2:
            length, position = _varint(message, position)
            fields.setdefault(tag >> 3, []).append(message[position : position + length])
            position += length
        else:
            position += {1: 8, 5: 4}[tag & 7]
    return fields


def _varint(message, position):
    value = shift = 0
    while True:
        byte = message[position]
        value |= (byte & 127) << shift
        position, shift = position + 1, shift + 7
        if byte < 128:
            return value, position


def _read_saved_model(path):
    with open(os.path.join(path, "saved_model.pb"), "rb") as file:
        return saved_model_pb2.SavedModel.FromString(file.read())


def _read_json(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def main(directories):
    """`verify.py DIR...`: prints lines {"step": ...} and at last {"failures": [...]}; exit code 0 if there is none."""
    if not directories:
        print("usage: verify.py DIR...", file=sys.stderr)
        return 2
    failures = []
    for directory in directories:
        failures += check_export(directory, lambda step: print(json.dumps({"step": step}), flush=True))
    print(json.dumps({"failures": failures}), flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
