"""Pictures of what a model has learnt: numpy arrays in, `matplotlib.figure.Figure` out.

The only module that imports matplotlib; it knows no model. It uses the object interface alone: nothing is registered
with pyplot, so no display is needed and a figure that is dropped is freed.

Images are [n, h, w, c] or [rows, columns, h, w, c], float pixels in [0, 1], c in {1, 3}, and are drawn as stored: at
the default resolution a pixel is a block of whole pixels of the PNG. Losses and KL divergences are in nats. `footnote`
is small text below everything, e.g. "preset mlp, mnist test, grey pixels".

Raises: every function raises ValueError for arguments of a wrong shape, pixels outside [0, 1] and NaN, except that
`training_curves` draws a diverged run with gaps where it is not finite.
"""

import io
import itertools
import math
import pathlib
import textwrap
import warnings

import numpy as np
from PIL import Image

PALETTE = "#1f77b4 #ff7f0e #2ca02c #d62728 #9467bd #8c564b #e377c2 #7f7f7f #bcbd22 #17becf".split()
TRAIN, TEST = PALETTE[:2]
# titles; secondary text; spines and inactive bars: to be read on white and on black, for a saved figure is transparent
INK, GREY, FAINT = "#767d86", "#7b828a", "#a9afb6"
GAP = 170  # the pixel between images: neither the black nor the white of a digit
DPI = 120
TITLE, LABEL, SMALL = 12, 9, 8  # points
PANELS = {"loss": "loss", "reconstruction": "reconstruction_loss", "KL": "kl_loss"}  # of training curves


def image_grid(images, columns=None, gap=2):
    """Tiles images [n, h, w, c] in reading order, `gap` pixels apart: uint8 [H, W], or [H, W, 3] for c=3.

    The grid is near square unless the number of `columns` is given; what is left of the last row is white.

    >>> image_grid(np.zeros([6, 28, 28, 1])).shape
    (58, 88)
    """
    canvas = _tiled(_arranged(_pixels("images", images, "n h w c"), columns), gap)
    return canvas[:, :, 0] if canvas.shape[-1] == 1 else canvas


def save_png(array, path):
    """Writes a uint8 array, [H, W] or [H, W, 3], as a PNG; a file already there is replaced whole or not at all."""
    array = np.asarray(array)
    if array.dtype != np.uint8 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)) or not array.size:
        raise _invalid("array", "uint8 [H, W] or [H, W, 3]", f"{array.dtype} {list(array.shape)}")
    _write(path, lambda file: Image.fromarray(array).save(file, format="PNG"))


def save_animation(frames, path, milliseconds=250, at_most=60):
    """Writes PNG files of one size as an animated GIF that repeats; the last frame stays longer.

    Args:
        frames: Paths of the PNG files, in order. Where there are more than `at_most`, they are thinned out evenly.
            One that cannot be read, or has another size, is left out with a warning.
        path: A name that ends in .gif; a file already there is replaced whole or not at all.
        milliseconds: How long a frame is shown.
    """
    chosen = np.linspace(0, len(frames) - 1, min(len(frames), at_most)).round().astype(int)
    pictures = [picture for index in chosen if (picture := _opened(frames[index])) is not None]
    pictures = [picture for picture in pictures if picture.size == pictures[-1].size]
    if not pictures:
        raise _invalid("frames", "PNG files", [str(frame) for frame in frames])
    first, *others = pictures
    durations = [milliseconds] * len(others) + [6 * milliseconds]
    options = {"save_all": True, "append_images": others, "duration": durations, "loop": 0}
    _write(path, lambda file: first.save(file, format="GIF", **options), suffix=".gif")


def save(figure, path, dpi=DPI):
    """Writes a figure as a transparent PNG; a file already there is replaced whole or not at all.

    >>> import os, tempfile
    >>> save(samples(np.zeros([4, 8, 8, 1])), os.path.join(tempfile.mkdtemp(), "samples.png"))
    """
    _write(path, lambda file: figure.savefig(file, format="png", dpi=dpi, transparent=True))


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
            raise _invalid(name, f"the shape of `originals`, {list(rows['originals'].shape)}", list(row.shape))
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
        around = _matplotlib().patches.Rectangle(corner, *size, fill=False, clip_on=False)
        axes.add_patch(around).set(edgecolor=TEST, linewidth=1.5)
    return _framed(axes, title, footnote)


