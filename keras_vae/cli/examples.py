"""Commands that write examples and codes: generate, reconstruct, encode."""

from pathlib import Path

import click

from keras_vae import files
from keras_vae.cli.results import Results, open_run, prints_results, run_argument
from keras_vae.config import InputError
from keras_vae.presets import find_weights, weights_of
from keras_vae.quiet import import_tensorflow


@click.command()
@run_argument
@click.option("--count", type=click.IntRange(1), default=64, show_default=True, help="How many examples.")
@click.option("--label", type=click.IntRange(0), help="Of a model with labels: the class to draw.  [all in turn]")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the draws from the prior.")
@click.option("--to", type=click.Path(path_type=Path), help="A .png picture or an .npy array.  [RUN/generated.png]")
@prints_results
def generate(run, count, label, seed, to, console):
    """Draw examples from the prior of RUN, or of a trained model that comes with the package: mlp."""
    from keras_vae.runs import Run

    if not run.exists() and weights_of(str(run)):
        run, to = Run.open(find_weights(str(run), "mnist")), to or Path("generated.png")
    else:
        run = Run.open(run)
    to = _check_image_target(to or run.path / "generated.png")
    import_tensorflow()
    model = run.load_model()
    if not hasattr(model, "generate"):
        raise InputError(f"{run.path} holds an {type(model).__name__}, which has no prior to draw from. Use a VAE.")
    if label is not None and not model.takes_labels:
        raise InputError(f"{run.path} holds a {type(model).__name__}, which knows no classes. Leave out --label.")
    classes = None
    if model.takes_labels:
        classes = [number % model.condition.num_classes if label is None else label for number in range(count)]
    images = model.generate(count, seed, classes).numpy()
    if to.suffix == ".npy":
        return _write_array(images, to)
    from keras_vae import figures

    return _write_picture(figures.picture(images, run.value_range), to, count)


@click.command()
@run_argument
@click.option("--count", type=click.IntRange(1), default=32, show_default=True, help="How many test examples.")
@click.option("--to", type=click.Path(path_type=Path), help="A .png picture or an .npy array.  [RUN/reconstructed.png]")
@prints_results
def reconstruct(run, count, to, console):
    """Reconstruct test examples of RUN: a picture of originals with reconstructions, or an array of the latter."""
    to = to and _check_image_target(to)
    run, model, data = open_run(run)

    from keras_vae import figures, scoring

    to = to or run.path / "reconstructed.png"
    originals, labels = scoring.load_test_images(run.config, data)
    originals = originals[:count]
    images = model.reconstruct(originals, *([labels[:count]] if model.takes_labels else [])).numpy()
    if to.suffix == ".npy":
        return _write_array(images, to)
    return _write_picture(figures.picture(originals, run.value_range, over=images), to, len(images))


@click.command()
@run_argument
@click.option("--to", type=click.Path(path_type=Path), help="An .npz file.  [RUN/encoded.npz]")
@prints_results
def encode(run, to, console):
    """Encode the test examples of RUN: writes an .npz with z_mean and z_log_var (z of an autoencoder) and labels."""
    if to is not None and to.suffix != ".npz":
        raise InputError(f"Invalid value for --to: expected a file that ends in .npz. Received: {to}")
    run, model, data = open_run(run)
    import numpy as np

    from keras_vae import evaluation, scoring

    images, labels = scoring.load_test_images(run.config, data)
    codes = evaluation.batched(model.encode, images, *([labels] if model.takes_labels else []))
    heads = model.posterior.head_shapes((model.latent_dim,)) if hasattr(model, "prior") else ["z"]
    arrays = dict(zip(heads, codes if isinstance(codes, tuple) else [codes], strict=True))
    if labels is not None:
        arrays["labels"] = labels
    to = to or run.path / "encoded.npz"
    with files.writing(to) as file:
        np.savez(file, **arrays)
    shapes = {name: array.shape for name, array in arrays.items()}
    shown = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
    return Results({"path": to, "arrays": shapes}, [f"{to}: {shown}"])


def _check_image_target(path):
    if path.suffix not in (".png", ".npy"):
        raise InputError(f"Invalid value for --to: expected a file that ends in .png or .npy. Received: {path}")
    return path


def _write_array(examples, path):
    import numpy as np

    with files.writing(path) as file:
        np.save(file, examples)
    return _written(path, len(examples))


def _write_picture(picture, path, count):
    from keras_vae import plotting

    plotting.save_png(picture, path)
    return _written(path, count)


def _written(path, count):
    from keras_vae import output

    return Results({"path": path, "examples": count}, [f"{path}: {output.counted(count, 'example')}"])
