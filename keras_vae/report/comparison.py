"""One page for several runs: their numbers, curves and pictures side by side, and what differs between them."""

import io
import os
from pathlib import Path

from keras_vae import cards, plotting
from keras_vae.config import InputError, sections
from keras_vae.files import write_bytes
from keras_vae.presets import train_command
from keras_vae.report.published import find_published
from keras_vae.report.rendering import FIGURES, bars, caption, facts, figure, figures, render


def write_comparison(runs, path, allow_mixed=False):
    """Writes a page that compares runs: self-contained like report.html, and replaced whole or not at all.

    Args:
        runs: List of `Run`, each with an evaluation.json.
        path: A name that ends in .html.
        allow_mixed: Bool, whether to take results under different protocols; the page then says what differs.

    Returns:
        Path of the page.

    Raises:
        InputError: for another ending, for runs without a complete evaluation.json, and for different protocols, unless
            they are allowed.
    """
    path = Path(path)
    if path.suffix != ".html":
        raise InputError(f"Invalid value for --html: expected a file that ends in .html. Received: {path}")
    runs = _named(runs)
    found = {name: cards.load(run) for name, run in runs.items()}
    estimates = {name: run.read_estimates(found[name]) for name, run in runs.items()}
    table = cards.compare(found, allow_mixed, cards.paired(found, estimates))
    told = [facts(run) for run in runs.values()]
    pictures = {name: figures(run) for name, run in runs.items()}
    shape = next(iter(runs.values())).facts.get("data", {}).get("event_shape", (1, 1, 1))
    texts = {name: caption(name, shape) for name in FIGURES}
    differences = cards.mixed(found)
    same_loss = len({card["model"]["loss"] for card in found.values()}) == 1
    page = render(
        "comparison.html",
        names=list(runs),
        results=[(name, values) for name, *values in list(zip(*table, strict=True))[1:]],  # a run is a column
        differences=differences,
        protocol=next(iter(found.values()))["protocol"],
        published=[] if differences else find_published(next(iter(found.values())))[0],
        curves=_curves(runs, same_loss),
        same_loss=same_loss,
        pictures=[
            (
                title,
                texts[name],
                [(run, item) for run, items in pictures.items() for item in items if item["name"] == name],
            )
            for name, (title, _) in FIGURES.items()
            if name != "training_curves"
        ],
        kl=_bars(found),
        facts=[(key, [each.get(key, "") for each in told]) for key in told[0]],
        settings=_differing_settings(runs),
        commands={name: train_command(run.config) for name, run in runs.items()},
    )
    write_bytes(path, page)
    return path


def _named(runs):
    """Runs by the part of their path in which they differ: the page does not say where they are on this machine."""
    paths = [run.path.absolute() for run in runs]
    common = os.path.commonpath([path.parent for path in paths])
    return {os.path.relpath(path, common): run for path, run in zip(paths, runs, strict=True)}


def _curves(runs, same_loss):
    """The figure of the test losses by epoch, or None. Losses of different kinds are not drawn over each other."""
    histories = {name: run.read_history() for name, run in runs.items()}
    histories = {name: history for name, history in histories.items() if history is not None}
    if not same_loss:
        for history in histories.values():
            history.pop("val_loss", None)
    if not any(f"val_{name}" in history for history in histories.values() for name in plotting.PANELS.values()):
        return None
    file = io.BytesIO()
    plotting.compared_curves(histories).savefig(file, format="png", dpi=plotting.DPI, transparent=True)
    return figure("training_curves", "Training", "Losses on the test split by epoch.", file.getvalue())


def _bars(found):
    """Run -> the bars of its KL, all on one scale."""
    kl = {name: card["results"].get("kl_per_dimension") for name, card in found.items()}
    kl = {name: values for name, values in kl.items() if isinstance(values, list)}
    return {name: bars(values, max(map(max, kl.values()))) for name, values in kl.items()}


def _differing_settings(runs):
    """Fields of the configs that are not the same in all runs: name -> texts."""
    settings = [
        {name: value for section in sections(run.config).values() for name, value in vars(section).items()}
        for run in runs.values()
    ]
    texts = {name: [str(each[name]) for each in settings] for name in settings[0]}
    return {name: values for name, values in texts.items() if len(set(values)) > 1}
