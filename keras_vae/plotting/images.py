"""Pictures of images: grids, and rows of them with labels. Pixels are drawn as stored."""

import math

import numpy as np

from keras_vae.plotting.style import (
    DPI,
    GREY,
    INK,
    LABEL,
    SMALL,
    TEST,
    TITLE,
    checked_vector,
    empty_figure,
    invalid,
    load_matplotlib,
    number_text,
    plain_axes,
    wrapped,
)

GAP = 170  # the pixel between images: neither the black nor the white of a digit


def image_grid(images, columns=None, gap=2):
    """Tiles images [n, h, w, c] in reading order, `gap` pixels apart: uint8 [H, W], or [H, W, 3] for c=3.

    The grid is near square unless the number of `columns` is given; what is left of the last row is white.

    >>> image_grid(np.zeros([6, 28, 28, 1])).shape
    (58, 88)
    """
    canvas = _tiled(_arranged(_pixels("images", images, "n h w c"), columns), gap)
    return canvas[:, :, 0] if canvas.shape[-1] == 1 else canvas


def samples(images, title="samples", columns=None, footnote=None):
    """Images [n, h, w, c] in a grid, in reading order; near square unless `columns` is given.

    >>> figure = samples(np.zeros([64, 28, 28, 1]), footnote="digits (fallback for MNIST)")
    """
    return _framed(_picture(_arranged(_pixels("images", images, "n h w c"), columns)), title, footnote)


def reconstructions(originals, reconstructions, corrupted=None, title="reconstructions", footnote=None):
    """Originals above their reconstructions, each [n, h, w, c]; about 12 images are readable.

    With `corrupted` [n, h, w, c] the rows are original, noisy, denoised.

    >>> x = np.zeros([10, 28, 28, 1])
    >>> figure = reconstructions(x, x, corrupted=x, title="denoising")
    """
    rows = {"originals": originals, "corrupted": corrupted, "reconstructions": reconstructions}
    rows = {name: _pixels(name, row, "n h w c") for name, row in rows.items() if row is not None}
    for name, row in rows.items():
        if row.shape != rows["originals"].shape:
            raise invalid(name, f"the shape of `originals`, {list(rows['originals'].shape)}", list(row.shape))
    names = ["original", "reconstruction"] if corrupted is None else ["original", "noisy", "denoised"]
    return _framed(_picture(np.stack(list(rows.values())), rows=names), title, footnote)


def interpolations(images, title="interpolations", footnote=None):
    """Rows of images [rows, steps, h, w, c] that lead from one end to another; both end columns are framed.

    >>> figure = interpolations(np.zeros([5, 11, 28, 28, 1]))
    """
    images = _pixels("images", images, "rows steps h w c")
    steps, gap = images.shape[1], 5
    axes = _picture(images, columns=["from"] + [""] * (steps - 2) + ["to"] * (steps > 1), gap=gap)
    height, width = axes.images[0].get_size()
    pitch = (width + gap) // steps
    for column in {0, steps - 1}:
        corner, size = (column * pitch - 2, -2), (pitch - gap + 3, height + 3)
        around = load_matplotlib().patches.Rectangle(corner, *size, fill=False, clip_on=False)
        axes.add_patch(around).set(edgecolor=TEST, linewidth=1.5)
    return _framed(axes, title, footnote)


def class_samples(images, class_names=None, title="samples of each class", footnote=None):
    """Samples [classes, n, h, w, c], one class a row; `class_names` are the rows' labels, or their numbers.

    >>> figure = class_samples(np.zeros([10, 8, 28, 28, 1]))
    """
    images = _pixels("images", images, "classes n h w c")
    names = [str(name) for name in (range(len(images)) if class_names is None else class_names)]
    if len(names) != len(images):
        raise invalid("class_names", f"{len(images)} names", names)
    return _framed(_picture(images, rows=names), title, footnote)


