"""What the pages share: their templates, the figures of a run, its numbers as rows, and its facts in words."""

import base64
from pathlib import Path

import numpy as np

from keras_vae import cards
from keras_vae.event_shapes import kind_of

PAGE = Path(__file__).parent / "page"

# File name of a figure -> (its heading, what is to be seen), in the order of the page.
FIGURES = {
    "reconstructions": ("Reconstructions", "Test images over what the model makes of their codes."),
    "denoising": ("Denoising", "Test images, the same with noise, and what the model makes of those."),
    "samples": ("Samples", "Images decoded from draws from the prior."),
    "manifold": ("Latent plane", "Images decoded on a lattice of the plane; each stands for equal probability."),
    "latent_space": ("Codes", "Where the test images lie in the latent space."),
    "interpolations": ("Interpolations", "Images decoded along straight lines between the codes of two test images."),
    "traversals": ("Traversals", "One latent dimension a row, moved while the others stay as in the base image."),
    "training_curves": ("Training", "Losses by epoch."),
    "animation": ("While training", "The same draws from the prior, or the same test images, after each epoch."),
}
# What is to be seen where examples are drawn as curves, and of vectors.
CURVES = {
    "reconstructions": "Test examples in grey, and what the model makes of their codes in colour.",
    "denoising": "Test examples with noise in grey, and what the model makes of them in colour.",
    "samples": "Test sequences beside sequences drawn from the model: z from the prior, x from p(x|z).",
    "latent_space": "Where the test examples lie in the latent space.",
    "interpolations": "Curves decoded along straight lines between the codes of two test examples.",
    "traversals": "One latent dimension a panel, moved while the others stay as in the first test example.",
    "animation": "The same draws from the prior, or the same test examples, after each epoch.",
}
OF_VECTORS = {"samples": "Each column: test values in grey, and values drawn from the model in colour."}


def caption(name, event_shape):
    """What is to be seen in a figure of examples of a shape."""
    kind = kind_of(event_shape)
    texts = {name: text for name, (_, text) in FIGURES.items()}
    texts |= CURVES if kind != "image" else {}
    return (texts | OF_VECTORS if kind == "vector" else texts)[name]


def render(template, **values):
    """A page as bytes. Text in `values` cannot become markup."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(loader=FileSystemLoader(PAGE), autoescape=True, undefined=StrictUndefined)
    environment.trim_blocks = environment.lstrip_blocks = True
    files = {name: (PAGE / name).read_text() for name in ("style.css", "network.js", "explorer.js")}
    return environment.get_template(template).render(files=files, **values).encode(errors="backslashreplace")


def figures(run):
    """The figures of a run, in the order of the page."""
    shape = run.facts.get("data", {}).get("event_shape", (1, 1, 1))
    return [
        figure(name, title, caption(name, shape), content, kind)
        for name, (title, _) in FIGURES.items()
        for kind in ("gif", "png")
        if (content := run.read_picture(f"{name}.{kind}")) is not None
    ]


def figure(name, title, text, content, kind="png"):
    """A figure for the templates; `content` is the bytes of its file."""
    little, at = ("little", 6) if kind == "gif" else ("big", 16)  # where such a file says how wide it is
    width = int.from_bytes(content[at : at + (2 if kind == "gif" else 4)], little)
    encoded = base64.b64encode(content).decode()
    return {"name": name, "title": title, "text": text, "type": kind, "width": width, "bytes": encoded}


def facts(run):
    """What was run: name -> text."""
    config, data = run.config, run.facts.get("data", {})
    kind = kind_of(data["event_shape"]) if "event_shape" in data else "image"
    counts = f", {data['train_images']:,} training and {data['test_images']:,} test {kind}s" if data else ""
    size = f" of {' x '.join(map(str, data['event_shape']))}" if "event_shape" in data else ""
    told = {
        "Preset": config.preset,
        "Data": f"{data.get('name', config.data.dataset)}{counts}{size}, binarisation {config.data.binarization}",
        "Training": f"{config.training.epochs} epochs, batches of {config.training.batch_size}, "
        f"{config.training.optimizer} with learning rate {config.training.learning_rate:g} "
        f"({config.training.schedule}), seed {config.training.seed}",
        "Devices": run.facts.get("devices"),
        "Time": run.facts.get("time"),
        "Started": run.facts.get("created"),
        "Versions": ", ".join(f"{name} {number}" for name, number in run.facts.get("versions", {}).items()),
    }
    return {name: text for name, text in told.items() if text}


def read_card(run):
    """The content of a run's evaluation.json, or an empty card where there is none."""
    return run.read_card() or {"protocol": {}, "results": {}}


def result_rows(card):
    """The results of a card as rows: name, value, unit, and what it is."""
    results = {name: value for name, value in card["results"].items() if value is not None}
    units = {name: cards.unit(name) for name in results}
    return [
        {"name": name, "value": value, "unit": unit, "text": cards.MEANINGS.get(name, ("", ""))[1]}
        for name, value, unit in cards.rows({"results": results, "units": units})
    ]


def bars(kl, highest=None):
    """Bars of the KL of each latent dimension, the largest first, as shares of `highest`, or of the largest."""
    highest = max(max(kl) if highest is None else highest, 1e-9)
    return [{"dim": int(dim), "nats": kl[dim], "height": kl[dim] / highest} for dim in np.argsort(kl)[::-1]]