def class_samples(images, class_names=None, title="samples of each class", footnote=None):
    """Samples [classes, n, h, w, c], one class a row; `class_names` are the rows' labels, or their numbers.

    >>> figure = class_samples(np.zeros([10, 8, 28, 28, 1]))
    """
    images = _pixels("images", images, "classes n h w c")
    names = [str(name) for name in (range(len(images)) if class_names is None else class_names)]
    if len(names) != len(images):
        raise _invalid("class_names", f"{len(images)} names", names)
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
    names = [f"z[{dim:.0f}]" for dim in _vector("dims", dims, len(images))]
    if kl is not None:
        names = [f"{name}  {nats:.1f} nats" for name, nats in zip(names, _vector("kl", kl, len(images)), strict=True)]
    columns = [_number(z) for z in _vector("values", values, images.shape[1])]
    if base is not None:
        base = _pixels("base", np.asarray(base)[None], "n h w c")
        if base.shape[1:] != images.shape[2:]:
            raise _invalid("base", f"shape {list(images.shape[2:])}", f"shape {list(base.shape[1:])}")
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
        z = _vector(name, ticks if z is None else z, length)
        if np.any(np.diff(z) <= 0):
            raise _invalid(name, "increasing values", z.tolist())
        chosen = np.linspace(0, length - 1, min(length, 5)).round()
        labels.append([_number(value) if index in chosen else "" for index, value in enumerate(z)])
    axes = _picture(images[::-1], rows=labels[1][::-1], columns=labels[0], gap=0, columns_at="bottom")
    _plain(axes, "z[0]", "z[1]").tick_params(length=3)
    return _framed(axes, title, footnote)


def training_curves(history, title="training", footnote=None):
    """Loss, reconstruction and KL by epoch, on the training and the test set.

    Args:
        history: name -> list of floats, one an epoch: any of loss, reconstruction_loss, kl_loss and their val_
            counterparts, and `epoch` (1, 2, ... by default). Other names are ignored. Early epochs that are far
            above the others are left out of the scale, and the panel says so.

    >>> figure = training_curves({"loss": [210.0, 130.0, 120.0], "val_loss": [140.0, 125.0, 118.0]})
    """
    panels = {label: name for label, name in PANELS.items() if name in history or f"val_{name}" in history}
    if not panels:
        raise _invalid("history", "one of loss, reconstruction_loss, kl_loss, with or without val_", list(history))
    names = [prefix + name for name in panels.values() for prefix in ("", "val_") if prefix + name in history]
    epochs = _vector("history['epoch']", history.get("epoch", range(1, len(history[names[0]]) + 1)))
    curves = {name: _vector(f"history[{name!r}]", history[name], len(epochs), finite=False) for name in names}
    drawn = {
        label: [(epochs, curves[key], color) for key, color in ((name, TRAIN), (f"val_{name}", TEST)) if key in curves]
        for label, name in panels.items()
    }
    kinds = sorted({name.startswith("val_") for name in names})
    return _curves(drawn, {"test" if kind else "train": TEST if kind else TRAIN for kind in kinds}, title, footnote)


def compared_curves(histories, title="test split while training", footnote=None):
    """Loss, reconstruction and KL of several runs on the test set, by epoch, over each other.

    Args:
        histories: Dict: name of a run -> its history, as in `training_curves`. A panel shows the runs that have its
            curve; only the val_ curves are drawn.

    >>> figure = compared_curves({"a": {"val_loss": [130.0, 120.0]}, "b": {"val_loss": [125.0]}})
    """
    drawn, colors = {}, {}
    for (run, history), color in zip(histories.items(), itertools.cycle(PALETTE), strict=False):
        for label, name in PANELS.items():
            if f"val_{name}" in history:
                curve = _vector(f"histories[{run!r}]['val_{name}']", history[f"val_{name}"], finite=False)
                drawn.setdefault(label, []).append((np.arange(1, len(curve) + 1), curve, color))
                colors[run] = color
    if not drawn:
        raise _invalid("histories", "one of val_loss, val_reconstruction_loss, val_kl_loss in a run", histories)
    return _curves(drawn, colors, title, footnote)


