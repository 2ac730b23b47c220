"""Measures training and scoring beside other systems, in turn in one run, and writes benchmarks/speed.md.

    python benchmarks/speed.py [WORK ...] [--rounds N] [--threads N] [--mnist-dir DIR] [--against CHECKOUT]

Needs the extra `benchmark` (PyTorch and JAX) and a C++ compiler for torch.compile. Each system is a process of its
own, pinned to as many cores as it has threads; they run one after the other, a pass each, for several rounds, and
medians are compared. About half an hour on 2 cores that have nothing else to do.
"""

import datetime
import importlib
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from tables import write_section

TABLE = Path(__file__).with_suffix(".md")
MATRIX = 2048


@dataclass(frozen=True)
class Work:
    network: str
    hidden: tuple
    latent_dim: int
    batch_size: int
    images: int  # in a pass, whole batches
    activation: str = "relu"
    draws: int = 1
    binary: bool = False
    learning_rate: float = 1e-3
    threads: int = 2

    def operations(self):
        """Floating-point operations of the matrix products and convolutions of one image, forward and backward."""
        if self.network == "conv":
            encoder = 14 * 14 * 9 * 32 + 7 * 7 * 9 * 32 * 64 + 3136 * 16 + 32 * self.latent_dim
            decoder = self.latent_dim * 3136 + 9 * (7 * 7 * 64 * 64 + 14 * 14 * 64 * 32 + 28 * 28 * 32)
        else:
            sizes = (784, *self.hidden)
            encoder = sum(n * m for n, m in itertools.pairwise(sizes)) + 2 * sizes[-1] * self.latent_dim
            decoder = sum(n * m for n, m in itertools.pairwise(sizes)) + sizes[-1] * self.latent_dim
        # each product once forward and twice backward; the first layer needs no gradient of the image
        return 2 * (3 * (encoder + self.draws * decoder) - (784 * self.hidden[0] if self.network != "conv" else 0))


_MLP = {"network": "mlp", "hidden": (128,), "latent_dim": 100}
_BURDA = {"network": "mlp", "hidden": (200, 200), "latent_dim": 50, "activation": "tanh", "draws": 50, "binary": True}
WORKS = {
    "mlp-64": ("MLP 784-128-100, batch 64", Work(**_MLP, batch_size=64, images=51_200)),
    "mlp-128": ("MLP 784-128-100, batch 128", Work(**_MLP, batch_size=128, images=51_200)),
    "iwae-20": ("784-200-200-50, IWAE k=50, batch 20", Work(**_BURDA, batch_size=20, images=8_000)),
    "iwae-100": ("784-200-200-50, IWAE k=50, batch 100", Work(**_BURDA, batch_size=100, images=5_000)),
    "conv-128": (
        "conv 32-64, dense 16, z 2, batch 128",
        Work(network="conv", hidden=(32, 64), latent_dim=2, batch_size=128, images=2_560),
    ),
}
SYSTEMS = {
    "keras_vae": ("package", {}),
    "plain Keras": ("plain_keras", {}),
    "PyTorch eager": ("pytorch", {}),
    "torch.compile": ("pytorch", {"compiled": True}),
    "JAX scan": ("jax_scan", {}),
}
OTHER = "the other checkout"
SCORED, SAMPLES = 1000, 5000  # images in a pass of scoring, and draws for each


