"""Pictures of sequences and vectors: curves in panels, and histograms of original against drawn values.

Curves are [n, t, f], finite: t steps of f values each; a vector [d] is a curve of d steps of one value. All panels of
a figure share one scale, which its title says. Of many values the first `VALUES` are drawn, each in its own colour.
"""

import io
import math

import numpy as np
from PIL import Image

from keras_vae.plotting.style import (
    DPI,
    FAINT,
    GREY,
    INK,
    LABEL,
    PALETTE,
    SMALL,
    TRAIN,
    add_legend,
    empty_page,
    invalid,
    load_matplotlib,
    plain_axes,
)

VALUES = 4  # of a step that are drawn
COLUMNS = 30  # of vectors that get a histogram
WIDTH, HEIGHT = 1.9, 1.15  # inches of a panel
MARGIN = 0.06  # share of a panel around what is in it


def curve_panels(curves, over=None, columns=None, title="samples", footnote=None):
    """Curves [n, t, f], each in a panel of its own, in reading order.

    With `over`, [n, t, f] as well, those are drawn in colour over `curves` in grey: reconstructions over originals.

    >>> figure = curve_panels(np.zeros([6, 24, 1]), over=np.ones([6, 24, 1]), title="reconstructions")
    """
    curves = _curves("curves", curves)
    drawn = [curves] if over is None else [curves, _curves("over", over, curves.shape)]
    limits = _limits(*drawn)
    figure, axes, corners = _panels(len(curves), columns, f"{title}{_values_shown(curves)}, {_range(limits)}", footnote)
    for examples, is_below in zip(drawn, (over is not None, False), strict=False):
        for value in range(min(examples.shape[2], VALUES)):
            color = (GREY if examples.shape[2] == 1 else PALETTE[value]) if is_below else PALETTE[value]
            lines = [_placed(curve[:, value], corner, limits) for curve, corner in zip(examples, corners, strict=True)]
            style = {"linewidths": 3.0, "alpha": 0.4} if is_below else {"linewidths": 1.2}
            axes.add_collection(load_matplotlib().collections.LineCollection(lines, colors=color, **style))
    if over is not None:
        add_legend(axes, {"original": GREY, "reconstruction": TRAIN})
    return figure


def curve_families(curves, names, values=None, title="interpolations", footnote=None):
    """Families of curves [rows, steps, t, f], a panel each, coloured from the first step to the last.

    Args:
        curves: [rows, steps, t, f].
        names: [rows] what is written over each panel.
        values: [steps] what the colours stand for, increasing; shares from 0 to 1 by default.

    >>> figure = curve_families(np.zeros([2, 5, 24, 1]), names=["z[0]", "z[1]"], values=[-2, -1, 0, 1, 2])
    """
    curves = np.asarray(curves, np.float64)
    if curves.ndim != 4:
        raise invalid("curves", "shape [rows, steps, t, f]", f"shape {list(curves.shape)}")
    rows, steps = curves.shape[:2]
    flat = _curves("curves", curves.reshape(-1, *curves.shape[2:]))
    limits = _limits(flat)
    figure, axes, corners = _panels(rows, None, f"{title}{_values_shown(flat)}, {_range(limits)}", footnote, names)
    values = np.linspace(0, 1, steps) if values is None else np.asarray(values, np.float64)
    lines, colors = [], []
    for family, corner in zip(curves, corners, strict=True):
        for curve, value in zip(family, values, strict=True):
            for part in curve.T[:VALUES]:
                lines.append(_placed(part, corner, limits))
                colors.append(value)
    lines = load_matplotlib().collections.LineCollection(lines, array=np.array(colors), cmap="viridis", linewidths=1.2)
    bar = figure.colorbar(axes.add_collection(lines), shrink=0.8, aspect=30)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=SMALL, labelcolor=GREY, color=FAINT)
    return figure


def curve_bundles(bundles, x="step", title="original and drawn", footnote=None):
    """Many curves over each other: a column for each bundle, a row for each value of a step.

    Args:
        bundles: Dict: name -> curves [n, t, f], of one t and f.
        x: What a step is.

    >>> figure = curve_bundles({"test": np.zeros([9, 24, 1]), "drawn": np.ones([9, 24, 1])})
    """
    bundles = {name: _curves(f"bundles[{name!r}]", curves) for name, curves in bundles.items()}
    first = next(iter(bundles.values()))
    rows = min(first.shape[2], VALUES)
    figure = empty_page(4.2 * len(bundles), 2.3 * rows + 0.9, f"{title}{_values_shown(first)}", footnote)
    for value in range(rows):
        low, high = _limits(*(curves[:, :, value : value + 1] for curves in bundles.values()))
        for column, (name, curves) in enumerate(bundles.items()):
            axes = figure.add_subplot(rows, len(bundles), value * len(bundles) + column + 1)
            plain_axes(axes, x if value == rows - 1 else "", f"value {value}" if rows > 1 and not column else "")
            lines = [np.stack([np.arange(len(curve)), curve], axis=1) for curve in curves[:, :, value]]
            alpha = float(np.clip(20 / len(lines), 0.2, 0.8))
            color = TRAIN if column else GREY
            style = {"colors": color, "linewidths": 1.0, "alpha": alpha}
            axes.add_collection(load_matplotlib().collections.LineCollection(lines, **style))
            pad = 0.05 * (high - low)
            axes.set(xlim=(0, max(first.shape[1] - 1, 1)), ylim=(low - pad, high + pad))
            if not value:
                axes.set_title(f"{name}: {len(curves)}", fontsize=LABEL, color=INK, loc="left")
    return figure