def traversals(images, dims, kl, values, base=None, title="latent traversals", footnote=None):
    """One latent dimension a row, moved through `values` while the others stay.

    Args:
        images: [rows, steps, h, w, c].
        dims, kl: [rows] the latent dimension of each row and its KL, or None for a KL that has no such parts.
        values: [steps] the values of z.
        base: [h, w, c] what the unmoved z decodes to, drawn at the left of each row, or None.

    >>> figure = traversals(np.zeros([2, 3, 28, 28, 1]), dims=[7, 0], kl=[3.1, 0.0], values=[-2, 0, 2])
    """
    images = _pixels("images", images, "rows steps h w c")
    names = [f"z[{dim:.0f}]" for dim in checked_vector("dims", dims, len(images))]
    if kl is not None:
        names = [
            f"{name}  {nats:.1f} nats" for name, nats in zip(names, checked_vector("kl", kl, len(images)), strict=True)
        ]
    columns = [number_text(z) for z in checked_vector("values", values, images.shape[1])]
    if base is not None:
        base = _pixels("base", np.asarray(base)[None], "n h w c")
        if base.shape[1:] != images.shape[2:]:
            raise invalid("base", f"shape {list(images.shape[2:])}", f"shape {list(base.shape[1:])}")
        images = np.concatenate([np.broadcast_to(base, (len(images), *base.shape)), images], axis=1)
        columns = ["base", *columns]
    return _framed(_picture(images, rows=names, columns=columns), title, footnote)


def manifold(images, ticks, row_ticks=None, title="decoded latent plane", footnote=None):
    """A two-dimensional latent space, decoded on a lattice: z[0] grows to the right and z[1] grows upward.

    Args:
        images: [rows, columns, h, w, c]; `images[i, j]` is decoded from z = (ticks[j], row_ticks[i]), the order of
            `np.meshgrid(ticks, row_ticks)`. Row 0 is therefore drawn at the bottom.
        ticks: [columns] increasing values of z[0], evenly spaced or not; about five of them are written.
        row_ticks: [rows] increasing values of z[1]; `ticks` by default.

    >>> figure = manifold(np.zeros([3, 3, 28, 28, 1]), ticks=[-1.2, 0.0, 1.2])
    """
    images = _pixels("images", images, "rows columns h w c")
    labels = []
    for name, z, length in (("ticks", ticks, images.shape[1]), ("row_ticks", row_ticks, images.shape[0])):
        z = checked_vector(name, ticks if z is None else z, length)
        if np.any(np.diff(z) <= 0):
            raise invalid(name, "increasing values", z.tolist())
        chosen = np.linspace(0, length - 1, min(length, 5)).round()
        labels.append([number_text(value) if index in chosen else "" for index, value in enumerate(z)])
    axes = _picture(images[::-1], rows=labels[1][::-1], columns=labels[0], gap=0, columns_at="bottom")
    plain_axes(axes, "z[0]", "z[1]").tick_params(length=3)
    return _framed(axes, title, footnote)


def _pixels(name, images, layout):
    """Checked images as uint8; `layout` names the axes, e.g. "n h w c"."""
    images = np.asarray(images)
    expected = f"pixels in [0, 1] of shape [{layout.replace(' ', ', ')}] with c=1 or c=3"
    if images.ndim != len(layout.split()) or images.shape[-1] not in (1, 3) or not images.size:
        raise invalid(name, expected, f"shape {list(images.shape)}")
    images = images.astype(np.float32)
    low, high = images.min(), images.max()  # NaN if any pixel is
    if not (low >= -1e-5 and high <= 1 + 1e-5):  # the slack is for rounding; it is far below one level
        raise invalid(name, expected, f"values from {low} to {high}")
    return np.round(255 * images).astype(np.uint8)