@click.command(help=__doc__)
@click.argument("works", nargs=-1)
@click.option("--rounds", default=7, show_default=True, help="Passes of each system.")
@click.option("--threads", default=os.cpu_count(), show_default=True, help="Cores, and threads of each system.")
@click.option("--mnist-dir", help="Folder with the four official MNIST files; see `keras-vae train --help`.")
@click.option("--against", help="A checkout of another version, a system of its own in the same turns.")
@click.option("--worker", nargs=3, hidden=True)
def main(works, rounds, threads, mnist_dir, against, worker):
    if worker:
        return serve(*worker, threads)
    names = works or [*WORKS, "nll"]
    unknown = set(names) - {*WORKS, "nll"}
    if unknown:
        raise click.UsageError(f"Unknown work {unknown.pop()!r}. Expected one of: {', '.join(WORKS)}, nll.")
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "images.npy"
        prepare = f"import sys; from keras_vae.data import open_dataset; import numpy as np; {_PREPARE}"
        subprocess.run([sys.executable, "-c", prepare, str(images), mnist_dir or ""], check=True)
        for name in names:
            systems = ["scoring", "one image at a time"] if name == "nll" else list(SYSTEMS)
            scripts = {f"{systems[0]}, {OTHER}": Path(against, "benchmarks", "speed.py")} if against else {}
            found = measure(name, ["matrix products", *scripts, *systems], images, rounds, threads, scripts)
            write_section(TABLE, section(name, found), heading(threads))
    click.echo(TABLE.read_text())


_PREPARE = """
found = open_dataset("mnist", mnist_dir=sys.argv[2] or None)
np.save(sys.argv[1], found.train.images[:51200, ..., 0])
"""


class Process:
    """A system in a process of its own that runs a pass when it is asked to.

    `script` is the benchmark whose option --worker serves the passes.
    """

    def __init__(self, name, system, images, threads, script=__file__):
        system = system.removesuffix(f", {OTHER}")
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "STARTED": str(time.time())}
        environment["PYTHONPATH"] = str(Path(script).resolve().parents[1])
        environment |= {
            key: str(threads) for key in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
        }
        command = [sys.executable, script, "--threads", str(threads), "--worker", name, system, str(images)]
        self.errors = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True, env=environment
        )

    def run_pass(self):
        """Dict of seconds, loss, memory and the seconds since the start of the process."""
        self.ask()
        return self.answer()

    def ask(self):
        """Asks for a pass, whose results `answer` returns."""
        try:
            self.process.stdin.write("pass\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # `answer` says why the process ended

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            self.errors.seek(0)
            raise RuntimeError(self.errors.read()[-2000:])
        return json.loads(line)

    def end(self):
        self.process.kill()
        self.process.wait()


def measure(name, systems, images, rounds, threads, scripts):
    """Runs a first pass of each system, and then `rounds` rounds of all. Returns {system: list of passes}.

    `scripts` holds the script of each system that is not of this checkout.
    """
    found, processes = {system: [] for system in systems}, {}
    try:
        for system in systems:
            processes[system] = Process(name, system, images, threads, scripts.get(system, __file__))
            found[system].append(processes[system].run_pass())
        for _ in range(rounds):
            for system in systems:
                found[system].append(processes[system].run_pass())
            click.echo(f"{name}: " + ", ".join(f"{system} {found[system][-1]['seconds']:.2f} s" for system in systems))
    finally:
        for process in processes.values():
            process.end()
    return found


def serve(name, system, images, threads, open_passes=None):
    """The other side of `Process`. `open_passes` opens the passes of a system as `open_system` does."""
    import resource

    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:threads]))
    output, sys.stdout = sys.stdout, sys.stderr
    sys.path.insert(0, str(TABLE.parent))
    passes = (open_passes or open_system)(name, system, np.load(images), threads)
    for _ in sys.stdin:
        start = time.perf_counter()
        loss = next(passes)
        seconds = time.perf_counter() - start
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        since = time.time() - float(os.environ["STARTED"])
        print(json.dumps({"seconds": seconds, "loss": loss, "memory": memory, "since": since}), file=output, flush=True)
    os._exit(0)  # a fit that waits for its turn


def open_system(name, system, images, threads):
    """The iterator of a system's passes; see benchmarks/peers."""
    if system == "matrix products":
        return matrix_products()
    if name == "nll":
        work = Work(**_BURDA, batch_size=20, images=SCORED, threads=threads)
        return (
            scoring(work, images[:SCORED])
            if system == "scoring"
            else importlib.import_module("peers.pytorch").score(work, images[:SCORED], SAMPLES)
        )
    work = WORKS[name][1]
    peer, options = SYSTEMS[system]
    return importlib.import_module(f"peers.{peer}").train(work, images[: work.images], **options)


