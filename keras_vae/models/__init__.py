"""The models: one final class a file, over what all share in base.py."""

import tensorflow as tf

from keras_vae import conditions, likelihoods, networks, objectives, posteriors, priors
from keras_vae.config import InputError
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


def build_model(config, event_shape, seed=None):
    """Builds the untrained model that a `ModelConfig` describes.

    Args:
        config: A `keras_vae.config.ModelConfig`.
        event_shape: Shape of one example: (n,), (t, n) or (height, width, channels).
        seed: Int seed of the noise, or None. Weights follow `keras.utils.set_random_seed`.

    Returns:
        A `VAE`, a `HierarchicalVAE` or an `Autoencoder`.

    Raises:
        ValueError: for options that do not go together.

    Example:

    >>> from keras_vae.config import ModelConfig
    >>> from keras_vae.models import build_model
    >>> build_model(ModelConfig(latent_dim=2), (8, 8, 1)).latent_dim
    2
    """
    event_shape = tuple(event_shape)
    is_vae = config.model != "autoencoder"
    likelihood = likelihoods.get(config.likelihood.to_dict())
    posterior = posteriors.get(config.posterior.to_dict())
    condition = conditions.get(config.condition.to_dict())
    encoder, decoder = networks.build(
        config.network.to_dict(),
        event_shape,
        config.latent_dim,
        heads=posterior.head_shapes((config.latent_dim,)) if is_vae else {"z": (config.latent_dim,)},
        code_activation="linear" if is_vae else config.code_activation,
        param_shape=likelihood.param_shape(event_shape),
        condition=condition,
    )
    if config.model == "autoencoder":
        corruption = get_corruption(config.corruption.to_dict(), seed=seed)
        axes = likelihood, corruption, config.activity_penalty
        return Autoencoder(encoder, decoder, *axes, seed=seed, condition=condition)
    prior, objective = priors.get(config.prior.to_dict()), objectives.get(config.objective.to_dict())
    options = {"posterior": posterior, "prior": prior, "objective": objective, "seed": seed, "condition": condition}
    if (config.model == "hierarchical_vae") != bool(config.upper_latent_dims):
        raise InputError(
            "A hierarchical_vae has upper_latent_dims, and no other model has. "
            f"Received: model={config.model}, upper_latent_dims={config.upper_latent_dims}"
        )
    if config.model == "vae":
        return VAE(encoder, decoder, likelihood, **options)
    encoders, decoders = _with_upper_layers(config, encoder, decoder)
    return HierarchicalVAE(encoders, decoders, likelihood, **options)


def weight_shapes(config, event_shape):
    """Shapes of the weights of the model that `build_model` builds, without memory for them: a list of tuples.

    Raises:
        ValueError: as `build_model`.

    Example:

    >>> from keras_vae.config import ModelConfig
    >>> from keras_vae.models import weight_shapes
    >>> (64, 10**9) in weight_shapes(ModelConfig(network="linear", latent_dim=10**9), (8, 8, 1))
    True
    """
    with tf.Graph().as_default():  # in which nothing is computed
        return [tuple(weight.shape) for weight in build_model(config, event_shape).weights]


def _with_upper_layers(config, encoder, decoder):
    """Lists of the encoders and the decoders of all stochastic layers, the lowest first."""
    options = config.network.options
    shared = {name: options[name] for name in ("activation", "initializer") if name in options}
    encoders, decoders, below = [encoder], [decoder], config.latent_dim
    for latent_dim in config.upper_latent_dims:
        upper_encoder, upper_decoder = networks.build_latent(below, latent_dim, hidden=config.upper_hidden, **shared)
        encoders.append(upper_encoder)
        decoders.append(upper_decoder)
        below = latent_dim
    return encoders, decoders
