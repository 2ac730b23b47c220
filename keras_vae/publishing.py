"""A folder to pass on, made of a run: weights, config, card and export, laid out for the Hugging Face hub.

README.md            the card: what it is, how it was trained and measured, how to use it
config.json          the config, for `from_preset` and for `keras-vae train --config`
weights.npz          arrays alone
evaluation.json      the numbers of the card
samples.png          a picture for the card
export/              SavedModels for TensorFlow Serving
"""

import json
import re
from pathlib import Path

from keras_vae import serving
from keras_vae.config import InputError
from keras_vae.files import new_folder, write_bytes, write_json
from keras_vae.models import build_model, published, weight_shapes
from keras_vae.presets import train_command
from keras_vae.report import read_card, result_rows

PICTURES = ("samples.png", "denoising.png", "reconstructions.png")


def publish(run, to, export=True):
    """Makes a folder of a run that `from_preset` and every command that takes a run can read.

    The folder appears whole or not at all. It names the data, but not where they or the run were on this machine.

    Args:
        run: The `Run`, finished.
        to: The folder to make.
        export: Bool, whether to export SavedModels into it.

    Returns:
        Path of the folder.

    Raises:
        InputError: if there is something at `to`, it cannot be written, or the run has no model.
    """
    to = Path(to)
    if to.exists():
        raise InputError(f"{to} exists already and is not overwritten. Choose another --to, or remove it.")
    missing = sorted({"name", "event_shape", "train_images"} - set(run.facts.get("data", {})))
    if missing:
        raise InputError(f"{run.path} does not say what it was trained on: its config.json has no data.{missing[0]}.")
    if not run.model_file().resolve().is_relative_to(run.path.resolve()):
        raise InputError(f"{run.model_file()} is a link that leads out of the run. Copy the file to its place.")
    model = run.load_model()
    data = {name: value for name, value in run.facts["data"].items() if name not in ("source", "fallback")}
    config = run.config.replace(dataset=data["name"], mnist_dir=None, data_dir=None)
    weights = model.get_weights()
    try:
        fits = weight_shapes(config.model, data["event_shape"]) == [weight.shape for weight in weights]
    except (ValueError, TypeError, KeyError, OverflowError):
        fits = False
    if not fits:
        raise InputError(f"Damaged run directory: {run.path / 'config.json'} is not the config of its model.")
    plain = build_model(config.model, data["event_shape"])  # float32, and without what `compile` and `fit` added
    plain.set_weights(weights)
    try:
        with new_folder(to) as folder:
            published.save(plain, folder)
            facts = {name: run.facts[name] for name in ("created", "versions", "devices", "time") if name in run.facts}
            write_json(folder / "config.json", {"config": config.to_dict(), "data": data, **facts})
            card = read_card(run)
            if card["results"]:
                write_json(folder / "evaluation.json", card)
            pictures = {name: content for name in PICTURES if (content := run.read_picture(name))}
            pictures = dict(list(pictures.items())[:1])
            for name, content in pictures.items():
                write_bytes(folder / name, content)
            if export:
                serving.export_saved_models(plain, folder / "export", binarization=config.data.binarization)
            text = _card(config, {"data": data, **facts}, card, plain, list(pictures), export)
            write_bytes(folder / "README.md", text.encode(errors="backslashreplace"))
    except OSError as error:
        raise InputError(f"Cannot write {to}: {error.strerror or error}.") from None
    return to


def _plain(text):
    """Text that is no markup in Markdown, in one line."""
    return re.sub(r"([\\`*_{}\[\]<>#|!~$])", r"\\\1", " ".join(str(text).split()))


def _span(text):
    """Text as code in a line of a table."""
    return "`" + " ".join(str(text).replace("`", "'").replace("|", "\\|").split()) + "`"


def _code(text, language):
    """A block of code that ends where the text does, whatever is in it."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"


def _card(config, facts, card, model, pictures, export):
    """README.md of a published folder."""
    data, protocol = facts["data"], card["protocol"]
    kind, shape = type(model).__name__, " x ".join(map(str, model.event_shape))
    rows = "\n".join(
        f"| {_span(row['name'])} | {_plain(row['value'])} | {_plain(row['unit'])} |" for row in result_rows(card)
    )
    measured = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in protocol.items() if value is not None)
    versions = ", ".join(f"{name} {number}" for name, number in facts.get("versions", {}).items())
    picture = "".join(f"![What it makes]({name})\n\n" for name in pictures)
    condition = f", condition=np.arange(64) % {model.condition.num_classes}" if model.takes_labels else ""
    task = "model.reconstruct(images)" if kind == "Autoencoder" else f"model.generate(64, seed=1{condition})"
    served = "`export/` holds SavedModels for TensorFlow Serving.\n" if export else ""
    return f"""---
library_name: keras_vae
tags:
- {kind.lower()}
datasets:
- {json.dumps(data["name"])}
---

# {_plain(config.preset)} on {_plain(data["name"])}

{picture}A trained `{kind}` of keras_vae with {config.model.latent_dim} latent dimensions, for examples of the
shape {shape}. It saw {data["train_images"]:,} of them.

## Use

```python
import keras_vae

model = keras_vae.{kind}.from_preset("path/to/this/folder")
images = {task}  # float32 [n, {shape.replace(" x ", ", ")}]
```

`keras-vae reconstruct FOLDER` and the other commands take the folder too. Reading it executes nothing: config.json
names the networks, and weights.npz holds arrays of float32, the very ones that were measured below.
{served}
## Training

{_code(train_command(config), "sh")}

Started {_plain(facts.get("created", "at an unknown time"))}, with {_plain(versions) or "unknown versions"}.

## Results

| result | value | unit |
| --- | --- | --- |
{rows}

Measured under this protocol: {_plain(measured) or "not evaluated"}.
"""
