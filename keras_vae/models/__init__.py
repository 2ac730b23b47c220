"""The models: one final class a file, over the one train_step in base.py."""

from keras_vae import likelihoods, networks, objectives
from keras_vae.layers import get_corruption
from keras_vae.models.autoencoder import Autoencoder
from keras_vae.models.base import LatentModel, NonFiniteLossError
from keras_vae.models.vae import VAE

__all__ = ["VAE", "Autoencoder", "LatentModel", "NonFiniteLossError", "build_model"]


def build_model(config, image_shape, seed=None):
    """Builds the untrained model that a `ModelConfig` describes.

    Args:
        config: A `keras_vae.config.ModelConfig`.
        image_shape: Triple (height, width, channels).
        seed: Int seed of the noise, or None. Weights follow `keras.utils.set_random_seed`.

    Returns:
        A `VAE` or an `Autoencoder`.

    Example:

    >>> from keras_vae.config import ModelConfig
    >>> from keras_vae.models import build_model
    >>> build_model(ModelConfig(latent_dim=2), (8, 8, 1)).latent_dim
    2
    """
    options = {"gaussian": {"scale": config.scale, "learn_scale": config.learn_scale}}
    likelihood = likelihoods.get(config.likelihood, **options.get(config.likelihood, {}))
    is_vae = config.model == "vae"
    encoder, decoder = networks.build(
        config.network,
        image_shape,
        config.latent_dim,
        hidden=config.hidden,
        activation=config.activation,
        dense=config.dense,
        decoder_channels=config.decoder_channels,
        padding=config.padding,
        initializer=config.initializer,
        heads=("z_mean", "z_log_var") if is_vae else ("z",),
        code_activation="linear" if is_vae else config.code_activation,
        params_per_channel=likelihood.params_per_channel,
    )
    if is_vae:
        objective = objectives.get(config.objective, beta=config.beta, warmup_steps=config.warmup_steps)
        return VAE(encoder, decoder, likelihood, config.prior, objective, seed=seed)
    corruption = None
    if config.corruption != "none":
        corruption = get_corruption(config.corruption, rate=config.corruption_rate, seed=seed)
    return Autoencoder(encoder, decoder, likelihood, corruption, config.activity_penalty, seed=seed)
