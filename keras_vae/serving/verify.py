"""Checks an export from the outside: with TensorFlow, numpy and the standard library, without keras or keras_vae.

Run as a script it prints one line of JSON for each step and, at the end, what failed; see `verify_export` for the
caller's side. Requests go through a session, as in the server, so that malformed ones reach the graph itself.
"""

import contextlib
import json
import os
import re
import sys
import tempfile
import types

if __name__ == "__main__":
    # TensorFlow by itself would import keras. Of keras_vae there are modules that do without, and not `__init__`; those
    # beside this script must not hide others of the same name.
    folder = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if entry != folder]
    for name, path in (("keras_vae", [os.path.dirname(folder)]), ("keras_vae.serving", [folder])):
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = path
    sys.modules["keras"] = None  # type: ignore[assignment]  # importing it now fails

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2

from keras_vae import keras_private
from keras_vae.serving import operations
from keras_vae.serving.requests import (
    golden_arrays,
    golden_request,
    hostile_requests,
    parse_warmup,
    rows_of,
    without_golden,
)

CONTRACT = os.path.join("assets.extra", "contract.json")
WARMUP = os.path.join("assets.extra", "tf_serving_warmup_requests")
TOLERANCE = 1e-4  # of golden outputs, relative to values above 1

REQUEST_BYTES = 2**28  # what a request may need; 2 GB hold a server and several of them

# A SavedModel may be larger than its parameters by this share, this many bytes, and so many rows of its inputs.
SIZE_SHARE, SIZE_BYTES = 0.1, 150_000
WARMUP_ROWS = 16  # rows in the warmup of a model, at most: two for each signature

PYTHON_OPERATIONS = {"PyFunc", "PyFuncStateless", "EagerPyFunc"}
XLA_ATTRIBUTES = ("_XlaMustCompile", "_XlaCompile")


def check_export(directory, report=lambda step: None, allowed=()):
    """Checks the newest version of an export, and that older ones are whole.

    Args:
        directory: What `export_saved_models` wrote into.
        report: Called with a line of text before each step.
        allowed: Names of operations that a graph may hold beside those of `operations.ALLOWED`.

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
                failures += check_version(
                    path, models[name], report=lambda step, name=name: report(f"{name}: {step}"), allowed=allowed
                )
    return failures


def check_version(path, contract, hostile=True, report=lambda step: None, allowed=()):
    """Checks one version of one model.

    Args:
        path: Folder with saved_model.pb.
        contract: The model's entry in contract.json.
        hostile: Whether to refuse operations that no network needs before anything runs, to send malformed requests,
            which kill a process that holds a bad model, and to mind sizes.
        report: Called with a line of text before each step.
        allowed: As for `check_export`.

    Returns:
        List of failures.
    """
    name = "/".join(os.path.normpath(path).split(os.sep)[-2:])
    try:
        with _plainly_named(path) as plain:
            failures = _check_version(plain, contract, hostile, report, allowed)
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


def _check_version(path, contract, hostile, report, allowed):
    failures = []
    report("structure")
    if _read_json(os.path.join(path, CONTRACT)) != without_golden(contract):
        failures.append(f"{CONTRACT} differs from contract.json.")
    if hostile and (refused := operations.refused(_read_saved_model(path), allowed)):
        return failures + refused
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
            for signature, entry in contract["signatures"].items():
                report(f"{signature}: {entry['max_rows']} rows")
                failures += _check_most_rows(model, signature, entry)
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
            # on the CPU, where it is served, also beside a process that holds the GPU
            self._session = tf.compat.v1.Session(graph=graph, config=tf.compat.v1.ConfigProto(device_count={"GPU": 0}))
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
            feeds = [names.inputs[name].name for name in request]
            fetches = [info.name for info in names.outputs.values()]
            self._calls[key] = keras_private.unchecked_call(self._session, feeds, fetches)
        return dict(zip(names.outputs, self._calls[key](*request.values()), strict=True))


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
    """The folder is hardly larger than the parameters, and the examples of the warmup."""
    size = sum(os.path.getsize(os.path.join(folder, file)) for folder, _, files in os.walk(path) for file in files)
    fields = [field for entry in contract["signatures"].values() for field in entry["inputs"].values()]
    example = max(4 * int(np.prod(field["shape"][1:])) for field in fields)  # bytes of the largest row
    limit = int(contract["parameter_bytes"] * (1 + SIZE_SHARE) + SIZE_BYTES + WARMUP_ROWS * example)
    if size <= limit:
        return []
    return [f"{size} bytes, more than {limit}: the parameters, {SIZE_SHARE:.0%}, examples and {SIZE_BYTES} bytes."]


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


def _check_most_rows(model, signature, entry):
    """As many rows as are allowed are answered, within the memory that a request may need."""
    request = {name: rows_of(value, entry["max_rows"]) for name, value in golden_request(entry).items()}
    with _growth() as grown:
        model.run(signature, request)
    return _check_growth(signature, f"{entry['max_rows']} rows", grown)


def _check_refused(model, signature, description, request):
    with _growth() as grown:
        try:
            model.run(signature, request)
            answer = "OK"
        except tf.errors.InvalidArgumentError:
            answer = "INVALID_ARGUMENT"
        except Exception as error:
            answer = type(error).__name__
    failures = _check_growth(signature, description, grown)
    if answer != "INVALID_ARGUMENT":
        failures.append(f"{signature}: {description}: answered {answer} instead of INVALID_ARGUMENT.")
    return failures


def _check_growth(signature, description, grown):
    (size,) = grown
    if size <= REQUEST_BYTES:
        return []
    return [f"{signature}: {description}: took {size / 1e6:.0f} MB, more than {REQUEST_BYTES / 1e6:.0f} MB."]


@contextlib.contextmanager
def _growth():
    """Yields a list that holds, after the block, by how many bytes the process grew at most; 0 where Linux is not."""
    grown = []
    before = _peak(reset=True)
    yield grown
    grown.append(_peak() - before)


def _peak(reset=False):
    try:
        if reset:
            with open("/proc/self/clear_refs", "w") as file:
                file.write("5")
        with open("/proc/self/status") as file:
            return 1024 * int(file.read().partition("VmHWM:")[2].split()[0])
    except (OSError, IndexError):
        return 0


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


def _read_saved_model(path):
    with open(os.path.join(path, "saved_model.pb"), "rb") as file:
        return saved_model_pb2.SavedModel.FromString(file.read())


def _read_json(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def main(arguments):
    """`verify.py [--allow=OPERATION ...] DIR...`: lines {"step": ...} and at last {"failures": [...]}.

    The exit code is 0 if nothing failed.
    """
    allowed = [argument.partition("=")[2] for argument in arguments if argument.startswith("--allow=")]
    directories = [argument for argument in arguments if not argument.startswith("--allow=")]
    if not directories:
        print("usage: verify.py [--allow=OPERATION ...] DIR...", file=sys.stderr)
        return 2
    failures = []
    for directory in directories:
        failures += check_export(directory, lambda step: print(json.dumps({"step": step}), flush=True), allowed)
    print(json.dumps({"failures": failures}), flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
