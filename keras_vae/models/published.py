"""Published models: a folder with config.json and weights.npz, from which nothing is executed.

The networks are built from the config, as by `build_model`, and the weights are plain arrays in the order of
`get_weights`. Keras's own files are matched by layer names that Keras numbers by itself, and may hold code.
"""

import json
import zipfile
from pathlib import Path

import numpy as np

from keras_vae.config import Config, InputError

WEIGHTS = "weights.npz"


def load(folder, seed=None):
    """Reads a published model.

    Args:
        folder: Path of the folder.
        seed: Int seed of the model's noise, or None.

    Returns:
        The model, not compiled.

    Raises:
        InputError: if it is no such folder, or its files do not fit each other.
    """
    from keras_vae.models import build_model

    config_file, weights_file = Path(folder) / "config.json", Path(folder) / WEIGHTS
    for file in (config_file, weights_file):
        if not file.is_file():
            raise InputError(f"{folder} is no published model: {file.name} is missing. `keras-vae publish` writes it.")
    try:
        content = json.loads(config_file.read_text())
        model = build_model(Config.from_dict(content["config"]).model, content["data"]["image_shape"], seed=seed)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"Damaged model: {config_file} is not the config of one ({error!r}).") from None
    try:
        with np.load(weights_file, allow_pickle=False) as arrays:
            model.set_weights([arrays[f"arr_{index}"] for index in range(len(arrays.files))])
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"Damaged model: {weights_file} does not fit {config_file.name} ({error}).") from None
    return model


def save(model, folder):
    """Writes weights.npz of a model that `build_model` made."""
    np.savez_compressed(Path(folder) / WEIGHTS, *model.get_weights())
