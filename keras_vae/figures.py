"""The figures of a run: what a model does to examples, handed to `keras_vae.plotting` as arrays.

Images become pictures, sequences curves; vectors become histograms, and curves over their columns.
"""

from statistics import NormalDist

import numpy as np
import tensorflow as tf

from keras_vae import files, installed, plotting
from keras_vae.evaluation import batched, latent_statistics
from keras_vae.event_shapes import kind_of

SEED = 0  # of the samples in the figures: the same for every run, so that runs can be compared by eye
DRAWN = 1000  # examples drawn from the model, to stand beside as many of the test split
CURVES = 16  # panels of curves in a picture


def draw_figures(
    model, images, labels, directory, *, class_names=None, history=None, footnote=None, value_range=(0.0, 1.0)
):
    """Draws every figure that fits the model, as PNG files.

    Args:
        model: A trained model of this package.
        images: Float32 [n, ...], test examples.
        labels: Int [n], or None where there are none and the model does not ask.
        directory: Folder to write into; made if it is not there.
        class_names: Names of the classes, or None.
        history: Losses by epoch, as `Run.read_history` gives them, or None.
        footnote: Small print of each figure: which run, which data.
        value_range: Pair, the lowest and the highest value of the data: what is black and what is white in an image.

    Returns:
        List of the paths written.
    """
    installed.need("matplotlib", "sklearn")
    files.make_folder(directory)
    figures = dict(_all_figures(model, images, labels, class_names, history, footnote, value_range))
    for name, figure in figures.items():
        plotting.save(figure, directory / f"{name}.png")
    return [directory / f"{name}.png" for name in figures]


def _all_figures(model, images, labels, class_names, history, footnote, value_range):
    """Yields (file name, Figure)."""
    is_vae = hasattr(model, "generate")
    if history is not None:
        yield "training_curves", plotting.training_curves(history, footnote=footnote)
    of_kind = _of_images if kind_of(images.shape[1:]) == "image" else _of_curves
    kl = active = None
    if is_vae:
        active, kl = latent_statistics(model, images, labels, seed=SEED)
    by_dimension = is_vae and len(kl) == len(active)  # a mixture as the prior takes it in one part
    codes = batched(model.code, images, *([labels] if model.takes_labels else []))
    yield from of_kind(model, images, labels, codes, kl if by_dimension else None, class_names, footnote, value_range)
    yield "latent_space", _latent_space(codes, labels, class_names, footnote)
    if is_vae:
        options = {"active": active} if by_dimension else {"title": "KL, which this prior takes in these parts"}
        yield "kl_per_dimension", plotting.kl_per_dimension(kl, footnote=footnote, **options)


def _of_images(model, images, labels, codes, kl, class_names, footnote, value_range):
    """Yields (file name, Figure) of what is drawn as images."""

    def shown_as(images):
        return pictures(images, value_range)

    def decode(z):
        return shown_as(model.decode(z, *(np.full(len(z), values[0]) for values in given)))

    given = [labels] if model.takes_labels else []
    shown, label = images[:12], [values[:12] for values in given]
    corruption = getattr(model, "corruption", None)
    if corruption is None:
        reconstructed = shown_as(model.reconstruct(shown, *label))
        yield "reconstructions", plotting.reconstructions(shown_as(shown), reconstructed, footnote=footnote)
    else:
        noisy = model.corrupt(shown)
        rows = [shown_as(each) for each in (shown, model.reconstruct(noisy), noisy)]
        yield "denoising", plotting.reconstructions(*rows, title="denoising", footnote=footnote)
    yield "interpolations", plotting.interpolations(shown_as(_lines(model, images, labels)), footnote=footnote)
    if hasattr(model, "generate"):
        yield "samples", _samples(model, class_names, footnote, shown_as)
        yield "traversals", _traversals(decode, codes, kl, footnote)
        if codes.shape[1] == 2:
            yield "manifold", plotting.manifold(*decode_plane(decode, side=20), footnote=footnote)


