"""Published models: a folder with config.json and weights.npz, from which nothing is executed.

The networks are built from the config, as by `build_model`, and the weights are plain arrays in the order of
`get_weights`. Keras's own files are matched by layer names that Keras numbers by itself, and may hold code.
"""

from pathlib import Path

import numpy as np

from keras_vae import files, npz, records
from keras_vae.config import InputError

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
    from keras_vae.models import build_model, weight_shapes

    config_file, weights_file = Path(folder) / "config.json", Path(folder) / WEIGHTS
    for file in (config_file, weights_file):
        if not file.is_file():
            raise InputError(f"{folder} is no published model: {file.name} is missing. `keras-vae publish` writes it.")
    try:
        config, facts = records.parse_config(files.read_bytes(config_file, records.LIMIT))
        event_shape = facts["data"]["event_shape"]
        expected = weight_shapes(config.model, event_shape)  # before memory is taken for them
    except (OSError, ValueError, TypeError, KeyError, OverflowError) as error:
        raise InputError(f"Damaged model: {config_file} is not the config of one ({error!r}).") from None
    try:
        found = {name: shape for name, (shape, _) in npz.headers(weights_file).items()}
        if [found.get(f"arr_{index}") for index in range(len(found))] != expected:
            raise ValueError(f"it holds arrays of other shapes: {list(found.values())} instead of {expected}")
        arrays = npz.read(weights_file)
    except (ValueError, OSError) as error:
        raise InputError(f"Damaged model: {weights_file} does not fit {config_file.name} ({error}).") from None
    model = build_model(config.model, event_shape, seed=seed)
    model.set_weights([arrays[f"arr_{index}"] for index in range(len(arrays))])
    return model


def save(model, folder):
    """Writes weights.npz of a model that `build_model` made."""
    np.savez_compressed(Path(folder) / WEIGHTS, *model.get_weights())
