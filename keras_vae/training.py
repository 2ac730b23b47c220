"""The main job: train, evaluate, draw, export, all into one run directory."""

import math
import time
from contextlib import contextmanager

import keras
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from keras_vae import data, evaluation, serving
from keras_vae.callbacks import ImageGrids, ProgressReport, duration
from keras_vae.config import InputError
from keras_vae.figures import draw_figures
from keras_vae.models import NonFiniteLossError, build_model
from keras_vae.runs import Run, check_new, open_data, write_json

EVALUATION_BATCH = 500


def train(config, run_dir=None, console=None):
    """Trains the model of a config and leaves a complete run directory.

    Args:
        config: A `keras_vae.config.Config`.
        run_dir: Where to; None for `runs/<preset>-<time>`.
        console: A `rich.console.Console` for the report, or None for the standard output.

    Returns:
        The `Run`.

    Raises:
        InputError: for bad input, before anything is written.
        NonFiniteLossError: if the loss becomes NaN or infinite; model.keras then holds the weights before that.
    """
    console = console or Console(highlight=False, soft_wrap=True)
    started = time.monotonic()
    if run_dir is not None:
        check_new(run_dir)
    images = open_data(config)
    config = config.replace(dataset=images.name) if config.data.dataset == "auto" else config
    keras.utils.set_random_seed(config.training.seed)
    model = _build(config, images)
    # model.keras holds the weights and two optimizer slots for each; figures and logs take a few MB more
    run = Run.create(run_dir, config, _facts(images), required_bytes=2e7 + 4 * 4 * model.count_params())
    _announce(console, run, images, model)

    steps = math.ceil(len(images.train) / config.training.batch_size)
    model.compile(optimizer=_optimizer(config.training, steps))
    pipeline = {"binarization": config.data.binarization, "seed": config.training.seed}
    test_batches = data.batches(images.test, EVALUATION_BATCH, **pipeline)
    progress = ProgressReport(len(images.train), console)
    callbacks = [
        progress,
        keras.callbacks.CSVLogger(run.path / "history.csv"),
        keras.callbacks.TensorBoard(run.path / "tensorboard", write_graph=False),
        ImageGrids(
            _picture(model, images, config),
            run.path / "samples",
            run.path / "tensorboard" / "images",
            every=config.training.sample_every,
        ),
    ]
    try:
        model.fit(
            data.batches(images.train, config.training.batch_size, shuffle=True, **pipeline),
            validation_data=test_batches,
            epochs=config.training.epochs,
            callbacks=callbacks,
            verbose=0,
        )
    except NonFiniteLossError as error:
        save_model(model, run)
        raise NonFiniteLossError(f"{error} They are in {run.path / 'model.keras'}.") from None
    finally:
        progress.stop()
    save_model(model, run)
    console.print(f"Trained in {duration(time.monotonic() - started)}.")

    evaluate(run, model, images, console)
    draw(run, model, images)
    console.print(f"Figures: {run.path / 'figures'}")
    serving.export_saved_models(model, run.path / "export", binarization=config.data.binarization)
    console.print(f"SavedModels of the encoder and the decoder: {run.path / 'export'}")
    _warn_of_fallback(console, images)
    console.print(f"Done in {duration(time.monotonic() - started)}. Run directory: {run.path}")
    return run


def evaluate(run, model, images, console, samples=None, count=None):
    """Scores the model of a run on its test split, writes evaluation.json and prints it as a table.

    Args:
        run: The `Run`.
        model: Its model.
        images: Its data, an `ImageSet`.
        console: A `rich.console.Console`.
        samples: Int, importance samples for each image; None for what the config says.
        count: Int, on how many test images, from the first on; None for what the config says.

    Returns:
        Dict: the content of evaluation.json.
    """
    training = run.config.training
    samples = training.nll_samples if samples is None else samples
    pixels, _ = load_test_images(run.config, images)
    total = min(count or training.nll_images, len(pixels))
    with _bar(console, "importance sampling", total, enabled=samples > 0) as advance:
        results = evaluation.evaluate(
            model, pixels, nll_samples=samples, nll_images=total, seed=training.seed, progress=advance
        )
    protocol = {
        "dataset": images.name,
        "split": "test",
        "images": len(pixels),
        "pixels_sha256": evaluation.pixel_hash(pixels),
        "binarization": run.config.data.binarization,
        "seed": training.seed,
        "beta": run.config.model.beta,
        "likelihood": run.config.model.likelihood,
    }
    card = {"protocol": protocol, "results": results}
    write_json(run.path / "evaluation.json", card)
    console.print(_results_table(card, run))
    return card