def matrix_products():
    """The rate of the machine, in GFLOP/s, in place of a loss."""
    import tensorflow as tf

    a = tf.random.normal((MATRIX, MATRIX))
    product = tf.function(lambda: tf.reduce_sum(a @ a))
    float(product())
    while True:
        start = time.perf_counter()
        for _ in range(10):
            float(product())
        yield 10 * 2 * MATRIX**3 / (time.perf_counter() - start) / 1e9


def scoring(work, images, **options):
    import keras

    from keras_vae import VAE, evaluation, networks

    keras.utils.set_random_seed(0)
    encoder, decoder = networks.build(
        "mlp",
        (28, 28, 1),
        work.latent_dim,
        hidden=work.hidden,
        activation=work.activation,
        initializer="glorot_uniform",
    )
    vae, x = VAE(encoder, decoder, seed=0), (images[..., None] > 127).astype("float32")
    while True:
        yield -float(np.mean(evaluation.marginal_likelihood(vae, x, SAMPLES, **options)["log_marginal"]))


def heading(threads):
    from keras_vae.installed import version

    versions = ", ".join(f"{name} {version(name)}" for name in ("tensorflow", "keras", "torch", "jax", "numpy"))
    return [
        "# Speed",
        "",
        f"Written by `python benchmarks/speed.py`: {datetime.date.today()}, {platform.machine()}, {threads} cores with",
        f"{threads} threads, Python {platform.python_version()}, {versions}.",
        "Medians of passes after a first one, the systems in turn. The same network, batch size, Adam and",
        "float32, on the same images of MNIST; peers are in benchmarks/peers. The bound is the time of the matrix",
        f"products and convolutions alone at the rate of products of {MATRIX}x{MATRIX} matrices, in the same turns.",
        "The loss is that of the last pass, after the same number of steps with other random numbers. The first pass",
        "has the tracing and compiling; the start is the time from the start of the process to its end, in which no",
        "other system runs. Memory is the largest that the process had.",
        "",
    ]


def section(name, found):
    """The table of one work, as lines of Markdown."""
    rate = statistics.median(each["loss"] for each in found["matrix products"][1:])
    if name == "nll":
        title, count = f"Importance sampling, {SAMPLES:,} draws for each image", SCORED
        decoder = 50 * 200 + 200 * 200 + 200 * 784
        bound = 2 * decoder * SAMPLES * count / rate / 1e9
    else:
        title, work = WORKS[name]
        count, bound = work.images, work.images * work.operations() / rate / 1e9
    systems = [system for system in found if system != "matrix products"]
    seconds = {system: statistics.median(each["seconds"] for each in found[system][1:]) for system in systems}
    best = min(value for system, value in seconds.items() if system.partition(",")[0] not in ("keras_vae", "scoring"))
    lines = [
        f"## {title}",
        "",
        f"{len(found[systems[0]]) - 1} passes of {count:,} images. Matrix products: {rate:.0f} GFLOP/s; the bound is "
        f"{bound:.2f} s.",
        "",
        "| system | seconds a pass | images/s | speed, best peer = 1 | share of the bound | loss | first pass, s | "
        "start, s | memory, MB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for system in systems:
        first, last = found[system][0], found[system][-1]
        lines.append(
            f"| {system} | {seconds[system]:.2f} | {count / seconds[system]:,.0f} | {best / seconds[system]:.2f} | "
            f"{bound / seconds[system]:.0%} | {last['loss']:.2f} | {first['seconds']:.1f} | {first['since']:.1f} | "
            f"{last['memory']:,.0f} |"
        )
    return [*lines, ""]


if __name__ == "__main__":
    main()
