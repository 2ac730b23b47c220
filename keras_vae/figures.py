"""The figures of a run: what a model does to images, handed to `keras_vae.plotting` as arrays."""

from statistics import NormalDist

import numpy as np
import tensorflow as tf

from keras_vae import files, installed, plotting
from keras_vae.evaluation import batched, latent_statistics

SEED = 0  # of the samples in the figures: the same for every run, so that runs can be compared by eye


def draw_figures(model, images, labels, directory, *, class_names=None, history=None, footnote=None):
    """Draws every figure that fits the model, as PNG files.

    Args:
        model: A trained model of this package.
        images: Float32 [n, h, w, c], test images in [0, 1].
        labels: Int [n], or None where there are none and the model does not ask.
        directory: Folder to write into; made if it is not there.
        class_names: Names of the classes, or None.
        history: Losses by epoch, as `Run.read_history` gives them, or None.
        footnote: Small print of each figure: which run, which data.

    Returns:
        List of the paths written.
    """
    installed.need("matplotlib", "sklearn")
    files.make_folder(directory)
    figures = dict(_all_figures(model, images, labels, class_names, history, footnote))
    for name, figure in figures.items():
        plotting.save(figure, directory / f"{name}.png")
    return [directory / f"{name}.png" for name in figures]


def _all_figures(model, images, labels, class_names, history, footnote):
    """Yields (file name, Figure)."""
    is_vae = hasattr(model, "generate")
    given = [labels] if model.takes_labels else []
    shown, label = images[:12], [values[:12] for values in given]
    if history is not None:
        yield "training_curves", plotting.training_curves(history, footnote=footnote)
    if is_vae or model.corruption is None:
        reconstructed = pictures(model.reconstruct(shown, *label))
        yield "reconstructions", plotting.reconstructions(shown, reconstructed, footnote=footnote)
    else:
        noisy = pictures(model.corrupt(shown))
        restored = pictures(model.reconstruct(noisy))
        yield "denoising", plotting.reconstructions(shown, restored, noisy, title="denoising", footnote=footnote)

    start, end = _pairs(images, labels, count=6, apart=0 if given else 1)
    lines = model.interpolate(start, end, condition=labels[:6] if given else None)
    yield "interpolations", plotting.interpolations(pictures(lines), footnote=footnote)

    codes = batched(model.code, images, *given)
    yield "latent_space", _latent_space(codes, labels, class_names, footnote)
    if not is_vae:
        return

    yield "samples", _samples(model, class_names, footnote)
    z_mean = codes
    active, kl = latent_statistics(model, images, labels, seed=SEED)
    by_dimension = len(kl) == len(active)  # a mixture as the prior takes it in one part
    options = {"active": active} if by_dimension else {"title": "KL, which this prior takes in these parts"}
    yield "kl_per_dimension", plotting.kl_per_dimension(kl, footnote=footnote, **options)

    def decode(z):
        return pictures(model.decode(z, *(np.full(len(z), values[0]) for values in given)))

    yield "traversals", _traversals(decode, z_mean, kl if by_dimension else None, footnote)
    if z_mean.shape[1] == 2:
        yield "manifold", plotting.manifold(*decode_plane(decode, side=20), footnote=footnote)


def _samples(model, class_names, footnote, columns=10):
    """Samples from the prior; of a conditional model a row for each class."""
    if not model.takes_labels:
        images = pictures(model.generate(100, seed=SEED))
        return plotting.samples(images, title="samples from the prior", footnote=footnote)
    classes = np.arange(model.condition.num_classes)
    images = pictures(model.generate(len(classes) * columns, SEED, np.repeat(classes, columns)))
    names = class_names if class_names and len(class_names) == len(classes) else None
    return plotting.class_samples(images.reshape(len(classes), columns, *images.shape[1:]), names, footnote=footnote)


def _pairs(images, labels, count, apart):
    """`count` pairs of images to interpolate between, of classes that are `apart` where there are labels."""
    first = list(range(min(count, len(images))))
    if labels is None:
        return images[first], images[[(index + count) % len(images) for index in first]]
    last = [next((i for i in range(count, len(images)) if labels[i] == (labels[f] + apart) % 10), -1) for f in first]
    return images[first], images[last]


def _latent_space(codes, labels, class_names, footnote):
    """The codes in the plane: as they are, or projected where there are more than two dimensions."""
    projection = None
    if codes.shape[1] > 2:
        from sklearn.decomposition import PCA

        projection = f"PCA of {codes.shape[1]} dimensions"
        codes = PCA(2).fit_transform(codes)
    elif codes.shape[1] == 1:
        projection = "the one dimension, and the order of the images"
        codes = np.stack([codes[:, 0], np.linspace(0, 1, len(codes))], axis=1)
    return plotting.latent_space(codes, labels, class_names, projection=projection, footnote=footnote)


def _traversals(decode, z_mean, kl, footnote, rows=8, steps=11):
    """The first image's code with one dimension at a time moved from -3 to 3: those of the highest KL, or variance."""
    z = z_mean[0]
    dims = np.argsort(z_mean.var(axis=0) if kl is None else kl)[::-1][:rows]
    values = np.linspace(-3, 3, steps)
    codes = np.tile(z.astype("float32"), (len(dims), steps, 1))  # (rows, steps, d)
    for row, dim in enumerate(dims):
        codes[row, :, dim] = values
    images = decode(codes.reshape(-1, len(z)))
    images = images.reshape(len(dims), steps, *images.shape[1:])
    base = decode(z[None].astype("float32"))[0]
    title = f"traversals of the dimensions with the highest {'variance' if kl is None else 'KL'}"
    kl = None if kl is None else kl[dims]
    return plotting.traversals(images, dims, kl, values, base, title=title, footnote=footnote)


def decode_plane(decode, side):
    """The latent plane at the quantiles of the standard normal, so that each image stands for equal probability.

    Args:
        decode: Callable, z [n, 2] -> images [n, h, w, c].
        side: Int, images in a row.

    Returns:
        Pair (images [side, side, h, w, c], z[0] along the columns and z[1] along the rows; ticks [side]).
    """
    ticks = np.array([NormalDist().inv_cdf((i + 0.5) / side) for i in range(side)], "float32")
    columns, rows = np.meshgrid(ticks, ticks)
    images = pictures(decode(np.stack([columns, rows], axis=-1).reshape(-1, 2)))
    return images.reshape(side, side, *images.shape[1:]), ticks


def pictures(images):
    """Tensor -> array to be drawn: means of p(x|z) may leave [0, 1], and pictures cannot."""
    return np.clip(tf.convert_to_tensor(images).numpy(), 0.0, 1.0)