def _of_curves(model, x, labels, codes, kl, class_names, footnote, value_range):
    """Yields (file name, Figure) of what is drawn as curves and histograms: sequences and vectors."""
    is_vector = x.ndim == 2
    given = [labels] if model.takes_labels else []
    over = ", value by column" if is_vector else ""
    shown = x[:12]
    damaged = shown if getattr(model, "corruption", None) is None else model.corrupt(shown)
    restored = model.reconstruct(damaged, *(values[:12] for values in given))
    name = "reconstructions" if damaged is shown else "denoising"
    curves = plotting.curve_panels(as_curves(damaged), as_curves(restored), title=f"{name}{over}", footnote=footnote)
    yield name, curves
    lines = _lines(model, x, labels).numpy()
    names = [f"pair {index + 1}" for index in range(len(lines))]
    lines = lines.reshape(*lines.shape[:2], *as_curves(x[:1]).shape[1:])
    title = f"interpolations{over}"
    yield "interpolations", plotting.curve_families(lines, names, title=title, footnote=footnote)
    if not hasattr(model, "generate"):
        return
    drawn = draw_examples(model, len(x[:DRAWN]), labels)
    title = "test split and draws from the model"
    if is_vector:
        yield "samples", plotting.histograms(x[:DRAWN], drawn, title=title, footnote=footnote)
    else:
        bundles = {"test": x[:100], "drawn": drawn[:100]}
        yield "samples", plotting.curve_bundles(bundles, title=title, footnote=footnote)
    dims, values, z = _moved(codes, kl)
    decoded = model.decode(z.reshape(-1, z.shape[-1]), *(np.full(z[..., 0].size, values[0]) for values in given))
    decoded = as_curves(decoded)
    decoded = decoded.reshape(*z.shape[:2], *decoded.shape[1:])
    names = [f"z[{dim}]" if kl is None else f"z[{dim}]  {kl[dim]:.1f} nats" for dim in dims]
    options = {"title": f"{_traversal_title(kl)}{over}", "footnote": footnote}
    yield "traversals", plotting.curve_families(decoded, names, values, **options)


def draw_examples(model, count, labels=None, seed=SEED):
    """Examples drawn from the model of a VAE: z from the prior, x from p(x|z).

    Args:
        model: The model.
        count: Int, n.
        labels: Int [m], from which the labels are taken in turn, of a model that takes them.
        seed: Int seed.

    Returns:
        Float32 array [n, ...].
    """
    z = model.lowest(model.prior.sample(count, seed))
    given = [] if not model.takes_labels else [model.condition.tensor(np.resize(labels, count), count)]
    params = model.decoder([z, *given] if given else z, training=False)
    return np.asarray(model.likelihood.sample(tf.cast(params, "float32"), seed))


def picture(examples, value_range=(0.0, 1.0), columns=None, over=None):
    """Examples of any event shape as one picture: a grid of images, or a panel for each curve.

    Args:
        examples: Float [n, ...]: images, or sequences and vectors.
        value_range: Pair, the lowest and the highest value of the data: what is black and what is white in an image.
        columns: Int, how many stand in a row, or None.
        over: Float [n, ...], reconstructions: below each row of images, or drawn over the curves; or None.

    Returns:
        Uint8 [H, W] or [H, W, 3].

    Example:

    >>> import numpy as np
    >>> from keras_vae.figures import picture
    >>> picture(np.zeros((4, 28, 28, 1))).shape
    (58, 58)
    """
    if kind_of(np.shape(examples)[1:]) != "image":
        curves = [as_curves(each[: 64 if columns else CURVES]) for each in (examples, over) if each is not None]
        return plotting.rasterized(plotting.curve_panels(*curves, columns=columns, title=f"{len(curves[0])} examples"))
    if over is None:
        return plotting.image_grid(pictures(examples, value_range), columns)
    columns = min(columns or 16, len(examples))
    missing = -len(examples) % columns  # blank tiles, so that the last row of originals is as long as the others
    rows = [np.pad(pictures(each, value_range), [(0, missing), (0, 0), (0, 0), (0, 0)]) for each in (examples, over)]
    rows = [each.reshape(-1, columns, *each.shape[1:]) for each in rows]
    return plotting.image_grid(np.stack(rows, axis=1).reshape(-1, *rows[0].shape[2:]), columns)