def _arranged(images, columns):
    """[n, h, w, c] -> [rows, columns, h, w, c]; the last row is filled up with white."""
    count = len(images)
    if columns is None:
        near = math.ceil(math.sqrt(count))
        columns = next((k for k in range(near, 2 * near) if count % k == 0), near)  # a full last row if there is one
    if columns != int(columns) or columns < 1:
        raise invalid("columns", "an integer of at least 1", columns)
    rows = math.ceil(count / columns)
    images = np.pad(images, [(0, rows * columns - count), (0, 0), (0, 0), (0, 0)], constant_values=255)
    return images.reshape(rows, columns, *images.shape[1:])


def _tiled(images, gap):
    """[rows, columns, h, w, c] -> [H, W, c] with `gap` pixels between images and none around them."""
    rows, columns, height, width, channels = images.shape
    height, width = height + gap, width + gap
    images = np.pad(images, [(0, 0), (0, 0), (0, gap), (0, gap), (0, 0)], constant_values=GAP)
    canvas = images.transpose(0, 2, 1, 3, 4).reshape(rows * height, columns * width, channels)
    return canvas[: rows * height - gap, : columns * width - gap]


def _picture(images, rows=(), columns=(), gap=3, columns_at="top"):
    """Axes that hold uint8 images [rows, columns, h, w, c] as one picture, every pixel enlarged by a whole number.

    `rows` and `columns` are their labels, "" for none; labels that would touch are thinned out.
    """
    height, width = images.shape[2:4]
    zoom = max(1, min(1050 // (images.shape[1] * width), 1050 // (images.shape[0] * height), 170 // max(height, width)))
    canvas = _tiled(images.repeat(zoom, axis=2).repeat(zoom, axis=3), gap)
    canvas = np.broadcast_to(canvas, (*canvas.shape[:2], 3))  # a grey colour map would round some levels
    figure = empty_figure(canvas.shape[1] / DPI, canvas.shape[0] / DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(canvas, interpolation="nearest", aspect="auto")
    axes.spines[:].set_visible(False)
    _mark(axes.yaxis, rows, height * zoom, gap, needed=1.5 * LABEL)
    _mark(axes.xaxis, columns, width * zoom, gap, needed=0.7 * LABEL * max(map(len, columns), default=0))
    axes.tick_params(length=0, labelsize=LABEL, labelcolor=GREY)
    axes.tick_params(axis="x", labeltop=columns_at == "top", labelbottom=columns_at == "bottom")
    return axes


def _mark(axis, labels, size, gap, needed):
    """Writes labels at the centres of tiles; where they are closer than `needed` points, only each k-th."""
    shown = [index for index, label in enumerate(labels) if label]
    closest = min(np.diff(shown), default=len(labels)) * (size + gap) * 72 / DPI
    shown = shown[:: math.ceil(needed / closest)] if shown else []
    axis.set_ticks([index * (size + gap) + (size - 1) / 2 for index in shown], labels=[labels[k] for k in shown])


def _framed(axes, title, footnote):
    """Grows the figure around its only axes, whose pixels stay as they are, and writes title and footnote."""
    figure, edge = axes.figure, round(0.12 * DPI)
    size = axes.bbox.size.round()
    inches = max(size[0] / DPI, 3)
    axes.set_title(wrapped(title, inches, TITLE), fontsize=TITLE, color=INK, loc="left", pad=8, parse_math=False)
    if footnote:
        below = axes.get_tightbbox(figure.canvas.get_renderer()).y0 * 72 / DPI - 8
        place = {"xycoords": "axes fraction", "textcoords": "offset points", "va": "top", "parse_math": False}
        axes.annotate(wrapped(footnote, inches, SMALL), (0, 0), (0, below), fontsize=SMALL, color=GREY, **place)
    box = axes.get_tightbbox(figure.canvas.get_renderer())
    corner = edge + np.ceil([-box.x0, -box.y0])
    whole = corner + np.ceil([box.x1, box.y1]) + edge
    figure.set_size_inches(whole / DPI)
    axes.set_position((*(corner / whole), *(size / whole)))
    return figure
