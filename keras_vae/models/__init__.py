"""The models: one final class a file, over what all share in base.py."""

import inspect

import keras

from keras_vae import conditions, likelihoods, networks, objectives, posteriors, priors
from keras_vae.config import InputError, ModelConfig
from keras_vae.layers import get_corruption
from keras_vae.models.autoencoder import Autoencoder
from keras_vae.models.base import LatentModel
from keras_vae.models.hierarchical import HierarchicalVAE
from keras_vae.models.vae import VAE
from keras_vae.train import NonFiniteLossError

__all__ = [
    "VAE",
    "Autoencoder",
    "HierarchicalVAE",
    "LatentModel",
    "NonFiniteLossError",
    "build_model",
    "weight_shapes",
]

# What each objective is made with: config field -> argument. A field of another objective is refused.
OBJECTIVE_OPTIONS = {
    "elbo": {name: name for name in ("beta", "warmup_steps", "cycle_steps", "free_bits")},
    "iwae": {"importance_samples": "k"},
    "dreg": {"importance_samples": "k"},
    "miwae": {"importance_samples": "k", "importance_groups": "m"},
    "beta_tc": {"beta": "beta"},
}


def build_model(config, image_shape, seed=None):
    """Builds the untrained model that a `ModelConfig` describes.

    Args:
        config: A `keras_vae.config.ModelConfig`.
        image_shape: Triple (height, width, channels).
        seed: Int seed of the noise, or None. Weights follow `keras.utils.set_random_seed`.

    Returns:
        A `VAE`, a `ConditionalVAE`, a `HierarchicalVAE` or an `Autoencoder`.

    Raises:
        ValueError: for options that do not go together.

    Example:

    >>> from keras_vae.config import ModelConfig
    >>> from keras_vae.models import build_model
    >>> build_model(ModelConfig(latent_dim=2), (8, 8, 1)).latent_dim
    2
    """
    options = {"gaussian": {"scale": config.scale, "learn_scale": config.learn_scale}}
    likelihood = likelihoods.get(config.likelihood, **options.get(config.likelihood, {}))
    is_vae = config.model != "autoencoder"
    posterior = posteriors.get(config.posterior)
    taken = inspect.signature(networks.NETWORKS[config.network]).parameters
    condition = conditions.get("label", num_classes=config.num_classes) if config.model == "conditional_vae" else None
    encoder, decoder = networks.build(
        config.network,
        image_shape,
        config.latent_dim,
        heads=posterior.head_shapes((config.latent_dim,)) if is_vae else {"z": (config.latent_dim,)},
        code_activation="linear" if is_vae else config.code_activation,
        param_shape=likelihood.param_shape(image_shape),
        condition=condition,
        **{name: getattr(config, name) for name in taken},
    )
    if is_vae:
        takes_components = config.prior != "standard_normal"
        prior = priors.get(config.prior, **({"num_components": config.prior_components} if takes_components else {}))
        axes = likelihood, posterior, prior, _objective(config)
        if not config.upper_latent_dims and config.model in ("vae", "conditional_vae"):
            return VAE(encoder, decoder, *axes, seed=seed, condition=condition)
        encoders, decoders = _with_upper_layers(config, encoder, decoder)
        return HierarchicalVAE(encoders, decoders, *axes, seed=seed)
    corruption = None
    if config.corruption != "none":
        corruption = get_corruption(config.corruption, rate=config.corruption_rate, seed=seed)
    return Autoencoder(encoder, decoder, likelihood, corruption, config.activity_penalty, seed=seed)


def weight_shapes(config, image_shape):
    """Shapes of the weights of the model that `build_model` builds, without memory for them: a list of tuples.

    Raises:
        ValueError: as `build_model`.

    Example:

    >>> from keras_vae.config import ModelConfig
    >>> from keras_vae.models import weight_shapes
    >>> weight_shapes(ModelConfig(network="linear", latent_dim=10**9), (8, 8, 1))[0]
    (64, 1000000000)
    """
    with keras.StatelessScope():  # in which variables wait for their values
        return [tuple(weight.shape) for weight in build_model(config, image_shape).weights]


def _objective(config):
    options = OBJECTIVE_OPTIONS[config.objective]
    for other in sorted(set().union(*OBJECTIVE_OPTIONS.values()) - set(options)):
        if getattr(config, other) != getattr(ModelConfig, other):
            takes = ", ".join(name for name, fields in OBJECTIVE_OPTIONS.items() if other in fields)
            raise InputError(f"Objective {config.objective} has no {other}: it goes with {takes}.")
    return objectives.get(config.objective, **{name: getattr(config, field) for field, name in options.items()})


def _with_upper_layers(config, encoder, decoder):
    """Lists of the encoders and the decoders of all stochastic layers, the lowest first."""
    if config.model != "hierarchical_vae" or not config.upper_latent_dims:
        raise InputError(
            "A hierarchical_vae has upper_latent_dims, and no other model has. "
            f"Received: model={config.model}, upper_latent_dims={config.upper_latent_dims}"
        )
    encoders, decoders, below = [encoder], [decoder], config.latent_dim
    for latent_dim in config.upper_latent_dims:
        upper_encoder, upper_decoder = networks.build_latent(
            below, latent_dim, hidden=config.upper_hidden, activation=config.activation, initializer=config.initializer
        )
        encoders.append(upper_encoder)
        decoders.append(upper_decoder)
        below = latent_dim
    return encoders, decoders
