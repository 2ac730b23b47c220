"""Writes what is served: SavedModels with their contract, or another format."""

import contextlib
import json
import logging
import os
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from keras_vae import layers
from keras_vae.config import EXPORT_FORMATS as FORMATS
from keras_vae.config import InputError
from keras_vae.serving import contract, formats, limits, publish, signatures, verify, warmup

DEVICES = ("cpu", "gpu")
KERAS_TOLERANCE = 1e-5  # of `serve` against the Keras model, relative for values above 1


@dataclass(frozen=True)
class Export:
    """What an export wrote: the version, and the folder of each served model (or of the format)."""

    directory: str
    version: int
    paths: dict[str, str]


def export_saved_models(model, directory, format="saved_model", binarization="none", device="cpu"):
    """Writes a new version of everything that is served for a model, or nothing.

    `DIR/encoder/<version>`, `DIR/decoder/<version>` and, for a VAE, `DIR/vae/<version>` are SavedModels for TensorFlow
    Serving and for `tf.saved_model.load`; docs/serving.md is their contract. Versions count up from 1. Each is
    written aside, checked and then renamed into place. The formats onnx and litert write both halves to
    `DIR/<format>/<version>`.

    Args:
        model: A built `VAE` or `Autoencoder`.
        directory: Folder of all versions; made if need be.
        format: "saved_model", "onnx" or "litert".
        binarization: How the training images were binarised; "threshold" is repeated for 8-bit images and files.
        device: "cpu" or "gpu", where the export will run: some layers have a faster form for a CPU.

    Returns:
        An `Export`.

    Raises:
        InputError: for another model, format or device, a folder that cannot be written, or a package that is missing.

    Example:

    >>> import tempfile, keras_vae, tensorflow as tf
    >>> vae = keras_vae.VAE.from_preset("mlp", event_shape=(8, 8, 1))
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     export = keras_vae.export_saved_models(vae, directory)
    ...     encoder = tf.saved_model.load(export.paths["encoder"])
    >>> export.version, sorted(export.paths)
    (1, ['decoder', 'encoder', 'vae'])
    >>> answer = encoder.signatures["serve"](image=tf.zeros((5, 8, 8, 1)))
    >>> tuple(answer["z_mean"].shape)
    (5, 20)
    """
    if format not in FORMATS:
        raise InputError(f"Unknown export format {format!r}. Expected one of: {', '.join(FORMATS)}.")
    if format in formats.FORMATS:
        formats.check_packages(format)
    if device not in DEVICES:
        raise InputError(f"Unknown device {device!r}. Expected one of: {', '.join(DEVICES)}.")
    directory = os.path.abspath(os.fspath(directory))
    try:
        with _served_on(device):
            version, names = _write_version(model, directory, format, binarization)
    except (OSError, tf.errors.OpError) as error:
        reason = getattr(error, "message", None) or getattr(error, "strerror", None) or str(error)
        raise InputError(f"Cannot write the export to {directory}: {reason.splitlines()[0]}") from error
    return Export(directory, version, {name: os.path.join(directory, name, str(version)) for name in names})


@contextlib.contextmanager
def _served_on(device):
    """Graphs for that device; and float32 as it is, not the ten bits of TF32 that a GPU takes for it by default."""
    enabled = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        with layers.runs_on(device):
            yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(enabled)


def _write_version(model, directory, format, binarization):
    """Writes the next version into `directory`. Returns (version, names of its folders)."""
    served = limits.build(model, binarization)
    if not all(np.all(np.isfinite(weight)) for weight in model.get_weights()):
        raise InputError("The model has weights that are NaN or infinite: there is nothing to serve. Train it again.")
    with publish.locked(directory):
        publish.recover(directory)
        version = publish.next_version(directory)
        with publish.staged(directory) as staging:
            if format == "saved_model":
                names = _write_saved_models(model, served, staging, version)
            else:
                names = [format]
                os.mkdir(os.path.join(staging, format))
                formats.write(format, model, os.path.join(staging, format))
            ready = publish.make_ready(directory, staging, version)
        publish.publish(directory, ready)
    return version, names


