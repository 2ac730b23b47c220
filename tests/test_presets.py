"""Presets are the systems that they name: their sizes are those of the published code."""

import numpy as np
import pytest

from keras_vae.config import Config, InputError
from keras_vae.models import build_model
from keras_vae.presets import PRESETS, get_preset

# Trainable parameters of encoder and decoder, counted by hand or published.
PARAMETERS = {
    "mlp": (784 * 400 + 400 + 2 * (400 * 20 + 20), 20 * 400 + 400 + 400 * 784 + 784),
    "mlp-128-100": (784 * 128 + 128 + 2 * (128 * 100 + 100), 100 * 128 + 128 + 128 * 784 + 784),
    "gaussian": (330_040, 322_784),
    "gaussian-learned": (330_040, 322_784),
    "beta": (330_040, 322_784),
    "conditional": (330_040 + 10 * 400, 322_784 + 10 * 400),
    "conv": (69_076, 65_089),  # as model.summary() prints on keras.io/examples/generative/vae
    "conv-threshold": (320 + 18_496 + 2304 * 4 + 4, 2 * 1568 + 1568 + 18_496 + 18_464 + 289),
    "pca": (784 * 32 + 32, 32 * 784 + 784),
    "autoencoder": (25_120, 25_872),
    "deep-autoencoder": (110_816, 784 * 128 + 784 + 128 * 64 + 128 + 64 * 32 + 64),
    "conv-autoencoder": (320 + 18_496 + 3136 * 32 + 32, 32 * 3136 + 3136 + 36_928 + 18_464 + 289),
    "sparse-autoencoder": (784 * 128 + 128 + 128 * 32 + 32, 32 * 128 + 128 + 128 * 784 + 784),
    "denoising-autoencoder": (119_200, 159_169),
    "burda-vae": (784 * 200 + 200 + 200 * 200 + 200 + 2 * (200 * 50 + 50), 50 * 200 + 200 + 40_200 + 200 * 784 + 784),
    "burda-2layer": (784 * 200 + 200 + 40_200 + 2 * (200 * 100 + 100), 100 * 200 + 200 + 40_200 + 200 * 784 + 784),
    "beta-tc": (330_040, 322_784),
}
PARAMETERS |= dict.fromkeys(
    ("vampprior", "vampprior-standard"),
    (2 * (784 * 300 + 300 + 90_300) + 2 * (300 * 40 + 40), 2 * (40 * 300 + 300 + 90_300) + 300 * 784 + 784),
)
PARAMETERS |= {name: PARAMETERS["burda-vae"] for name in ("burda-iwae", "burda-dreg")}
every_preset = pytest.mark.parametrize("name", PRESETS)


@every_preset
def test_preset_has_the_size_of_its_system_and_its_loss_is_finite(name):
    model = build_model(PRESETS[name].config.model, (28, 28, 1))
    assert (model.encoder.count_params(), model.decoder.count_params()) == PARAMETERS[name]
    images = np.random.default_rng(0).uniform(size=(2, 28, 28, 1)).astype("float32")
    condition = np.array([3, 7]) if model.takes_labels else None
    terms = model.loss_terms(images, condition, training=True)
    assert all(np.all(np.isfinite(value)) for value in terms.values())


@every_preset
def test_preset_survives_json_and_knows_its_name(name):
    config = get_preset(name).config
    assert Config.from_json(config.to_json()) == config
    assert config.preset == name


# What the table of presets promises beyond the network: fields of the config.
SETTINGS = {
    "mlp": {"likelihood": "bernoulli", "epochs": 15, "batch_size": 128, "learning_rate": 1e-3, "binarization": "none"},
    "mlp-128-100": {"epochs": 30, "batch_size": 64, "sample_every": 1000, "learning_rate": 1e-3},
    "gaussian": {"likelihood": "gaussian", "scale": 1.0, "learn_scale": False},
    "gaussian-learned": {"likelihood": "gaussian", "learn_scale": True},
    "beta": {"beta": 4.0},
    "conditional": {"condition": "label", "num_classes": 10, "epochs": 15},
    "conv": {"latent_dim": 2, "epochs": 30, "batch_size": 128},
    "conv-threshold": {"latent_dim": 2, "binarization": "threshold", "batch_size": 32, "learning_rate": 1e-4},
    "pca": {"model": "autoencoder", "likelihood": "gaussian", "latent_dim": 32, "code_activation": "linear"},
    "denoising-autoencoder": {"model": "autoencoder", "corruption": "gaussian"},
    "burda-vae": {"objective": "elbo", "binarization": "dynamic", "activation": "tanh"},
    "burda-iwae": {"objective": "iwae", "importance_samples": 50, "binarization": "dynamic"},
    "burda-dreg": {"objective": "dreg", "importance_samples": 50, "binarization": "dynamic"},
    "burda-2layer": {"model": "hierarchical_vae", "upper_latent_dims": (50,), "objective": "iwae"},
    "beta-tc": {"objective": "beta_tc", "beta": 4.25},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_preset_has_the_settings_of_its_system(name):
    config = get_preset(name).config
    assert config.replace(**SETTINGS[name]) == config


def test_sparse_autoencoder_is_penalised():
    assert get_preset("sparse-autoencoder").config.model.activity_penalty > 0
    assert get_preset("autoencoder").config.model.activity_penalty == 0


def test_unknown_preset_is_refused_with_the_choices():
    with pytest.raises(InputError, match=r"'mpl'.*mlp, mlp-128-100"):
        get_preset("mpl")