def _curves(panels, legend, title, footnote):
    """Panels side by side, label -> list of (epochs, curve, color), in nats; `legend` is name -> color."""
    figure = _page(3.3 * len(panels) + 1.0, 3.4, title, footnote)
    longest = max(len(epochs) for drawn in panels.values() for epochs, *_ in drawn)
    style = {"linewidth": 1.6, "markersize": 4, "marker": "o" if longest <= 20 else None}
    for index, (label, drawn) in enumerate(panels.items()):
        axes = figure.add_subplot(1, len(panels), index + 1)
        _plain(axes, "epoch", "" if index else "nats per image")
        for epochs, curve, color in drawn:
            axes.plot(epochs, curve, color=color, **style)
        low, high, hidden = _readable_limits([curve for _, curve, _ in drawn])
        axes.set_ylim(low, high)
        axes.set_title(label, fontsize=LABEL + 1, color=INK, loc="left")
        if hidden is not None:
            axes.set_title(f"first epochs reach {hidden:.4g}", fontsize=SMALL, color=GREY, loc="right")
        axes.xaxis.set_major_locator(_matplotlib().ticker.MaxNLocator(nbins=6, integer=True))
        if longest == 1:
            axes.set(xlim=(epochs[0] - 1, epochs[0] + 1), xticks=epochs)
    _legend(axes, legend, **style)
    return figure


def latent_space(z, labels=None, class_names=None, title="latent space", projection=None, footnote=None):
    """Points of a plane, coloured by label; the few far outliers are left out of the view and counted.

    Args:
        z: [n, 2].
        labels: [n] numbers. If all are among 0 to 9 they are classes, each with its own colour of `PALETTE`, the
            same in every figure; otherwise they are drawn with a colour bar.
        class_names: names of the classes 0, 1, ... for the legend.
        projection: how z became a plane, e.g. "PCA of 20 dimensions"; without it the axes are z[0] and z[1].

    >>> figure = latent_space(np.eye(2), labels=[3, 8], projection="PCA of 20 dimensions")
    """
    z = np.asarray(z, np.float64)
    if z.ndim != 2 or z.shape[1] != 2 or not z.size or not np.isfinite(z).all():
        raise _invalid("z", "finite values [n, 2]", f"shape {list(z.shape)}, {np.sum(~np.isfinite(z))} not finite")
    labels = np.zeros(len(z)) if labels is None else _vector("labels", labels, len(z))
    classes = sorted(set(labels.tolist()))
    figure = _page(6.4, 5.6, title if projection is None else f"{title}: {projection}", footnote)
    names = ("z[0]", "z[1]") if projection is None else ("component 1", "component 2")
    axes = _plain(figure.add_subplot(), *names)
    order = np.random.default_rng(0).permutation(len(z))  # so that the last class does not cover the others
    style = {"s": float(np.clip(20000 / len(z), 5, 30)), "alpha": 0.55, "linewidths": 0, "rasterized": True}
    if np.isin(classes, range(len(PALETTE))).all():
        axes.scatter(*z[order].T, c=[PALETTE[int(label)] for label in labels[order]], **style)
        class_names = range(len(PALETTE)) if class_names is None else class_names
        if classes[-1] >= len(class_names):
            raise _invalid("class_names", f"a name for class {classes[-1]:g}", class_names)
        if len(classes) > 1:
            _legend(axes, {class_names[int(k)]: PALETTE[int(k)] for k in classes}, linestyle="", marker="o")
    else:
        bar = figure.colorbar(axes.scatter(*z[order].T, c=labels[order], cmap="viridis", **style), shrink=0.8)
        bar.solids.set_alpha(1)
        bar.outline.set_visible(False)
        bar.ax.tick_params(labelsize=SMALL, labelcolor=GREY, color=FAINT)
        bar.set_label("label", fontsize=LABEL, color=INK)

    limits = np.array([_without_outliers(values) for values in z.T])  # [2 axes, (low, high)]
    radius = 0.54 * max(np.diff(limits).max(), 1e-6)
    centre = limits.mean(axis=1)
    axes.set(xlim=(centre[0] - radius, centre[0] + radius), ylim=(centre[1] - radius, centre[1] + radius))
    axes.set_box_aspect(1)  # with limits of equal length: distances are true
    outside = np.sum(np.any(np.abs(z - centre) > radius, axis=1))
    if outside:
        axes.set_title(f"{outside} of {len(z)} points lie outside", fontsize=SMALL, color=GREY, loc="left")
    return figure