def histograms(original, drawn, names=None, title="original and drawn values", footnote=None):
    """Histograms of each column of vectors [n, d]: original in grey, drawn as an outline, on the same bins.

    A panel spans all but the outermost 1 % of the original values; names say from where to where. Of many columns the
    first `COLUMNS` are drawn.

    >>> figure = histograms(np.eye(5), np.eye(5) + 0.1)
    """
    original, drawn = (_curves(name, np.asarray(x)[..., None])[..., 0] for name, x in
                       (("original", original), ("drawn", drawn)))  # fmt: skip
    if original.shape[1] != drawn.shape[1]:
        raise invalid("drawn", f"{original.shape[1]} columns", f"shape {list(drawn.shape)}")
    count = min(original.shape[1], COLUMNS)
    names = [str(name) for name in (range(original.shape[1]) if names is None else names)]
    edges = [_edges(original[:, column]) for column in range(count)]
    labels = [f"{names[column]}:  {edge[0]:.3g} to {edge[-1]:.3g}" for column, edge in enumerate(edges)]
    shown = "" if count == original.shape[1] else f", columns 0 to {count - 1} of {original.shape[1]}"
    figure, axes, corners = _panels(count, 6 if count > 6 else None, f"{title}{shown}", footnote, labels)
    filled, outlines = [], []
    for column, (edge, corner) in enumerate(zip(edges, corners, strict=True)):
        densities = [np.histogram(x[:, column], edge)[0] / len(x) for x in (original, drawn)]
        top = max(max(map(np.max, densities)), 1e-9)
        for density, into in zip(densities, (filled, outlines), strict=True):
            x = np.repeat(np.linspace(MARGIN, 1 - MARGIN, len(edge)), 2)
            y = MARGIN + (1 - 2 * MARGIN) * np.concatenate([[0], np.repeat(density, 2), [0]]) / top
            into.append(np.stack([corner[0] + x, corner[1] + y], axis=1))
    collections = load_matplotlib().collections
    axes.add_collection(collections.PolyCollection(filled, facecolors=GREY, alpha=0.45, linewidths=0))
    axes.add_collection(collections.LineCollection(outlines, colors=TRAIN, linewidths=1.4))
    add_legend(axes, {"original": GREY, "drawn": TRAIN})
    return figure


def rasterized(figure):
    """A figure as pixels on white: uint8 [H, W, 3].

    >>> rasterized(curve_panels(np.zeros([2, 5, 1]))).dtype
    dtype('uint8')
    """
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI, facecolor="white")
    return np.asarray(Image.open(file).convert("RGB"))


def _curves(name, curves, shape=None):
    """Checked curves as float64 [n, t, f]."""
    curves = np.asarray(curves, np.float64)
    if curves.ndim != 3 or not curves.size or shape not in (None, curves.shape):
        raise invalid(name, f"shape {'[n, t, f]' if shape is None else list(shape)}", f"shape {list(curves.shape)}")
    if not np.isfinite(curves).all():
        raise invalid(name, "finite values", f"{np.sum(~np.isfinite(curves))} that are not")
    return curves


def _panels(count, columns, title, footnote, names=None):
    """A figure with `count` empty panels: the figure, its only axes, and the lower left corner of each unit panel."""
    columns = min(count, 4) if columns is None else min(columns, count)
    rows, gap = math.ceil(count / columns), 0.25 if names is not None else 0.08
    figure = empty_page(max(WIDTH * columns + 1.4, 4.5), HEIGHT * (1 + gap) * rows + 0.7, title, footnote)
    axes = figure.add_subplot()
    axes.set_axis_off()
    corners = [(index % columns * 1.05, -(index // columns) * (1 + gap)) for index in range(count)]
    frames = [[(x, y), (x + 1, y), (x + 1, y + 1), (x, y + 1)] for x, y in corners]
    collection = load_matplotlib().collections.PolyCollection(frames, facecolors="none", edgecolors=FAINT)
    axes.add_collection(collection).set_linewidth(0.6)
    for name, (x, y) in zip(names or (), corners, strict=False):
        axes.text(x, y + 1.03, name, fontsize=SMALL, color=GREY, va="bottom", parse_math=False)
    axes.set(xlim=(-0.02, columns * 1.05), ylim=(corners[-1][1] - 0.02, 1.02 + gap * (names is not None)))
    return figure, axes, corners


def _placed(values, corner, limits):
    """A curve [t] as points [t, 2] within the unit panel at a corner."""
    low, high = limits
    values = values if len(values) > 1 else np.repeat(values, 2)  # one step is a level line
    x = np.linspace(MARGIN, 1 - MARGIN, len(values))
    y = MARGIN + (1 - 2 * MARGIN) * (values - low) / (high - low)
    return np.stack([corner[0] + x, corner[1] + y], axis=1)


def _limits(*curves):
    """(low, high) of the values that are drawn, never equal."""
    low, high = (float(f([f(each[..., :VALUES]) for each in curves])) for f in (np.min, np.max))
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _range(limits):
    return f"from {limits[0]:.3g} to {limits[1]:.3g}"


def _values_shown(curves):
    count = curves.shape[2]
    return f", values 0 to {VALUES - 1} of {count}" if count > VALUES else ""


def _edges(values, bins=24):
    """Edges of bins for all but the outermost 1 % of values."""
    low, high = np.quantile(values, [0.005, 0.995])
    return np.linspace(low, high, bins + 1) if high > low else np.linspace(low - 0.5, high + 0.5, bins + 1)
