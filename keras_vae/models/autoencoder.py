"""The autoencoder: plain, sparse or denoising."""

import keras
from keras import ops

from keras_vae.layers import get_corruption
from keras_vae.models.base import LatentModel


@keras.saving.register_keras_serializable(package="keras_vae")
class Autoencoder(LatentModel):
    """An autoencoder: an encoder to a code z without noise, and a decoder.

    loss = -log p(x|z) + activity_penalty * sum(|z|), in nats, summed over the event and averaged over the batch. With
    `corruption` the encoder sees damaged examples and the loss compares with the clean ones: a denoising autoencoder.

    Args:
        encoder: Model, x [b, ...] -> z [b, d].
        decoder: Model, z [b, d] -> parameters of p(x|z), for most likelihoods shaped like x, not squashed.
        likelihood: Name of a likelihood or a likelihood layer: bernoulli is the cross-entropy on logits, gaussian
            is half the squared error plus a constant.
        corruption: None, "gaussian", "masking" or a layer.
        activity_penalty: Float, at least 0, the weight of the sum of absolute code values.
        seed: Int seed of the corruption, or None for a random one.
        condition: As for `VAE`.

    Example:

    >>> import numpy as np, keras_vae
    >>> model = keras_vae.Autoencoder.from_preset("denoising-autoencoder")
    >>> model.compile(optimizer="adam")
    >>> logs = model.evaluate(np.zeros((8, 28, 28, 1), "float32"), verbose=0, return_dict=True)
    >>> sorted(logs)
    ['loss', 'reconstruction_loss']

    Reference:
        Vincent et al., Stacked Denoising Autoencoders, 2010, sections 2.2 and 3.1.
    """

    def __init__(
        self,
        encoder,
        decoder,
        likelihood="bernoulli",
        corruption=None,
        activity_penalty=0.0,
        seed=None,
        condition=None,
        **kwargs,
    ):
        super().__init__(encoder, decoder, likelihood, condition, **kwargs)
        if not activity_penalty >= 0:
            raise ValueError(
                "Invalid value for argument `activity_penalty`. Expected at least 0. "
                f"Received: activity_penalty={activity_penalty}"
            )
        self.corruption = get_corruption(corruption, seed=seed) if isinstance(corruption, str) else corruption
        self.activity_penalty = activity_penalty
        self.seed = seed
        if getattr(encoder, "input_shape", None):  # a network of layers without shapes is built at first use
            self.build(encoder.input_shape)

    @property
    def latent_dim(self):
        """Number of code dimensions."""
        return self._latent_dim

    def build(self, input_shape):
        self._latent_dim = self._build_networks(input_shape, lambda latent_shape: {"z": latent_shape})[-1]
        if self.corruption is not None:
            self.corruption.build((None, *self.event_shape))
        self.built = True

    def loss_terms(self, x, condition=None, training=False):
        x = ops.cast(x, "float32")
        z = self.encoder(self._with(self.corrupt(x), condition), training=training)
        params = ops.cast(self.decoder(self._with(z, condition), training=training), "float32")
        reconstruction_loss = -self.likelihood.log_prob(x, params)
        activity = ops.sum(ops.abs(ops.cast(z, "float32")), axis=-1)
        loss = reconstruction_loss + self.activity_penalty * activity
        return {"loss": loss, "reconstruction_loss": reconstruction_loss}

    def corrupt(self, x):
        """x [b, ...] as the encoder sees it in training: damaged anew at each call, and still in range."""
        return x if self.corruption is None else self.likelihood.nearest(self.corruption(x))

    def encode(self, x, condition=None):
        """x [b, ...] -> z, float32 [b, d]. Nothing is corrupted."""
        x = self._with(x, condition)
        return ops.cast(self.encoder(x, training=False), "float32")

    def code(self, x, condition=None):
        """The same as `encode`."""
        return self.encode(x, condition)

    def get_config(self):
        return {
            **super().get_config(),
            "corruption": keras.saving.serialize_keras_object(self.corruption),
            "activity_penalty": self.activity_penalty,
            "seed": self.seed,
        }
