"""Latency and throughput of an export, beside the arithmetic bound of the machine.

    python benchmarks/serving.py                 # writes benchmarks/serving.md; about three minutes

Everything runs on one thread, so that the ways of running a model can be compared with each other and with the bound:
the time that the multiplications and additions of the layers would take at the rate of a large matrix product.
"""

import argparse
import datetime
import math
import os
import pathlib
import platform
import shutil
import struct
import subprocess
import tempfile
import time

# ruff: noqa: E402
THREADS = 1  # read by TensorFlow when it is imported
for variable in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
    os.environ[variable] = str(THREADS)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from tensorflow.core.framework import node_def_pb2

import keras_vae
from keras_vae.serving import verify

BATCHES = (1, 32, 256)
MINIMUM_CALLS = 20
FOLDER = pathlib.Path(__file__).resolve().parent


def timed(run, seconds):
    """Microseconds of each call, after a tenth of the time to warm up."""
    until = time.perf_counter() + seconds / 10
    while time.perf_counter() < until:
        run()
    times, until = [], time.perf_counter() + seconds
    while time.perf_counter() < until or len(times) < MINIMUM_CALLS:
        start = time.perf_counter()
        run()
        times.append((time.perf_counter() - start) * 1e6)
    return np.array(times)


def matrix_product_rate(seconds):
    """Floating point operations a second of a large float32 matrix product: the best of many."""
    size = 1024
    matrix = tf.random.normal((size, size))
    multiply = tf.function(lambda: tf.linalg.matmul(matrix, matrix), autograph=False)
    return 2 * size**3 / (timed(lambda: multiply().numpy(), seconds).min() * 1e-6)


def operations(network):
    """Multiplications and additions for one row, those of matrix products and convolutions."""
    total = 0
    for layer in network.layers:
        if isinstance(layer, keras.layers.Dense):
            total += 2 * math.prod(layer.kernel.shape)
        elif isinstance(layer, keras.layers.Conv2DTranspose):  # the kernel is applied at every place of the input
            total += 2 * math.prod(layer.kernel.shape) * math.prod(layer.input.shape[1:3])
        elif isinstance(layer, keras.layers.Conv2D):
            total += 2 * math.prod(layer.kernel.shape) * math.prod(layer.output.shape[1:3])
    return total


