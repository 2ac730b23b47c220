"""Variational autoencoders in Keras: the public names, nothing else."""

import importlib
import sys
from pathlib import Path

from keras_vae import installed

__version__ = "0.1.0"

_NAMES = {
    "Autoencoder": "models",
    "HierarchicalVAE": "models",
    "NonFiniteLossError": "models",
    "VAE": "models",
    "Sampling": "layers",
    "Config": "config",
    "InputError": "config",
    "export_saved_models": "serving",
}
_MODULES = (
    "callbacks",
    "conditions",
    "config",
    "data",
    "evaluation",
    "gaussian",
    "layers",
    "kl",
    "likelihoods",
    "models",
    "networks",
    "noise",
    "objectives",
    "plotting",
    "posteriors",
    "presets",
    "priors",
    "serving",
    "training",
)

__all__ = [*_NAMES, *_MODULES]


def __getattr__(name):
    if name in _NAMES:
        return getattr(importlib.import_module(f"keras_vae.{_NAMES[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"keras_vae.{name}")
    raise AttributeError(f"module 'keras_vae' has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *__all__])


def _is_command_line():
    """Whether this process is the command `keras-vae` or `python -m keras_vae`."""
    arguments = getattr(sys, "argv", None) or [""]
    if arguments[0] == "-m":  # Python looks for the module: what follows it are the arguments
        return sys.orig_argv[-len(arguments)] == "keras_vae"
    return Path(arguments[0]).stem == "keras-vae"


# Importing the models registers them with Keras, so that `keras.saving.load_model` finds them. The command line
# alone does without until a command needs it: `--help` must not wait for TensorFlow.
if not _is_command_line():
    installed.check()
    importlib.import_module("keras_vae.models")
