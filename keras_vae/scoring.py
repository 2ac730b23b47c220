"""Scoring a run: its model on its test split, into evaluation.json. It can be stopped and continued."""

import hashlib
import io
import json
import time
from contextlib import contextmanager, nullcontext

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from keras_vae import cards, data, evaluation, installed, npz, output
from keras_vae.callbacks import duration
from keras_vae.event_shapes import kind_of
from keras_vae.files import write_bytes, write_json

BATCH = 500
SEED = 0  # of binarisation and samples: the same for all runs, so that they are scored on the same pixels
PROBE_IMAGES = 10_000  # training images for the probes, from the first on
PARTIAL = "evaluation.partial.npz"
SECONDS = 30  # between two lines of progress, and between two saves


def evaluate(run, model, images, console, samples, count=None, estimator="importance", signals=None):
    """Scores the model of a run on its test split and writes evaluation.json and evaluation.npz.

    Args:
        run: The `Run`.
        model: Its model.
        images: Its data, an `ImageSet`.
        console: A `rich.console.Console`, for the progress.
        samples: Int, samples of z for each image; 0 for no estimate of the likelihood.
        count: Int, on how many test images to sample, from the first on; None for all.
        estimator: "importance" or "prior"; see `evaluation.evaluate`.
        signals: `StopSignals`, entered: a signal saves what is done, and the same call goes on from there. None for
            no saving.

    Returns:
        Dict: the content of evaluation.json.

    Raises:
        RunStopped: after a signal.
    """
    pixels, labels = load_test_images(run.config, images)
    count = min(count or len(pixels), len(pixels))
    if not hasattr(model, "prior"):
        samples = 0
    protocol = {
        "dataset": images.name,
        "split": "test",
        "images": len(pixels),
        "pixels_sha256": evaluation.pixel_hash(pixels),
        "binarization": run.config.data.binarization,
        "binarization_seed": SEED if run.config.data.binarization in ("dynamic", "fixed") else None,
        "estimator": estimator,
        "nll_samples": samples,
        "nll_images": count if samples else 0,
        "seed": SEED,
    }
    partial = _Partial(run, protocol, signals) if signals else None
    done = latest = partial.load() if partial else None
    with (
        _progress(console, f"{estimator} sampling", count, enabled=samples > 0) as advance,
        signals.deferred() if partial and samples else nullcontext(),
    ):

        def on_batch(estimates):
            nonlocal latest
            latest = estimates
            advance(len(estimates["log_marginal"]))
            if partial:
                partial.update(estimates)

        results = evaluation.evaluate(
            model,
            pixels,
            labels=labels,
            train=_probe_images(run.config, images),
            nll_samples=samples,
            nll_images=count,
            estimator=estimator,
            seed=SEED,
            done=done,
            on_batch=on_batch,
        )
    card = evaluation.card(model, pixels, results, protocol=protocol, versions=installed.versions())
    if latest is not None:
        content = io.BytesIO()
        np.savez(
            content,
            protocol=json.dumps(card["protocol"], sort_keys=True),
            name=evaluation.likelihood_name(model, pixels, estimator),
            log_marginal=latest["log_marginal"],
        )
        write_bytes(run.path / "evaluation.npz", content.getvalue())
    write_json(run.path / "evaluation.json", card)
    if partial:
        partial.path.unlink(missing_ok=True)
    return card


def load_test_images(config, images):
    """The test split as it is evaluated: (float32 [n, h, w, c] in [0, 1], binarised; int [n] labels or None)."""
    pipeline = data.batches(images.test, BATCH, binarization=config.data.binarization, seed=SEED)
    return np.concatenate(list(pipeline.as_numpy_iterator())), images.test.labels


class _Partial:
    """What is done of a long estimate, in a file that belongs to one model and one protocol."""

    def __init__(self, run, protocol, signals):
        self.path = run.path / PARTIAL
        self.signals = signals
        model = hashlib.sha256(run.model_file().read_bytes()).hexdigest()
        self.key = json.dumps({"model": model, **protocol})
        self.saved = time.monotonic()

    def load(self):
        """The estimates so far, or None."""
        try:
            arrays = npz.read(self.path) if self.path.is_file() else {}
        except (OSError, ValueError):
            return None
        return arrays if str(arrays.pop("key", "")) == self.key else None

    def update(self, estimates):
        """Saves now and then, and after a signal, which then stops the work."""
        stop = self.signals.received()
        if stop or time.monotonic() - self.saved > SECONDS:
            content = io.BytesIO()
            np.savez(content, key=self.key, **estimates)
            write_bytes(self.path, content.getvalue())
            self.saved = time.monotonic()
        if stop:
            raise self.signals.stopped(f"after {len(estimates['log_marginal']):,} images; they are saved")


def _probe_images(config, images):
    """Pair (images, labels) of the training split for the probes, or None."""
    if images.train.labels is None:
        return None
    pipeline = data.batches(images.train, BATCH, binarization=config.data.binarization, seed=SEED)
    batches = pipeline.take(-(-PROBE_IMAGES // BATCH)).as_numpy_iterator()
    return np.concatenate(list(batches))[:PROBE_IMAGES], images.train.labels[:PROBE_IMAGES]


@contextmanager
def _progress(console, text, total, enabled=True):
    """A bar on a terminal, and elsewhere a line now and then; gives the callable that sets how many are done."""
    columns = (TextColumn(text), BarColumn(), MofNCompleteColumn(), TextColumn("images"), TimeRemainingColumn())
    started = said = time.monotonic()
    first = None

    def advance(done):
        nonlocal said, first
        bar.update(task, completed=done)
        first = done if first is None else first
        now = time.monotonic()
        if not console.is_terminal and now - said > SECONDS and done > first:
            said = now
            left = duration((now - started) / (done - first) * (total - done))
            console.print(f"{text}: {done:,} of {total:,} images, {left} left")

    with Progress(*columns, console=console, transient=True, disable=not (enabled and console.is_terminal)) as bar:
        task = bar.add_task("", total=total)
        yield advance


def results_table(card, run):
    """The results of a run's card as an `output.Table`."""
    protocol, model = card["protocol"], card["model"]
    shape = run.facts.get("data", {}).get("event_shape")
    pixels = cards.pixels(protocol["binarization"], shape)
    seed = protocol["binarization_seed"]
    objective = f", prior {model['prior']}, objective {model['objective']}" if "objective" in model else ""
    beta = f", beta {model['beta']:g}" if "beta" in model else ""
    return output.Table(
        ("result", "value", "unit"),
        cards.rows(card),
        numbers=[1],
        title=f"{run.config.preset} on {protocol['dataset']} {protocol['split']}: {protocol['images']:,} "
        f"{kind_of(shape) if shape else 'image'}s "
        f"{protocol['pixels_sha256']}, {pixels}{'' if seed is None else f' of seed {seed}'}",
        caption=f"likelihood {model['likelihood']}{objective}{beta}; the loss is {model['loss']}; seed "
        f"{protocol['seed']}; " + ", ".join(f"{name} {version}" for name, version in card["versions"].items()),
    )


@contextmanager
def audit_progress(console):
    """A line that says which check of an audit is made; gives the callable for it. Shown on a terminal alone."""
    with console.status("audit") as status:
        yield lambda check: status.update(f"audit: {check}")
