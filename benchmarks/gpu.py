"""Measures training, scoring and export on a GPU beside other systems, and writes benchmarks/gpu.md.

    python benchmarks/gpu.py [PART ...] [--rounds N] [--mnist-dir DIR]

Needs a GPU that TensorFlow sees, and the extra `benchmark`. Parts: the works of benchmarks/speed.py, nll, export,
bits and presets; each writes its section when it is done. All systems of a part start at the same time, which the
first pass of each is measured in; then they run a pass each in turn. About eight minutes in all.
"""

import datetime
import gzip
import importlib
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import click
import numpy as np
from speed import Process, Work, scoring, serve
from tables import write_section

TABLE = Path(__file__).with_suffix(".md")
IMAGES = 51_200
_BURDA = {"network": "mlp", "hidden": (200, 200), "latent_dim": 50, "activation": "tanh", "binary": True}
WORKS = {
    "mlp": ("MLP 784-128-100, batch 128", Work("mlp", (128,), 100, 128, IMAGES)),
    "mlp-1024": ("MLP 784-128-100, batch 1024", Work("mlp", (128,), 100, 1024, IMAGES)),
    "conv": ("conv 32-64, dense 16, z 2, batch 128", Work("conv", (32, 64), 2, 128, IMAGES)),
    "burda-iwae": ("784-200-200-50, IWAE k=50, batch 100", Work(**_BURDA, draws=50, batch_size=100, images=IMAGES)),
}
SYSTEMS = {
    "keras_vae": ("package", {}),
    "keras_vae, jit_compile=False": ("package", {"jit_compile": False}),
    "keras_vae, mixed_bfloat16": ("package", {"policy": "mixed_bfloat16"}),
    "keras_vae, MirroredStrategy": ("package", {"mirrored": True}),
    "plain Keras": ("plain_keras", {}),
    "PyTorch eager": ("pytorch", {}),
    "torch.compile": ("pytorch", {"compiled": True}),
    "JAX scan": ("jax_scan", {}),
}
SCORERS = {
    "scoring, 1,000 rows at a time": {},
    "scoring, 10,000 rows at a time": {"batch_size": 20, "chunk": 500},
    "scoring, 100,000 rows at a time": {"batch_size": 20, "chunk": 5000},
    "scoring, 500,000 rows at a time": {"batch_size": 100, "chunk": 5000},
}
PEERS = ("plain Keras", "PyTorch eager", "torch.compile", "JAX scan")
SCORED, SAMPLES, ALONE = 10_000, 5_000, 20  # images, draws for each, and images scored one at a time


@click.command(help=__doc__)
@click.argument("parts", nargs=-1)
@click.option("--rounds", default=5, show_default=True, help="Passes of each system.")
@click.option("--threads", default=os.cpu_count(), show_default=True, help="Cores of each system.")
@click.option("--mnist-dir", help="Folder with the four official MNIST files; see `keras-vae train --help`.")
@click.option("--worker", nargs=3, hidden=True)
def main(parts, rounds, threads, mnist_dir, worker):
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # several processes share the card
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    if worker:
        return serve(*worker, threads, open_passes)
    known = [*WORKS, "nll", *SECTIONS]
    if unknown := set(parts) - set(known):
        raise click.UsageError(f"Unknown part {unknown.pop()!r}. Expected one of: {', '.join(known)}.")
    card = gpu_name()
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "images.npy"
        np.save(images, official_images(mnist_dir or os.environ.get("KERAS_VAE_MNIST_DIR")))
        for part in parts or known:
            started = time.time()
            if part in SECTIONS:
                section = script_section(*SECTIONS[part], images)
            else:
                systems = [*SCORERS, "one image at a time"] if part == "nll" else list(SYSTEMS)
                section = speed_section(part, measure(part, systems, images, rounds if part != "nll" else 1, threads))
            write_section(TABLE, section, heading(card, threads))
            click.echo(f"{part}: {time.time() - started:.0f} s")
    click.echo(TABLE.read_text())


def official_images(folder):
    """The first training images of MNIST, uint8 [n, 28, 28], from the official file."""
    with gzip.open(Path(folder) / "train-images-idx3-ubyte.gz") as file:
        return np.frombuffer(file.read(16 + IMAGES * 784), np.uint8, offset=16).reshape(-1, 28, 28)