def kl_per_dimension(kl, threshold=None, active=None, title="KL per latent dimension", footnote=None):
    """Bars of the KL [d] of each latent dimension, the largest first, inactive ones in grey.

    Args:
        threshold: draws a line; without `active`, dimensions below it are the inactive ones.
        active: [d] booleans; their count joins the title.

    >>> figure = kl_per_dimension([0.0, 3.1, 2.4], active=[False, True, True])
    """
    kl = _vector("kl", kl)
    if active is not None:
        active = _vector("active", active, len(kl)).astype(bool)
        title = f"{title}: {active.sum()} of {len(kl)} active"
    else:
        active = kl >= (-np.inf if threshold is None else threshold)
    figure = _page(np.clip(0.27 * len(kl) + 1, 5, 10), 3.5, f"{title}, {kl.sum():.1f} nats in total", footnote)
    axes = _plain(figure.add_subplot(), "latent dimension" if len(kl) <= 40 else "rank of the latent dimension", "nats")
    order, ranks = np.argsort(-kl, kind="stable"), np.arange(1, len(kl) + 1)
    axes.bar(ranks, kl[order], width=0.75, color=[TRAIN if active[dim] else FAINT for dim in order])
    middle, half = (len(kl) + 1) / 2, max(len(kl), 8) / 2  # few bars stay slim
    axes.set_xlim(middle - half, middle + half)
    if len(kl) <= 40:  # more labels do not fit
        axes.set_xticks(ranks, [str(dim) for dim in order])
    axes.tick_params(axis="x", length=0)
    if threshold is not None:
        axes.axhline(threshold, color=GREY, linewidth=0.8, linestyle="--")
        beside = {"transform": axes.get_yaxis_transform(), "va": "center", "fontsize": SMALL, "color": GREY}
        axes.text(1.01, threshold, f"{threshold:g}", **beside)
    return figure


def _invalid(name, expected, received):
    return ValueError(f"Invalid value received for argument `{name}`. Expected {expected}. Received: {received}")


def _pixels(name, images, layout):
    """Checked images as uint8; `layout` names the axes, e.g. "n h w c"."""
    images = np.asarray(images)
    expected = f"pixels in [0, 1] of shape [{layout.replace(' ', ', ')}] with c=1 or c=3"
    if images.ndim != len(layout.split()) or images.shape[-1] not in (1, 3) or not images.size:
        raise _invalid(name, expected, f"shape {list(images.shape)}")
    images = images.astype(np.float32)
    low, high = images.min(), images.max()  # NaN if any pixel is
    if not (low >= -1e-5 and high <= 1 + 1e-5):  # the slack is for rounding; it is far below one level
        raise _invalid(name, expected, f"values from {low} to {high}")
    return np.round(255 * images).astype(np.uint8)


def _vector(name, values, length=None, finite=True):
    """Checked numbers as float64 [length]."""
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or not len(values) or length not in (None, len(values)):
        raise _invalid(name, f"shape [{'n' if length is None else length}]", f"shape {list(values.shape)}")
    if finite and not np.isfinite(values).all():
        raise _invalid(name, "finite values", values.tolist())
    return values


def _arranged(images, columns):
    """[n, h, w, c] -> [rows, columns, h, w, c]; the last row is filled up with white."""
    count = len(images)
    if columns is None:
        near = math.ceil(math.sqrt(count))
        columns = next((k for k in range(near, 2 * near) if count % k == 0), near)  # a full last row if there is one
    if columns != int(columns) or columns < 1:
        raise _invalid("columns", "an integer of at least 1", columns)
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
    figure = _figure(canvas.shape[1] / DPI, canvas.shape[0] / DPI)
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
    axes.set_title(_wrapped(title, inches, TITLE), fontsize=TITLE, color=INK, loc="left", pad=8, parse_math=False)
    if footnote:
        below = axes.get_tightbbox(figure.canvas.get_renderer()).y0 * 72 / DPI - 8
        place = {"xycoords": "axes fraction", "textcoords": "offset points", "va": "top", "parse_math": False}
        axes.annotate(_wrapped(footnote, inches, SMALL), (0, 0), (0, below), fontsize=SMALL, color=GREY, **place)
    box = axes.get_tightbbox(figure.canvas.get_renderer())
    corner = edge + np.ceil([-box.x0, -box.y0])
    whole = corner + np.ceil([box.x1, box.y1]) + edge
    figure.set_size_inches(whole / DPI)
    axes.set_position((*(corner / whole), *(size / whole)))
    return figure


