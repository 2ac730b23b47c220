"""Presets: a name -> a choice on all axes plus training settings. Standard library only."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from keras_vae import registry
from keras_vae.config import Choice, Config, InputError, sections

DEFAULT = "mlp"  # what is trained where no preset is named
WEIGHTS = Path(__file__).parent / "weights"  # trained models: DATASET/PRESET, as `keras-vae publish` writes them


@dataclass(frozen=True)
class Preset:
    """A named config, the system that it rebuilds, and what to see when it is trained on MNIST."""

    config: Config
    system: str
    expect: str


def _preset(name, system, expect, **values):
    return Preset(Config(preset=name).replace(**values), system, expect)


_AUTOENCODER = {"model": "autoencoder", "latent_dim": 32, "nll_samples": 0}
_CONV = {"network": "conv", "hidden": (32, 64)}
# Burda et al., Importance Weighted Autoencoders, 2016, section 5 and their code; their schedule is 3,280 epochs.
_BURDA = {
    "hidden": (200, 200),
    "activation": "tanh",
    "latent_dim": 50,
    "initializer": "glorot_uniform",
    "output_bias": "data_mean",
    "binarization": "dynamic",
    "schedule": "cosine",
}
# Tomczak and Welling, VAE with a VampPrior, 2018, section 4: the VAE with one stochastic layer.
_VAMP = {
    "network": "gated",
    "hidden": (300, 300),
    "latent_dim": 40,
    "initializer": "glorot_uniform",
    "binarization": "dynamic",
    "schedule": "cosine",
    "batch_size": 100,
    "epochs": 100,
}
_BURDA_K50 = {**_BURDA, "importance_samples": 50, "batch_size": 50, "epochs": 30}

PRESETS = {
    preset.config.preset: preset
    for preset in (
        _preset(
            "mlp",
            "784-400-20, the VAE of the tutorials",
            "test loss at most 104.7",
            output_bias="data_mean",
        ),
        _preset(
            "mlp-128-100",
            "784-128-100, Bernoulli on logits",
            "test loss at most 107",
            hidden=(128,),
            latent_dim=100,
            batch_size=64,
            epochs=30,
            sample_every=1000,
        ),
        _preset(
            "gaussian",
            "Doersch's tutorial: pixels are N(f(z), 1)",
            "MSE per pixel well under 0.0674",
            likelihood="gaussian",
        ),
        _preset(
            "gaussian-learned",
            "the same with the scale learned",
            "NLL far better than gaussian; scale near the residual",
            likelihood="gaussian",
            learn_scale=True,
        ),
        _preset(
            "beta",
            "beta-VAE, beta = 4, on the mlp",
            "fewer active units, higher reconstruction loss",
            beta=4.0,
            output_bias="data_mean",
        ),
        _preset(
            "conditional",
            "784-400-20 with the label in encoder and decoder",
            "test loss given the label at most 100.5; ten rows of digits",
            condition="label",
            output_bias="data_mean",
        ),
        _preset(
            "conv",
            "the Keras example: conv 32-64, dense 16, z 2",
            "test loss at most 153",
            **_CONV,
            dense=16,
            latent_dim=2,
            epochs=30,
        ),
        _preset(
            "conv-threshold",
            "the TensorFlow tutorial's convolutional VAE, z 2",
            "test ELBO at least -156",
            **_CONV,
            padding="valid",
            initializer="glorot_uniform",
            decoder_channels=32,
            latent_dim=2,
            binarization="threshold",
            batch_size=32,
            epochs=10,
            learning_rate=1e-4,
        ),
        _preset(
            "pca",
            "linear autoencoder, z 32, squared error",
            "MSE within 1 % of PCA with 32 components",
            model="autoencoder",
            network="linear",
            latent_dim=32,
            likelihood="gaussian",
            epochs=20,
            schedule="cosine",
            learning_rate=3e-3,
            nll_samples=0,
        ),
        _preset(
            "autoencoder",
            "784-32-784, cross-entropy",
            "MSE far under PCA's",
            **_AUTOENCODER,
            hidden=(),
            epochs=20,
        ),
        _preset(
            "deep-autoencoder",
            "784-128-64-32 and back, cross-entropy",
            "MSE far under PCA's",
            **_AUTOENCODER,
            hidden=(128, 64),
            epochs=30,
        ),
        _preset(
            "conv-autoencoder",
            "conv 32-64, z 32, cross-entropy",
            "MSE far under PCA's",
            **_AUTOENCODER,
            **_CONV,
            epochs=5,
        ),
        _preset(
            "sparse-autoencoder",
            "784-128-32-128-784 with an L1 penalty on the code",
            "MSE far under PCA's, some code values 0",
            **_AUTOENCODER,
            hidden=(128,),
            code_activation="relu",
            activity_penalty=0.1,
            epochs=20,
        ),
        _preset(
            "denoising-autoencoder",
            "conv 32-64, Gaussian noise 0.5 on the input",
            "error of noisy digits several times lower",
            **_AUTOENCODER,
            **_CONV,
            corruption="gaussian",
            epochs=5,
        ),
        _preset(
            "burda-vae",
            "Burda et al.'s VAE, 784-200-200-50, k = 1",
            "NLL at most 88.5",
            **_BURDA,
            epochs=400,
            batch_size=100,
        ),
        _preset(
            "burda-iwae",
            "the same as an IWAE, k = 50",
            "NLL at most 87.3",
            **_BURDA_K50,
            objective="iwae",
        ),
        _preset(
            "burda-dreg",
            "the same with doubly reparameterized gradients",
            "NLL lower than burda-iwae",
            **_BURDA_K50,
            objective="dreg",
        ),
        _preset(
            "burda-2layer",
            "the same with two stochastic layers, z 100 and 50",
            "NLL lower than burda-iwae",
            **{**_BURDA_K50, "latent_dim": 100},
            model="hierarchical_vae",
            upper_latent_dims=(50,),
            upper_hidden=(100, 100),
            objective="iwae",
        ),
        _preset(
            "vampprior",
            "gated 300-300, z 40, VampPrior with 500 pseudo-inputs",
            "NLL at least 1 nat lower than vampprior-standard",
            **_VAMP,
            prior="vampprior",
        ),
        _preset(
            "vampprior-standard",
            "the same network with the standard prior",
            "the row above against this one",
            **_VAMP,
        ),
        _preset(
            "beta-tc",
            "beta-TC-VAE, beta = 4.25, on the mlp",
            "total correlation beside beta's at equal reconstruction",
            objective="beta_tc",
            beta=4.25,
            output_bias="data_mean",
        ),
    )
}


def get_preset(name):
    """Returns the preset of that name.

    Raises:
        InputError: for an unknown name.

    Example:

    >>> from keras_vae.presets import get_preset
    >>> get_preset("beta").config.model.beta
    4.0
    """
    if name not in PRESETS:
        raise InputError(f"Unknown preset {name!r}. Expected one of: {', '.join(PRESETS)}.")
    return PRESETS[name]


def command(*words: object) -> str:
    """A command of this package as a shell takes it.

    Example:

    >>> from keras_vae.presets import command
    >>> command("evaluate", "runs/a b")
    "keras-vae evaluate 'runs/a b'"
    """
    return shlex.join(["keras-vae", *map(str, words)])


def train_command(config, run_dir=None):
    """The command that trains a config: its preset, and the options in which it differs from that.

    Example:

    >>> from keras_vae.presets import get_preset, train_command
    >>> train_command(get_preset("conv").config.replace(latent_dim=3, dense=9), "runs/a")
    'keras-vae train conv --latent-dim 3 --dense 9 --run-dir runs/a'
    """
    preset = config.preset if config.preset in PRESETS else DEFAULT
    where = [] if run_dir is None else ["--run-dir", run_dir]
    return command("train", preset, *options(config, PRESETS[preset].config), *where)


def options(config, base):
    """The words of the command line that turn the config `base` into `config`."""
    words = []
    for section in sections(config):
        before, after = (vars(sections(one)[section]) for one in (base, config))
        changed = {name: given for name, given in after.items() if isinstance(given, Choice) and given != before[name]}
        others = {name: Choice(name, str(given)) for name, given in changed.items() if str(given) != str(before[name])}
        before, after = {**_flat(before), **_options(others), **_names(before)}, _flat(after)
        for name, value in after.items():
            if value is None or value == before[name]:
                continue
            flag = name.replace("_", "-")
            if isinstance(value, bool):
                words.append(f"--{flag}" if value else f"--no-{flag}")
            else:
                words += [f"--{flag}", ",".join(map(str, value)) if isinstance(value, tuple) else value]
    return words


def _flat(fields):
    """The fields of a section, and the options of the members that it chooses, as the command line names them."""
    return {**fields, **_names(fields), **_options(fields)}


def _names(fields):
    return {name: str(value) for name, value in fields.items() if isinstance(value, Choice)}


def _options(fields):
    return {
        registry.SPELLINGS.get((value.axis, option), option): given
        for value in fields.values()
        if isinstance(value, Choice)
        for option, given in value.options.items()
    }


def weights_of(name):
    """Names of the data sets for which the package holds a trained model of a preset.

    Example:

    >>> from keras_vae.presets import weights_of
    >>> weights_of("mlp")
    ['mnist']
    """
    return sorted(folder.parent.name for folder in WEIGHTS.glob(f"*/{name}") if name in PRESETS)


def find_weights(name, weights):
    """Folder of the trained model of a preset.

    Args:
        name: Name of the preset.
        weights: Name of the data set that it was trained on.

    Raises:
        InputError: if the package does not hold it.
    """
    if weights not in weights_of(get_preset(name).config.preset):
        known = ", ".join(f"{preset} ({data})" for preset in PRESETS for data in weights_of(preset))
        raise InputError(f"There are no weights {weights!r} of preset {name!r}. Expected one of: {known}.")
    return WEIGHTS / weights / name
