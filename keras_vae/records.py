"""The form of the files that a run is read from: bytes in, checked values out. Standard library only.

Every function raises ValueError, with one line that says what is wrong, for whatever is not as this package writes it:
files get damaged, and runs of others are opened.
"""

import csv
import io
import json
import math

from keras_vae.config import Config

LIMIT = 2**26  # bytes that such a file may have; they have some kB


def parse_config(content):
    """config.json: pair of the `Config` and the facts beside it, a dict."""
    facts = _object("config.json", _json(content))
    if "config" not in facts:
        raise ValueError("it has no config")
    config = Config.from_dict(facts.pop("config"))
    _text("preset", config.preset)
    for name in ("created", "devices", "time", "command"):
        if name in facts:
            _text(name, facts[name])
    for name, version in _object("versions", facts.get("versions", {})).items():
        _text(f"versions.{name}", version)
    data = _object("data", facts.get("data", {}))
    for name in ("name", "source", "fallback", "train_sha256", "test_sha256"):
        if data.get(name) is not None:
            _text(f"data.{name}", data[name])
    if "data" in facts:
        _text("data.name", data.get("name"))
        for name in ("train_images", "test_images"):
            _int(f"data.{name}", data.get(name))
        shape = data.get("event_shape")
        if not isinstance(shape, list) or not 1 <= len(shape) <= 3:
            raise ValueError(f"expected data.event_shape to be 1 to 3 numbers, not {_shown(shape)}")
        for number in shape:
            _int("data.event_shape", number)
        limits = data.get("value_range", [0.0, 1.0])
        if not isinstance(limits, list) or len(limits) != 2 or not all(map(_is_number, limits)):
            raise ValueError(f"expected data.value_range to be 2 numbers, not {_shown(limits)}")
    return config, facts


def parse_card(content):
    """evaluation.json: dict of the dicts protocol, results, model, units and versions."""
    card = _object("evaluation.json", _json(content))
    for name in ("protocol", "results"):
        if name not in card:
            raise ValueError(f"it has no {name}")
    card = {"model": {}, "units": {}, "versions": {}, **card}
    for part in ("protocol", "results", "model", "units", "versions"):
        for name, value in _object(part, card[part]).items():
            _text(f"a name in {part}", name)
            if part == "results":
                _result(name, value)
            elif isinstance(value, str) or part in ("units", "versions"):
                _text(f"{part}.{name}", value)
            elif not _is_number(value) and not isinstance(value, (bool, type(None), list)):
                raise ValueError(f"expected {part}.{name} to be a number or text, not {_shown(value)}")
    return card


def parse_history(content):
    """history.csv: dict, name -> list of floats, one for each epoch. Epochs count from 1, not from 0 as in the file."""
    rows = list(csv.reader(io.StringIO(content.decode())))
    if len(rows) < 2:
        raise ValueError("it has no rows")
    names, *rows = rows
    if "epoch" not in names or len(set(names)) != len(names):
        raise ValueError(f"expected one column epoch and others, not {_shown(names)}")
    for name in names:
        _text("a column", name)
    history = {name: [] for name in names}
    for number, row in enumerate(rows, 2):
        if len(row) != len(names):
            raise ValueError(f"line {number} has {len(row)} values, not {len(names)}")
        for name, text in zip(names, row, strict=True):
            history[name].append(math.nan if text == "NA" else float(text))
    if history["epoch"] != sorted(set(history["epoch"])) or not all(map(math.isfinite, history["epoch"])):
        raise ValueError("its epochs do not count up")
    return {**history, "epoch": [epoch + 1 for epoch in history["epoch"]]}


def _json(content):
    try:
        return json.loads(content.decode())
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _object(name, value):
    if not isinstance(value, dict):
        raise ValueError(f"expected {name} to be an object, not {_shown(value)}")
    return value


def _text(name, value):
    if not isinstance(value, str) or not value or not value.isprintable():  # no escape sequence for a terminal
        raise ValueError(f"expected {name} to be a line of text, not {_shown(value)}")


def _int(name, value):
    if type(value) is not int or not 0 < value < 2**63:
        raise ValueError(f"expected {name} to be a whole number above 0, not {_shown(value)}")


def _result(name, value):
    if isinstance(value, dict):  # by number of samples
        fits = (
            value and all(key.isdecimal() and len(key) < 20 for key in value) and all(map(_is_number, value.values()))
        )
    elif isinstance(value, list):  # by latent dimension
        fits = value and all(map(_is_number, value))
    else:
        fits = value is None or _is_number(value)
    if not fits:
        raise ValueError(f"expected results.{name} to be a number, not {_shown(value)}")


def _is_number(value):
    return isinstance(value, float) or (type(value) is int and abs(value) < 2**63)


def _shown(value):
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
