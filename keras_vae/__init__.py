"""Variational autoencoders in Keras: the public names, nothing else."""

import importlib
import sys

__version__ = "0.1.0"

_NAMES = {
    "Autoencoder": "models",
    "ConditionalVAE": "models",
    "HierarchicalVAE": "models",
    "NonFiniteLossError": "models",
    "VAE": "models",
    "Sampling": "layers",
    "Config": "config",
    "InputError": "config",
    "export_saved_models": "serving",
}
_MODULES = (
    "config",
    "data",
    "evaluation",
    "gaussian",
    "layers",
    "likelihoods",
    "models",
    "networks",
    "objectives",
    "plotting",
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


# Importing the models registers them with Keras, so that `keras.saving.load_model` finds them. The command line
# alone does without until a command needs it: `--help` must not wait for TensorFlow.
if "keras_vae_cli" not in sys.modules:
    importlib.import_module("keras_vae.models")
