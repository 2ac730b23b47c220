"""The variational autoencoder."""

import keras
import numpy as np
from keras import ops

from keras_vae import objectives, priors
from keras_vae.config import InputError
from keras_vae.layers import Sampling
from keras_vae.models.base import LatentModel


@keras.saving.register_keras_serializable(package="keras_vae")
class VAE(LatentModel):
    """A variational autoencoder.

    loss = -log p(x|z) + beta * KL(q(z|x) || p(z)), in nats, summed over pixels and latent dimensions and averaged
    over the images. `evaluate` and the logs of `fit` give loss, reconstruction_loss and kl_loss.

    Args:
        encoder: Model, x [b, ...] -> the heads of q(z|x), such as z_mean and z_log_var, each [b, d].
        decoder: Model, z [b, d] -> parameters of p(x|z), for most likelihoods shaped like x, not squashed.
        likelihood: Name of a likelihood or a likelihood layer: p(x|z).
        posterior: Name of a posterior or a posterior layer: q(z|x).
        prior: Name of a prior or a prior layer: p(z).
        objective: Name of an objective, or an objective with its parameters, as `objectives.IWAE(k=50)`. By name with
            its parameters it is a dict, {"name": "iwae", "k": 50}; so are a likelihood and a prior.
        beta: Weight of the KL term ("elbo") or of the total correlation ("beta_tc"), for an objective given by name.
        seed: Int seed of the noise, or None for a random one.
        condition: Name of a condition, or a condition such as `conditions.Label(10)`: encoder and decoder then take
            lists [x, condition] and [z, condition], `fit` takes it as y, and the methods as the argument `condition`.

    Example:

    >>> import keras, numpy as np, keras_vae
    >>> image = keras.Input((28, 28, 1))
    >>> hidden = keras.layers.Dense(32, activation="relu")(keras.layers.Flatten()(image))
    >>> encoder = keras.Model(image, [keras.layers.Dense(2)(hidden), keras.layers.Dense(2)(hidden)])
    >>> decoder = keras.Sequential([
    ...     keras.Input((2,)),
    ...     keras.layers.Dense(784),  # logits: no activation
    ...     keras.layers.Reshape((28, 28, 1)),
    ... ])
    >>> vae = keras_vae.VAE(encoder, decoder, likelihood="bernoulli")
    >>> vae.compile(optimizer="adam")
    >>> history = vae.fit(np.zeros((8, 28, 28, 1), "float32"), epochs=1, verbose=0)
    >>> sorted(history.history)
    ['kl_loss', 'loss', 'reconstruction_loss']
    >>> tuple(vae.generate(4, seed=1).shape)
    (4, 28, 28, 1)

    Reference:
        Kingma and Welling, Auto-Encoding Variational Bayes, 2014, equation 10.
    """

    def __init__(
        self,
        encoder,
        decoder,
        likelihood="bernoulli",
        posterior="diagonal_gaussian",
        prior="standard_normal",
        objective="elbo",
        beta=1.0,
        seed=None,
        condition=None,
        **kwargs,
    ):
        if beta != 1.0 and objective not in ("elbo", "beta_tc"):
            raise InputError(
                "Argument `beta` goes with an objective given by name, elbo or beta_tc. "
                f"Received: beta={beta}, objective={objective}"
            )
        objective = objectives.get(objective, **({} if beta == 1.0 else {"beta": beta}))
        self.term_names = objective.term_names
        super().__init__(encoder, decoder, likelihood, condition, **kwargs)
        self.objective = objective
        self.sampling = Sampling(prior, posterior, seed=seed, name="sampling")
        if self.condition is not None and isinstance(self.prior, priors.VampPrior):
            raise InputError("A model with a condition has no vampprior: pseudo-inputs have no condition.")
        if getattr(encoder, "input_shape", None):  # a network of layers without shapes is built at first use
            self.build(encoder.input_shape)

    @property
    def prior(self):
        """The prior layer p(z)."""
        return self.sampling.prior

    @property
    def posterior(self):
        """The posterior layer q(z|x)."""
        return self.sampling.posterior

    @property
    def latent_dim(self):
        """Number of latent dimensions of the z that `decode` takes."""
        if not self.built:
            raise InputError(
                "The model is not built, and its networks do not say their shapes: call it on images first."
            )
        return self._latent_dim

    def build(self, input_shape):
        z_shape = self._build_networks(input_shape, self.posterior.head_shapes)
        self._latent_dim = z_shape[-1]
        head_shapes = [(None, *shape) for shape in self.posterior.head_shapes(z_shape[1:]).values()]
        self.posterior.build(head_shapes)
        self.prior.bind(self.encoder, self.event_shape, self.posterior)
        self.sampling.build(head_shapes)
        self.built = True

    def loss_terms(self, x, condition=None, training=False):
        heads = self.encoder(self._with(x, condition), training=training)
        return self.objective.terms(
            self.sampling.draw(heads, self.objective.num_samples),
            decode=lambda z: self.log_likelihood(x, z, condition, training),
            step=self.step if training else None,
        )

    def lowest(self, z):
        """The part of a drawn z that the decoder takes: all of it, but for a model of several layers."""
        return z

    def log_likelihood(self, x, z, condition=None, training=False):
        """log p(x|z) of examples under several z each.

        Args:
            x: Float32 [b, ...].
            z: Float [s, b, d].
            condition: Conditions [b, ...], of a model that takes them.
            training: Bool.

        Returns:
            Float32 [s, b], nats.
        """
        z = self.lowest(z)
        repeated = None
        if condition is not None:
            repeated = ops.tile(condition, (ops.shape(z)[0], *(1,) * len(self.condition.event_shape)))  # (s * b, ...)
        flat = self._with(ops.reshape(z, (-1, z.shape[-1])), repeated)
        params = ops.cast(self.decoder(flat, training=training), "float32")
        params = ops.reshape(params, (*ops.shape(z)[:1], -1, *params.shape[1:]))
        return self.likelihood.log_prob(ops.cast(x, "float32"), params)

    def encode(self, x, condition=None):
        """x [b, ...] -> the heads of q(z|x), such as (z_mean, z_log_var): float32, each [b, d]."""
        heads = self.encoder(self._with(x, condition), training=False)
        return tuple(ops.cast(head, "float32") for head in heads)

    def code(self, x, condition=None):
        """x [b, ...] -> the mean of q(z|x), float32 [b, d]."""
        return self.posterior.mean(self.encode(x, condition))

    def generate(self, num_samples, seed=None, condition=None):
        """Decodes draws from the prior.

        Args:
            num_samples: Int, n.
            seed: Int, or None for other examples at each call.
            condition: Conditions [n, ...], of a model that takes them, or one for all n.

        Returns:
            Float32 [n, ...]: means of p(x|z), z ~ p(z).
        """
        self.latent_dim  # noqa: B018  raises where the model is not built
        one_for_all = condition is not None and self.condition is not None
        if one_for_all and np.shape(condition) == self.condition.event_shape:
            condition = np.repeat(np.asarray(condition)[None], num_samples, axis=0)
        return self.decode(self.lowest(self.prior.sample(num_samples, seed)), condition)

    def audit(self, images, labels=None, seed=0, seconds=10.0):
        """Checks the numbers of this model against the formulas; see `keras_vae.evaluation.audit`.

        Args:
            images: Float32 [n, ...], pixels in [0, 1], as the model was trained.
            labels: Int [n], for a model that takes them.
            seed: Int seed of the noise.
            seconds: Float, about how long it may take.

        Returns:
            List of `keras_vae.evaluation.Finding`.
        """
        from keras_vae import evaluation

        return evaluation.audit(self, images, labels=labels, seed=seed, seconds=seconds)

    def get_config(self):
        return {
            **super().get_config(),
            "posterior": keras.saving.serialize_keras_object(self.posterior),
            "prior": keras.saving.serialize_keras_object(self.prior),
            "objective": keras.saving.serialize_keras_object(self.objective),
            "seed": self.sampling.seed,
        }