def as_curves(x):
    """Sequences [n, t, f] as they are; vectors [n, d] as curves [n, d, 1] over their columns."""
    x = np.asarray(x)
    return x[..., None] if x.ndim == 2 else x


def _lines(model, images, labels):
    """Decoded lines between six pairs of examples: [6, steps, ...]."""
    start, end = _pairs(images, labels, count=6, apart=0 if model.takes_labels else 1)
    return model.interpolate(start, end, condition=labels[: len(start)] if model.takes_labels else None)


def _samples(model, class_names, footnote, shown_as, columns=10):
    """Samples from the prior; of a conditional model a row for each class."""
    if not model.takes_labels:
        images = shown_as(model.generate(100, seed=SEED))
        return plotting.samples(images, title="samples from the prior", footnote=footnote)
    classes = np.arange(model.condition.num_classes)
    images = shown_as(model.generate(len(classes) * columns, SEED, np.repeat(classes, columns)))
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


def _moved(z_mean, kl, rows=8, steps=11):
    """The first example's code with one dimension at a time moved from -3 to 3: those of the highest KL, or variance.

    Returns:
        Triple (dims [rows], values [steps], z float32 [rows, steps, d]).
    """
    dims = np.argsort(z_mean.var(axis=0) if kl is None else kl)[::-1][:rows]
    values = np.linspace(-3, 3, steps)
    z = np.tile(z_mean[0].astype("float32"), (len(dims), steps, 1))
    for row, dim in enumerate(dims):
        z[row, :, dim] = values
    return dims, values, z


def _traversal_title(kl):
    return f"traversals of the dimensions with the highest {'variance' if kl is None else 'KL'}"


def _traversals(decode, z_mean, kl, footnote):
    dims, values, z = _moved(z_mean, kl)
    images = decode(z.reshape(-1, z.shape[-1]))
    images = images.reshape(*z.shape[:2], *images.shape[1:])
    base = decode(z_mean[:1].astype("float32"))[0]
    nats = None if kl is None else kl[dims]
    return plotting.traversals(images, dims, nats, values, base, title=_traversal_title(kl), footnote=footnote)


def decode_plane(decode, side):
    """The latent plane at the quantiles of the standard normal, so that each image stands for equal probability.

    Args:
        decode: Callable, z [n, 2] -> images [n, h, w, c], an array to be drawn.
        side: Int, images in a row.

    Returns:
        Pair (images [side, side, h, w, c], z[0] along the columns and z[1] along the rows; ticks [side]).
    """
    ticks = np.array([NormalDist().inv_cdf((i + 0.5) / side) for i in range(side)], "float32")
    columns, rows = np.meshgrid(ticks, ticks)
    images = np.asarray(decode(np.stack([columns, rows], axis=-1).reshape(-1, 2)))
    return images.reshape(side, side, *images.shape[1:]), ticks


def pictures(images, value_range=(0.0, 1.0)):
    """Images [..., h, w, c] as arrays to be drawn: pixels in [0, 1], one channel or three.

    Values are scaled so that `value_range` is black to white, and clipped: means of p(x|z) may leave it, and pictures
    cannot. Channels that are no colours, two of them or more than three, stand side by side.
    """
    low, high = value_range
    images = np.clip((tf.convert_to_tensor(images).numpy() - low) / max(high - low, 1e-9), 0.0, 1.0)
    if images.shape[-1] in (1, 3):
        return images
    return np.moveaxis(images, -1, -2).reshape(*images.shape[:-2], -1, 1)