def verify_export(directory, report=lambda step: None, allowed=()):
    """Checks an export in a fresh process that imports neither keras nor keras_vae.

    Operations, structure, signatures, golden vectors, malformed requests, warmup, memory and size of the newest
    version. Nothing of a graph runs that holds an operation which no network needs, such as one that writes a file.

    Args:
        directory: What `export_saved_models` wrote into.
        report: Called with a line of text before each step.
        allowed: Names of operations that the graphs of an export of your own may hold all the same.

    Returns:
        List of failures, one line each; empty if all is well.
    """
    directory = os.path.abspath(os.fspath(directory))
    command = [sys.executable, verify.__file__, *(f"--allow={name}" for name in allowed), directory]
    # on the CPU: this process may hold the GPU
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
    step, failures, stderr = "start", None, []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, errors="replace"
    ) as process:
        for line in process.stdout:
            if line.startswith('{"step": '):
                step = json.loads(line)["step"]
                report(step)
            elif line.startswith('{"failures": '):
                failures = json.loads(line)["failures"]
            else:
                stderr.append(line.strip())
    if failures is None:
        last = f": {stderr[-1]}" if stderr else ""
        return [f"The checking process ended with code {process.returncode} at the step {step!r}{last}"]
    return failures


def _write_saved_models(model, served, staging, version):
    """Writes, checks and describes all models of one version in a folder. Returns their names."""
    weights = {name: save(entries, os.path.join(staging, name)) for name, entries in served.items()}
    has_warmup = warmup.available()
    if not has_warmup:
        logging.getLogger("keras_vae").warning(warmup.MISSING)
    described = contract.describe(model, served, version, weights, has_warmup)
    for name, entries in served.items():
        path = os.path.join(staging, name)
        os.mkdir(os.path.join(path, "assets.extra"))
        _write_text(
            os.path.join(path, verify.CONTRACT), contract.dumps(verify.without_golden(described["models"][name]))
        )
        if has_warmup:
            warmup.write(path, name, model, entries)
    files = {"contract.json": contract.dumps(described), **contract.server_files(served)}
    for file, text in files.items():
        _write_text(os.path.join(staging, file), text)
    failures = [
        failure
        for name in served
        for failure in verify.check_version(os.path.join(staging, name), described["models"][name], hostile=False)
    ]
    failures += _differences_from_keras(model, staging)
    if failures:
        more = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
        raise InputError(f"The export failed its checks, and nothing was written: {failures[0]}{more}")
    return list(served)


def save(served, path):
    """Writes one SavedModel. The weights that its graphs use are stored once; nothing else is.

    Args:
        served: Dict, name of the signature -> `signatures.Signature`. The first is also `serving_default`.
        path: Folder to write.

    Returns:
        List of the variables that are stored.
    """
    functions = {}
    for name, signature in served.items():
        specs = {field_name: field.spec(field_name) for field_name, field in signature.inputs.items()}
        functions[name] = tf.function(signature.function, autograph=False).get_concrete_function(**specs)
    module = tf.Module()
    module.weights = list({id(weight): weight for f in functions.values() for weight in f.graph.variables}.values())
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    tf.saved_model.save(module, path, {"serving_default": next(iter(functions.values())), **functions}, options)
    return module.weights


def _differences_from_keras(model, staging):
    """Compares signature `serve`, loaded from the disk, with the Keras model itself."""
    failures = []
    fields = signatures.build(model)
    halves = {"encoder": lambda *inputs: signatures.encode(model, *inputs), "decoder": model.decode}
    for name, compute in halves.items():
        rows = {key: contract.golden_input(model, key, field) for key, field in fields[name]["serve"].inputs.items()}
        expected = compute(*rows.values())
        expected = expected if isinstance(expected, dict) else {signatures.x_name(model): expected}
        with verify.Model(os.path.join(staging, name)) as loaded:
            answer = loaded.run("serve", {key: value.numpy() for key, value in rows.items()})
        for output, value in expected.items():
            error = np.max(np.abs(answer[output] - value) / np.maximum(1, np.abs(value)))
            if not error <= KERAS_TOLERANCE:
                failures.append(f"{name}: {output} differs from Keras by {error:.3g}")
    return failures


def _write_text(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