def gpu_name():
    """Name of the card that TensorFlow sees; an error where it sees none."""
    code = (
        "import tensorflow as tf; gpus = tf.config.list_physical_devices('GPU'); "
        "print(tf.config.experimental.get_device_details(gpus[0])['device_name'] if gpus else '')"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    name = found.stdout.strip()
    if not name:
        raise click.ClickException(f"TensorFlow sees no GPU. It says:\n{found.stderr[-3000:]}")
    return name


def measure(part, systems, images, rounds, threads):
    """Starts all systems at once and runs `rounds` passes of each in turn. Returns {system: list of passes or text}."""
    processes = {system: Process(part, system, images, threads, __file__) for system in systems}
    found = {}
    try:
        for process in processes.values():
            process.ask()
        for system, process in processes.items():
            found[system] = answers(process)
        for _ in range(rounds):
            for system, process in processes.items():
                if isinstance(found[system], list):
                    process.ask()
                    more = answers(process)
                    found[system] = found[system] + more if isinstance(more, list) else more
    finally:
        for process in processes.values():
            process.end()
    return found


def answers(process):
    """List of the pass that was asked for; the last line of the error if the system failed."""
    try:
        return [process.answer()]
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return (str(error).strip().splitlines() or ["ended without a word"])[-1][:200]


def open_passes(name, system, images, threads):
    """The iterator of the passes of a system; see benchmarks/peers."""
    if name == "nll":
        work = Work(**_BURDA, draws=1, batch_size=20, images=SCORED, threads=threads)
        if system in SCORERS:
            return scoring(work, images[:SCORED], **SCORERS[system])
        return importlib.import_module("peers.pytorch").score(work, images[:ALONE], SAMPLES)
    peer, options = SYSTEMS[system]
    return importlib.import_module(f"peers.{peer}").train(WORKS[name][1], images, **options)


def speed_section(part, found):
    """The table of one part, as lines of Markdown."""
    count = SCORED if part == "nll" else WORKS[part][1].images
    title = f"Importance sampling, {SAMPLES:,} draws for each image" if part == "nll" else WORKS[part][0]
    lines = [
        f"## {title}",
        "",
        f"{datetime.date.today()}.",
        "",
        "| system | seconds a pass | images/s | speed, best peer = 1 | loss | first pass, s |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    rates = {}
    for system, passes in found.items():
        if isinstance(passes, list):
            seconds = statistics.median(each["seconds"] for each in passes[1:])
            rates[system] = (ALONE if system == "one image at a time" else count) / seconds, seconds
    best = max((rate for system, (rate, _) in rates.items() if system in (*PEERS, "one image at a time")), default=None)
    for system, passes in found.items():
        if system not in rates:
            lines.append(f"| {system} | failed: {passes} | | | | |")
            continue
        rate, seconds = rates[system]
        relative = f"{rate / best:.2f}" if best else ""
        lines.append(
            f"| {system} | {seconds:.3f} | {rate:,.0f} | {relative} | {passes[-1]['loss']:.2f} | "
            f"{passes[0]['seconds']:.1f} |"
        )
    return [*lines, ""]


_EXPORT = """
import sys, tempfile, numpy as np, keras, tensorflow as tf, keras_vae
images = np.load(sys.argv[1])[:5120, ..., None].astype("float32") / 255
for name in ("mlp", "conv"):
    keras.utils.set_random_seed(0)
    vae = keras_vae.VAE.from_preset(name)
    vae.compile("adam")
    vae.fit(images, epochs=1, batch_size=128, verbose=0)
    with tempfile.TemporaryDirectory() as folder:
        exported = keras_vae.export_saved_models(vae, folder)
        failures = keras_vae.serving.verify_export(folder)
        encoder = tf.saved_model.load(exported.paths["encoder"])
        x = tf.constant(images[:256])
        on_gpu = encoder.signatures["serve"](image=x)["z_mean"].numpy()
        with tf.device("CPU"):
            on_cpu = vae.encode(x)
        on_cpu = np.asarray(on_cpu[0] if isinstance(on_cpu, (tuple, list)) else on_cpu["z_mean"])
        print(f"| {name} | {len(failures)} | {np.max(np.abs(on_gpu - on_cpu)):.2g} | {(failures or [''])[0][:120]} |")
"""


_BITS = """
import sys, time, numpy as np, keras, tensorflow as tf, keras_vae
images = np.load(sys.argv[1])[:5120, ..., None].astype("float32") / 255
def weights(name, jit_compile):
    keras.utils.set_random_seed(0)
    vae = keras_vae.VAE.from_preset(name)
    vae.compile("adam", jit_compile=jit_compile)
    vae.fit(images[:128], epochs=1, batch_size=128, verbose=0)
    start = time.perf_counter()
    vae.fit(images, epochs=5, batch_size=128, verbose=0)
    return [w.numpy() for w in vae.trainable_weights], time.perf_counter() - start
for deterministic in (False, True):
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    for name in ("mlp", "conv"):
        for jit_compile in (False, True):
            try:
                (a, seconds), (b, _) = weights(name, jit_compile), weights(name, jit_compile)
                said = f"{max(float(np.max(np.abs(x - y))) for x, y in zip(a, b)):.2g} | {seconds:.1f}"
            except Exception as error:
                said = f"failed: {str(error).strip().splitlines()[-1][:120]} | "
            print(f"| {name} | {jit_compile} | {deterministic} | {said} |", flush=True)
"""


_PRESETS = """
import sys, time, numpy as np, keras, tensorflow as tf, keras_vae
images = np.load(sys.argv[1])[:2560, ..., None].astype("float32") / 255
for name in ("mlp", "conv", "vampprior", "burda-2layer", "beta-tc", "conv-threshold"):
    for jit_compile in (False, True):
        keras.utils.set_random_seed(0)
        start = time.perf_counter()
        try:
            vae = keras_vae.VAE.from_preset(name)
            vae.compile("adam", jit_compile=jit_compile)
            loss = vae.fit((images > 0.5).astype("float32"), epochs=2, batch_size=128, verbose=0).history["loss"][-1]
            said = f"{loss:.2f} | {time.perf_counter() - start:.1f}"
        except Exception as error:
            said = f"failed: {str(error).strip().splitlines()[-1][:120]} | "
        print(f"| {name} | {jit_compile} | {said} |", flush=True)
print(f"| memory at the most, MB | | {tf.config.experimental.get_memory_info('GPU:0')['peak'] / 1e6:,.0f} | |")
"""


# part -> title, what was done, columns of the rows that the script prints, script
SECTIONS = {
    "export": (
        "Export",
        "Trained on the GPU for 40 steps and exported there.",
        ("preset", "failures of verify-export", "largest difference of z_mean, GPU to CPU", "first failure"),
        _EXPORT,
    ),
    "bits": (
        "The same bits",
        "Two trainings of 200 steps from one seed, in one process.",
        ("preset", "jit_compile", "enable_op_determinism", "largest difference of a weight", "seconds"),
        _BITS,
    ),
    "presets": (
        "Presets",
        "40 steps each; the seconds have building, tracing and compiling in them.",
        ("preset", "jit_compile", "loss", "seconds"),
        _PRESETS,
    ),
}


def script_section(title, text, columns, script, images):
    """The table of what a script prints, as lines of Markdown."""
    return [
        f"## {title}",
        "",
        f"{datetime.date.today()}. {text}",
        "",
        f"| {' | '.join(columns)} |",
        f"|{' --- |' * len(columns)}",
        *rows_of(script, images),
        "",
    ]


def rows_of(code, images):
    """The rows that a script prints in a process of its own, and one more if it fails."""
    found = subprocess.run([sys.executable, "-c", code, str(images)], capture_output=True, text=True)
    rows = [line for line in found.stdout.splitlines() if line.startswith("| ")]
    if found.returncode:
        rows.append(f"| failed: {(found.stderr.strip().splitlines() or [''])[-1][:200]} |")
        print(found.stderr[-3000:], file=sys.stderr)
    return rows


def heading(card, threads):
    names = ("tensorflow", "keras", "torch", "jax", "numpy")
    return [
        "# On a GPU",
        "",
        f"Written by `python benchmarks/gpu.py`: {card}, {threads} cores, Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in names)
        + ".",
        "Medians of passes over images of MNIST after a first one, the systems in turn, each in a process of its own.",
        "The same network, batch size, Adam and float32 where nothing else is said; float32 products are as each",
        "system has them by default (TF32 in TensorFlow and JAX). The first pass has the tracing and compiling; all",
        "systems start at the same time. `one image at a time` is PyTorch with 100 draws in a batch.",
        "",
    ]


if __name__ == "__main__":
    main()