def draw(run, model, images):
    """Draws the figures of a run into its folder figures/."""
    pixels, labels = load_test_images(run.config, images)
    history = run.path / "history.csv"
    return draw_figures(
        model,
        pixels,
        labels,
        run.path / "figures",
        class_names=images.class_names,
        history=history if history.is_file() else None,
        footnote=_footnote(run, images),
    )


def load_test_images(config, images):
    """The test split as it is evaluated: (float32 [n, h, w, c] in [0, 1], binarised; int [n] labels or None)."""
    pipeline = data.batches(
        images.test, EVALUATION_BATCH, binarization=config.data.binarization, seed=config.training.seed
    )
    return np.concatenate(list(pipeline.as_numpy_iterator())), images.test.labels


def save_model(model, run):
    """Writes model.keras so that there is either the whole file or none."""
    temporary = run.path / ".model.keras"
    model.save(temporary)
    temporary.replace(run.path / "model.keras")


def _build(config, images):
    try:
        model = build_model(config.model, images.image_shape, seed=config.training.seed)
    except ValueError as error:
        raise InputError(str(error)) from None
    if config.model.output_bias == "data_mean":
        some = images.train.images[np.arange(min(10_000, len(images.train)))]
        model.start_at_mean(data.to_pixels(some).mean(axis=0))
    return model


def _optimizer(training, steps_per_epoch):
    rate = training.learning_rate
    if training.schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(rate, training.epochs * steps_per_epoch)
    optimizers = {
        "adam": keras.optimizers.Adam,
        "adamw": keras.optimizers.AdamW,
        "rmsprop": keras.optimizers.RMSprop,
        "sgd": keras.optimizers.SGD,
    }
    return optimizers[training.optimizer](learning_rate=rate)


def _picture(model, images, config):
    """What is drawn during training: samples of a VAE, reconstructions of an autoencoder, always of the same seed."""
    if hasattr(model, "generate"):
        return lambda: model.generate(64, seed=config.training.seed)
    shown = data.to_pixels(images.test.images[:64])
    return lambda: model.reconstruct(shown)


def _facts(images):
    return {
        "data": {
            "name": images.name,
            "source": images.source,
            "fallback": images.fallback,
            "image_shape": list(images.image_shape),
            "train_images": len(images.train),
            "test_images": len(images.test),
        }
    }


def _footnote(run, images):
    pixels = {"none": "grey pixels"}.get(run.config.data.binarization, f"{run.config.data.binarization} binarisation")
    fallback = " (bundled, in place of mnist)" if images.fallback else ""
    return f"preset {run.config.preset}, {images.name}{fallback}, test split, {pixels}"


def _announce(console, run, images, model):
    _warn_of_fallback(console, images)
    height, width, channels = images.image_shape
    console.print(
        f"{run.config.preset}: {type(model).__name__} with {model.count_params():,} parameters, "
        f"{model.latent_dim} latent dimensions"
    )
    console.print(
        f"{images.name}: {len(images.train):,} training and {len(images.test):,} test images of "
        f"{height}x{width}x{channels}, from {images.source}"
    )


def _warn_of_fallback(console, images):
    if images.fallback:
        console.print(
            f"[bold red]NOT MNIST:[/] this run uses the {len(images.train) + len(images.test):,} bundled digits, "
            f"because mnist cannot be had. {images.fallback}",
        )


@contextmanager
def _bar(console, text, total, enabled=True):
    """A progress bar on a terminal; gives the callable that sets how many are done."""
    columns = (TextColumn(text), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not (enabled and console.is_terminal)) as bar:
        task = bar.add_task("", total=total)
        yield lambda done: bar.update(task, completed=done)


def _results_table(card, run):
    protocol, results = card["protocol"], card["results"]
    table = Table(
        title=f"{run.config.preset} on {protocol['dataset']} {protocol['split']}: {protocol['images']:,} images, "
        f"binarisation {protocol['binarization']}"
    )
    table.add_column("result")
    table.add_column("value", justify="right")
    table.add_column("unit")
    units = {"mse": "per pixel", "corrupted_mse": "per pixel", "restored_mse": "per pixel", "scale": "pixel"}
    for name, value in results.items():
        if isinstance(value, list):
            continue
        counts = isinstance(value, int) or name == "zero_codes"
        unit = "" if counts else units.get(name, "nats per image")
        table.add_row(
            name, f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if abs(value) < 1 else f"{value:.2f}", unit
        )
    return table