class Session:
    """serving_session.cc, built against TensorFlow's own library: LoadSavedModel and Session::Run in C++."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        wheel = pathlib.Path(tf.__file__).parent
        command = [
            "g++",
            "-std=c++17",
            "-O2",
            "-w",
            str(FOLDER / "serving_session.cc"),
            "-o",
            str(self.folder / "session"),
        ]
        command += [f"-I{wheel}/include", f"-L{wheel}", "-Wl,--no-as-needed", f"-Wl,-rpath,{wheel}"]
        subprocess.run([*command, "-l:libtensorflow_cc.so.2", "-l:libtensorflow_framework.so.2"], check=True)

    def timed(self, path, signature, request, repeats):
        """Microseconds of each run."""
        with verify.Model(path) as model:
            names = model.signatures[signature]
        message = node_def_pb2.NodeDef(input=[info.name for info in names.outputs.values()])
        for name, value in request.items():
            message.attr[names.inputs[name].name].tensor.CopyFrom(tf.make_tensor_proto(value))
        data = message.SerializeToString()
        (self.folder / "requests").write_bytes(struct.pack("<I", len(data)) + data)
        command = [self.folder / "session", path, self.folder / "requests", self.folder / "answers", str(repeats)]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        times = np.array([float(value) for value in output.split()])
        return times[len(times) // 10 :]


def measure(model, paths, session, seconds):
    """Rows (model, way, batch, microseconds of each call)."""
    rows = []
    generator = np.random.default_rng(0)
    for name, field, shape in (
        ("encoder", "image", model.encoder.input_shape),
        ("decoder", "z", model.decoder.input_shape),
    ):
        network = getattr(model, name)
        loaded = tf.saved_model.load(paths[name])
        signature = loaded.signatures["serve"]
        for batch in BATCHES:
            values = generator.random((batch, *shape[1:]), "float32")
            tensor = tf.constant(values)
            ways = {
                "signature": lambda: [value.numpy() for value in signature(**{field: tensor}).values()],  # noqa: B023
                "Keras predict_on_batch": lambda: network.predict_on_batch(values),  # noqa: B023
                "Keras eager": lambda: [np.asarray(value) for value in tf.nest.flatten(network(tensor))],  # noqa: B023
            }
            for way, run in ways.items():
                rows.append((name, way, batch, timed(run, seconds)))
            if session is not None:
                repeats = max(20, int(seconds * 1e6 / np.median(rows[-3][3])))
                rows.append((name, "C++ session", batch, session.timed(paths[name], "serve", {field: values}, repeats)))
    return rows


def first_request(path):
    """(signature, microseconds of the first request after the warmup, median of the next 100) of a model."""
    rows = []
    for signature in verify.Model(path).signatures:
        with verify.Model(path) as model:
            requests = {}
            for record in tf.data.TFRecordDataset(os.path.join(path, verify.WARMUP)).as_numpy_iterator():
                _, name, request = verify.parse_warmup(record)
                requests[name] = request
                model.run(name, request)
            times = timed(lambda: model.run(signature, requests[signature]), 0)  # noqa: B023
            rows.append((signature, times[0], np.median(times)))
    return rows


def folder_size(path):
    return sum(file.stat().st_size for file in pathlib.Path(path).rglob("*") if file.is_file())


def cpu_name():
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def report(preset, seconds):
    """The page as text."""
    keras.utils.set_random_seed(0)
    model = keras_vae.VAE.from_preset(preset)
    rate = matrix_product_rate(seconds)
    with tempfile.TemporaryDirectory() as folder:
        export = keras_vae.export_saved_models(model, os.path.join(folder, "export"))
        session = Session(folder) if shutil.which("g++") else None
        rows = measure(model, export.paths, session, seconds)
        first = [(name, *row) for name, path in export.paths.items() for row in first_request(path)]
        sizes = {name: folder_size(path) for name, path in export.paths.items()}
        with verify.Model(export.paths["encoder"]):
            weights = {name: getattr(model, name).count_params() * 4 for name in ("encoder", "decoder")}
        weights["vae"] = sum(weights.values()) + 4 * sum(math.prod(w.shape) for w in model.likelihood.weights)
    bounds = {
        (name, batch): operations(getattr(model, name)) * batch / rate * 1e6
        for name in ("encoder", "decoder")
        for batch in BATCHES
    }
    medians = {row[:3]: np.median(row[3]) for row in rows}
    lines = [
        "# Speed of an export",
        "",
        f"Written by `python benchmarks/serving.py --preset {preset}` on {datetime.date.today()}: preset `{preset}`, "
        f"untrained (the weights do not change the speed), {THREADS} thread of {os.cpu_count()} cores, {cpu_name()}, "
        f"Python {platform.python_version()}, TensorFlow {tf.__version__}, Keras {keras.__version__}.",
        "",
        f"A large float32 matrix product runs at {rate / 1e9:.0f} GFLOP/s here. The bound is the time that the "
        "multiplications and additions of the layers would take at that rate. Input checks are part of the signature "
        "and of the C++ session, and absent from Keras.",
        "",
        "| model | way | batch | median ms | p99 ms | rows/s | share of the bound's speed |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, way, batch, times in rows:
        median = np.median(times)
        lines.append(
            f"| {name} | {way} | {batch} | {median / 1e3:.3f} | {np.percentile(times, 99) / 1e3:.3f} | "
            f"{batch / median * 1e6:,.0f} | {bounds[name, batch] / median:.0%} |"
        )
    lines += ["", "| model | signature | first request after warmup, ms | median, ms |", "|---|---|---|---|"]
    lines += [f"| {name} | {key} | {one / 1e3:.3f} | {median / 1e3:.3f} |" for name, key, one, median in first]
    lines += ["", "| model | bytes | bytes of parameters | allowed |", "|---|---|---|---|"]
    for name, size in sizes.items():
        allowed = int(weights[name] * (1 + verify.SIZE_SHARE) + verify.SIZE_BYTES)
        lines.append(f"| {name} | {size:,} | {weights[name]:,} | {allowed:,} |")
    lines += ["", "| aim | measured | reached |", "|---|---|---|"]
    for aim, measured, reached in aims(medians, bounds, first, sizes, weights):
        lines.append(f"| {aim} | {measured} | {'yes' if reached else 'no'} |")
    return "\n".join(lines) + "\n"


def aims(medians, bounds, first, sizes, weights):
    """Rows (aim, what was measured, whether it was reached)."""
    for name in ("encoder", "decoder"):
        if (name, "C++ session", 1) in medians:
            extra = (medians[name, "signature", 1] - medians[name, "C++ session", 1]) / 1e3
            yield f"{name}: signature within 0.25 ms of the C++ session at batch 1", f"{extra:.3f} ms", extra <= 0.25
            ratio = medians[name, "signature", 256] / medians[name, "C++ session", 256]
            yield f"{name}: signature within 1.15 of the C++ session at batch 256", f"{ratio:.2f}", ratio <= 1.15
    slowest = max(first, key=lambda row: row[2] / row[3])
    ratio = slowest[2] / slowest[3]
    yield "first request after warmup within 3 medians", f"{ratio:.1f} ({slowest[0]}, {slowest[1]})", ratio <= 3
    best = min(value for (name, way, batch), value in medians.items() if (name, batch) == ("decoder", 256)
               and way in ("signature", "C++ session"))  # fmt: skip
    share = bounds["decoder", 256] / best
    yield "decoder at batch 256 at 70 % of the bound's speed", f"{share:.0%}", share >= 0.7
    over = max(sizes[name] - weights[name] * (1 + verify.SIZE_SHARE) - verify.SIZE_BYTES for name in sizes)
    yield "no larger than the parameters, 10 % and 150 KB", f"{-over:,.0f} bytes below", over <= 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="conv", help="preset of a VAE (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=3.0, help="time for each figure (default: %(default)s)")
    parser.add_argument("--out", type=pathlib.Path, default=FOLDER / "serving.md", help="page to write")
    options = parser.parse_args()
    text = report(options.preset, options.seconds)
    options.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
