"""What all figures share: colours, sizes of text, empty figures and axes, and the check of numbers."""

import textwrap

import numpy as np

PALETTE = "#1f77b4 #ff7f0e #2ca02c #d62728 #9467bd #8c564b #e377c2 #7f7f7f #bcbd22 #17becf".split()
TRAIN, TEST = PALETTE[:2]
# titles; secondary text; spines and inactive bars: to be read on white and on black, for a saved figure is transparent
INK, GREY, FAINT = "#767d86", "#7b828a", "#a9afb6"
DPI = 120
TITLE, LABEL, SMALL = 12, 9, 8  # points


def invalid(name, expected, received):
    return ValueError(f"Invalid value received for argument `{name}`. Expected {expected}. Received: {received}")


def checked_vector(name, values, length=None, finite=True):
    """Checked numbers as float64 [length]."""
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or not len(values) or length not in (None, len(values)):
        raise invalid(name, f"shape [{'n' if length is None else length}]", f"shape {list(values.shape)}")
    if finite and not np.isfinite(values).all():
        raise invalid(name, "finite values", values.tolist())
    return values


def empty_page(width, height, title, footnote):
    """A figure of so many inches for charts: title above, footnote below, the layout engine in between."""
    figure = empty_figure(width, height, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.06)
    place = {"x": 0.1 / width, "ha": "left", "parse_math": False}
    figure.suptitle(wrapped(title, width, TITLE), fontsize=TITLE, color=INK, **place)
    if footnote:
        figure.supxlabel(wrapped(footnote, width, SMALL), fontsize=SMALL, color=GREY, **place)
    return figure


def empty_figure(width, height, **options):
    """An empty figure of so many inches."""
    matplotlib = load_matplotlib()
    figure = matplotlib.figure.Figure(figsize=(width, height), dpi=DPI, facecolor="white", **options)
    matplotlib.backends.backend_agg.FigureCanvasAgg(figure)
    return figure


def load_matplotlib():
    """matplotlib, imported when the first figure is drawn: grids of images and animations do without."""
    try:
        import matplotlib.backends.backend_agg
        import matplotlib.collections
        import matplotlib.figure
        import matplotlib.lines
        import matplotlib.patches
        import matplotlib.ticker
    except ModuleNotFoundError:
        from keras_vae import installed

        installed.need("matplotlib")
        raise
    return matplotlib


def wrapped(text, inches, points):
    return textwrap.fill(text, width=int(inches * 72 / (0.58 * points)))


def number_text(value):
    return f"{value:.2f}".replace("-", "\N{MINUS SIGN}") if abs(value) >= 0.005 else "0"


def plain_axes(axes, x, y):
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set(color=FAINT, linewidth=0.8)
    axes.tick_params(labelsize=SMALL, labelcolor=GREY, color=FAINT, width=0.8)
    axes.set_xlabel(x, fontsize=LABEL, color=INK)
    axes.set_ylabel(y, fontsize=LABEL, color=INK)
    return axes


def add_legend(axes, colors, **style):
    """A legend of label -> color, to the right of the axes."""
    line = load_matplotlib().lines.Line2D
    handles = [line([], [], color=color, label=label, **style) for label, color in colors.items()]
    place = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0), "frameon": False}
    axes.legend(handles=handles, fontsize=LABEL, labelcolor=INK, handletextpad=0.5, **place)