def _page(width, height, title, footnote):
    """A figure of so many inches for charts: title above, footnote below, the layout engine in between."""
    figure = _figure(width, height, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.06)
    place = {"x": 0.1 / width, "ha": "left", "parse_math": False}
    figure.suptitle(_wrapped(title, width, TITLE), fontsize=TITLE, color=INK, **place)
    if footnote:
        figure.supxlabel(_wrapped(footnote, width, SMALL), fontsize=SMALL, color=GREY, **place)
    return figure


def _figure(width, height, **options):
    """An empty figure of so many inches."""
    matplotlib = _matplotlib()
    figure = matplotlib.figure.Figure(figsize=(width, height), dpi=DPI, facecolor="white", **options)
    matplotlib.backends.backend_agg.FigureCanvasAgg(figure)
    return figure


def _matplotlib():
    """matplotlib, imported when the first figure is drawn: grids of images and animations do without."""
    try:
        import matplotlib.backends.backend_agg
        import matplotlib.figure
        import matplotlib.lines
        import matplotlib.patches
        import matplotlib.ticker
    except ModuleNotFoundError:
        from keras_vae import installed

        installed.need("matplotlib")
        raise
    return matplotlib


def _wrapped(text, inches, points):
    return textwrap.fill(text, width=int(inches * 72 / (0.58 * points)))


def _number(value):
    return f"{value:.2f}".replace("-", "\N{MINUS SIGN}") if abs(value) >= 0.005 else "0"


def _plain(axes, x, y):
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set(color=FAINT, linewidth=0.8)
    axes.tick_params(labelsize=SMALL, labelcolor=GREY, color=FAINT, width=0.8)
    axes.set_xlabel(x, fontsize=LABEL, color=INK)
    axes.set_ylabel(y, fontsize=LABEL, color=INK)
    return axes


def _legend(axes, colors, **style):
    """A legend of label -> color, to the right of the axes."""
    line = _matplotlib().lines.Line2D
    handles = [line([], [], color=color, label=label, **style) for label, color in colors.items()]
    place = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0), "frameon": False}
    axes.legend(handles=handles, fontsize=LABEL, labelcolor=INK, handletextpad=0.5, **place)


def _readable_limits(curves):
    """(low, high, hidden) for curves, each [epochs]: `hidden` is the largest value if it would squash the rest."""
    every = np.concatenate(curves)
    later = np.concatenate([curve[max(1, len(curve) // 10) :] for curve in curves])
    every, later = every[np.isfinite(every)], later[np.isfinite(later)]
    if not every.size:
        return 0.0, 1.0, None
    low, high, hidden = every.min(), every.max(), None
    if max(map(len, curves)) >= 5 and later.size and 0 < 3 * np.ptp(later) < high - later.min():
        high, hidden = later.max() + 1.5 * np.ptp(later), high
    pad = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return low - pad, high + pad, hidden


def _without_outliers(values):
    """(low, high) of all values but those far outside the middle 96%."""
    low, high = values.min(), values.max()
    if len(values) < 10:
        return low, high
    first, last = np.quantile(values, 0.02, method="higher"), np.quantile(values, 0.98, method="lower")
    return max(low, first - 0.4 * (last - first)), min(high, last + 0.4 * (last - first))


def _opened(path):
    """A picture of a file, or None with a warning."""
    from keras_vae import files

    try:
        picture = Image.open(io.BytesIO(files.read_bytes(path)), formats=["PNG"])
        picture.load()
        return picture
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        warnings.warn(f"The picture {path} is damaged and left out: {error}", stacklevel=3)
        return None


def _write(path, write, suffix=".png"):
    """Calls `write(file)`; the file appears whole or not at all."""
    path = pathlib.Path(path)
    if path.suffix.lower() != suffix:
        raise _invalid("path", f"a name that ends in {suffix}", path)
    from keras_vae import files  # here, so that figures can be drawn without TensorFlow

    with files.writing(path) as file:
        write(file)
