"""The report of a run: one self-contained page to look at, to play with and to pass on."""

import base64
import json
from pathlib import Path

import numpy as np

from keras_vae import cards, evaluation
from keras_vae.presets import train_command
from keras_vae.report.explorer import UnsupportedNetwork, explorer_data
from keras_vae.report.published import find_published
from keras_vae.runs import write_bytes

PAGE = Path(__file__).parent / "page"

# File name of a figure -> (its heading, what is to be seen), in the order of the page.
FIGURES = {
    "reconstructions": ("Reconstructions", "Test images over what the model makes of their codes."),
    "denoising": ("Denoising", "Test images, the same with noise, and what the model makes of those."),
    "samples": ("Samples", "Images decoded from draws from the prior."),
    "manifold": ("Latent plane", "Images decoded on a lattice of the plane; each stands for equal probability."),
    "latent_space": ("Codes", "Where the test images lie in the latent space."),
    "interpolations": ("Interpolations", "Images decoded along straight lines between the codes of two test images."),
    "traversals": ("Traversals", "One latent dimension a row, moved while the others stay."),
    "training_curves": ("Training", "Losses by epoch."),
    "animation": ("While training", "The same draws from the prior, or the same test images, after each epoch."),
}

HEADLINES = ("loss", "nll", "elbo", "reconstruction_loss", "kl_loss", "mse", "restored_mse", "active_units")


def write_report(run, model, images, labels):
    """Writes report.html into a run directory: figures, numbers, the explorer, and how to go on.

    The page needs no network and no other file. It is replaced whole or not at all.

    Args:
        run: The `Run`.
        model: Its model.
        images: Float32 [n, h, w, c], its test images in [0, 1], as they are evaluated.
        labels: Int [n], or None.

    Returns:
        Path of the page.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    card = read_card(run.path / "evaluation.json")
    kl = card["results"].get("kl_per_dimension")
    try:
        explorer, unsupported = explorer_data(model, images, labels, kl, run.config.data.binarization), None
    except UnsupportedNetwork as error:
        explorer, unsupported = None, str(error)
    environment = Environment(loader=FileSystemLoader(PAGE), autoescape=True, undefined=StrictUndefined)
    environment.trim_blocks = environment.lstrip_blocks = True
    page = environment.get_template("page.html").render(
        run=run,
        path=run.path.name if run.path.is_absolute() else run.path,
        kind=type(model).__name__,
        parameters=model.count_params(),
        latent_dim=model.latent_dim,
        files={name: (PAGE / name).read_text() for name in ("style.css", "network.js", "explorer.js")},
        figures=_figures(run.path / "figures"),
        facts=_facts(run, images),
        command=train_command(run.config),
        protocol=card["protocol"],
        results=result_rows(card),
        headlines=[row for name in HEADLINES for row in result_rows(card) if row["name"] == name][:4],
        published=find_published(card),
        findings=_findings(model, images, labels, card["results"]),
        kl=_bars(kl) if kl else None,
        explorer=explorer,
        unsupported=unsupported,
    )
    path = run.path / "report.html"
    write_bytes(path, page.encode())
    return path


def read_card(path):
    """The content of an evaluation.json, or an empty card where there is none."""
    return {"protocol": {}, "results": {}, **(json.loads(path.read_text()) if path.is_file() else {})}


def _findings(model, images, labels, results):
    """The audit's findings, the worst first. An autoencoder has none."""
    if not hasattr(model, "prior"):
        return []
    found = evaluation.audit(model, images, labels=labels, results=results or None)
    return sorted(found, key=lambda finding: ("error", "warning", "ok").index(finding.status))


def _figures(folder):
    """The figures of a run with the bytes of their files in base64."""
    return [
        {
            "name": name,
            "title": title,
            "text": text,
            "type": file.suffix[1:],
            "bytes": base64.b64encode(file.read_bytes()).decode(),
        }
        for name, (title, text) in FIGURES.items()
        for file in sorted(folder.glob(f"{name}.*"))
    ]


def _facts(run, images):
    """What was run: name -> text."""
    config, data = run.config, run.facts.get("data", {})
    height, width, channels = images.shape[1:]
    counts = f"{data['train_images']:,} training and {data['test_images']:,} test" if data else ""
    facts = {
        "Preset": config.preset,
        "Data": f"{data.get('name', config.data.dataset)}, {counts} images of "
        f"{height} x {width} x {channels}, binarisation {config.data.binarization}",
        "Training": f"{config.training.epochs} epochs, batches of {config.training.batch_size}, "
        f"{config.training.optimizer} with learning rate {config.training.learning_rate:g} "
        f"({config.training.schedule}), seed {config.training.seed}",
        "Devices": run.facts.get("devices"),
        "Time": run.facts.get("time"),
        "Started": run.facts.get("created"),
        "Versions": ", ".join(f"{name} {number}" for name, number in run.facts.get("versions", {}).items()),
    }
    return {name: text for name, text in facts.items() if text}


def result_rows(card):
    """The results of a card as rows: name, value, unit, and what it is."""
    results = {name: value for name, value in card["results"].items() if value is not None}
    units = {name: cards.unit(name) for name in results}
    return [
        {"name": name, "value": value, "unit": unit, "text": cards.MEANINGS.get(name, ("", ""))[1]}
        for name, value, unit in cards.rows({"results": results, "units": units})
    ]


def _bars(kl):
    """Bars of the KL of each latent dimension, the largest first; heights are shares of the largest."""
    order = np.argsort(kl)[::-1]
    return [{"dim": int(dim), "nats": kl[dim], "height": kl[dim] / max(kl[order[0]], 1e-9)} for dim in order]
