"""Charts of numbers: losses by epoch, codes in the plane, the KL of each latent dimension."""

import itertools

import numpy as np

from keras_vae.plotting.style import (
    FAINT,
    GREY,
    INK,
    LABEL,
    PALETTE,
    SMALL,
    TEST,
    TRAIN,
    add_legend,
    checked_vector,
    empty_page,
    invalid,
    load_matplotlib,
    plain_axes,
)

PANELS = {"loss": "loss", "reconstruction": "reconstruction_loss", "KL": "kl_loss"}  # of training curves


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
        raise invalid("history", "one of loss, reconstruction_loss, kl_loss, with or without val_", list(history))
    names = [prefix + name for name in panels.values() for prefix in ("", "val_") if prefix + name in history]
    epochs = checked_vector("history['epoch']", history.get("epoch", range(1, len(history[names[0]]) + 1)))
    curves = {name: checked_vector(f"history[{name!r}]", history[name], len(epochs), finite=False) for name in names}
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
                curve = checked_vector(f"histories[{run!r}]['val_{name}']", history[f"val_{name}"], finite=False)
                drawn.setdefault(label, []).append((np.arange(1, len(curve) + 1), curve, color))
                colors[run] = color
    if not drawn:
        raise invalid("histories", "one of val_loss, val_reconstruction_loss, val_kl_loss in a run", histories)
    return _curves(drawn, colors, title, footnote)


def _curves(panels, legend, title, footnote):
    """Panels side by side, label -> list of (epochs, curve, color), in nats; `legend` is name -> color."""
    figure = empty_page(3.3 * len(panels) + 1.0, 3.4, title, footnote)
    longest = max(len(epochs) for drawn in panels.values() for epochs, *_ in drawn)
    style = {"linewidth": 1.6, "markersize": 4, "marker": "o" if longest <= 20 else None}
    for index, (label, drawn) in enumerate(panels.items()):
        axes = figure.add_subplot(1, len(panels), index + 1)
        plain_axes(axes, "epoch", "" if index else "nats per example")
        for epochs, curve, color in drawn:
            axes.plot(epochs, curve, color=color, **style)
        low, high, hidden = _readable_limits([curve for _, curve, _ in drawn])
        axes.set_ylim(low, high)
        axes.set_title(label, fontsize=LABEL + 1, color=INK, loc="left")
        if hidden is not None:
            axes.set_title(f"first epochs reach {hidden:.4g}", fontsize=SMALL, color=GREY, loc="right")
        axes.xaxis.set_major_locator(load_matplotlib().ticker.MaxNLocator(nbins=6, integer=True))
        if longest == 1:
            axes.set(xlim=(epochs[0] - 1, epochs[0] + 1), xticks=epochs)
    add_legend(axes, legend, **style)
    return figure


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
        raise invalid("z", "finite values [n, 2]", f"shape {list(z.shape)}, {np.sum(~np.isfinite(z))} not finite")
    labels = np.zeros(len(z)) if labels is None else checked_vector("labels", labels, len(z))
    classes = sorted(set(labels.tolist()))
    figure = empty_page(6.4, 5.6, title if projection is None else f"{title}: {projection}", footnote)
    names = ("z[0]", "z[1]") if projection is None else ("component 1", "component 2")
    axes = plain_axes(figure.add_subplot(), *names)
    order = np.random.default_rng(0).permutation(len(z))  # so that the last class does not cover the others
    style = {"s": float(np.clip(20000 / len(z), 5, 30)), "alpha": 0.55, "linewidths": 0, "rasterized": True}
    if np.isin(classes, range(len(PALETTE))).all():
        axes.scatter(*z[order].T, c=[PALETTE[int(label)] for label in labels[order]], **style)
        class_names = range(len(PALETTE)) if class_names is None else class_names
        if classes[-1] >= len(class_names):
            raise invalid("class_names", f"a name for class {classes[-1]:g}", class_names)
        if len(classes) > 1:
            add_legend(axes, {class_names[int(k)]: PALETTE[int(k)] for k in classes}, linestyle="", marker="o")
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


def _without_outliers(values):
    """(low, high) of all values but those far outside the middle 96%."""
    low, high = values.min(), values.max()
    if len(values) < 10:
        return low, high
    first, last = np.quantile(values, 0.02, method="higher"), np.quantile(values, 0.98, method="lower")
    return max(low, first - 0.4 * (last - first)), min(high, last + 0.4 * (last - first))


def kl_per_dimension(kl, threshold=None, active=None, title="KL per latent dimension", footnote=None):
    """Bars of the KL [d] of each latent dimension, the largest first, inactive ones in grey.

    Args:
        threshold: draws a line; without `active`, dimensions below it are the inactive ones.
        active: [d] booleans; their count joins the title.

    >>> figure = kl_per_dimension([0.0, 3.1, 2.4], active=[False, True, True])
    """
    kl = checked_vector("kl", kl)
    if active is not None:
        active = checked_vector("active", active, len(kl)).astype(bool)
        title = f"{title}: {active.sum()} of {len(kl)} active"
    else:
        active = kl >= (-np.inf if threshold is None else threshold)
    figure = empty_page(np.clip(0.27 * len(kl) + 1, 5, 10), 3.5, f"{title}, {kl.sum():.1f} nats in total", footnote)
    axes = plain_axes(
        figure.add_subplot(), "latent dimension" if len(kl) <= 40 else "rank of the latent dimension", "nats"
    )
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
