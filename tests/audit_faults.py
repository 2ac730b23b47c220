"""THE table of faults that the audit is to find: one row each, planted into a small model that is right otherwise.

    python tests/audit_faults.py

prints it as docs/evaluation.md shows it; tests/test_audit.py plants each and compares.
"""

import math
from dataclasses import dataclass, field

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_vae import gaussian, kl, likelihoods, objectives, posteriors, priors
from keras_vae import noise as noises
from keras_vae.config import ModelConfig
from keras_vae.evaluation import audit as run_audit
from keras_vae.evaluation import card, evaluate, marginal
from keras_vae.evaluation.audit import densities, likelihood, networks, terms, written
from keras_vae.models import VAE, build_model

PIXELS = 64
BINARY = np.random.default_rng(0).integers(0, 2, (100, 8, 8, 1)).astype("float32")


def small(**values):
    """An untrained VAE whose q(z|x) is far from the prior, and whose decoder listens to z."""
    keras.utils.set_random_seed(0)
    vae = build_model(ModelConfig(hidden=(8,), latent_dim=3, **values), (8, 8, 1), seed=0)
    return listening(vae)


def listening(vae):
    vae.encoder.get_layer("z_log_var").bias.assign([-4.0, -3.0, -2.0])
    vae.encoder.get_layer("z_mean").kernel.assign(3 * vae.encoder.get_layer("z_mean").kernel)
    vae.decoder.weights[0].assign(5 * vae.decoder.weights[0])
    return vae


def with_parts(likelihood="bernoulli", prior="standard_normal", objective="elbo", posterior="diagonal_gaussian"):
    vae = small()
    return VAE(vae.encoder, vae.decoder, likelihood, posterior, prior, objective, seed=0)


def own(encoder_heads=(None, None), decoder_end=None):
    """A VAE of networks of one's own, which end in these activations."""
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 1))
    hidden = keras.layers.Dense(8, activation="tanh")(keras.layers.Flatten()(image))
    heads = [keras.layers.Dense(3, activation=each)(hidden) for each in encoder_heads]
    end = [keras.layers.Dense(PIXELS, activation=decoder_end), keras.layers.Reshape((8, 8, 1))]
    decoder = keras.Sequential([keras.Input((3,)), keras.layers.Dense(8, activation="tanh"), *end])
    return VAE(keras.Model(image, heads), decoder, seed=0)


def plant(vae, **changed):
    """Gives `vae` other terms of its loss: name -> function of the dict of the right ones."""
    right = vae.loss_terms

    def loss_terms(x, condition=None, training=False):
        found = right(x, condition, training)
        return found | {name: function(found) for name, function in changed.items()}

    vae.loss_terms = loss_terms
    return vae


# -- priors of one's own ----------------------------------------------------------------------------------------------


class OwnPrior(priors.Prior):
    """N(0, I), right."""

    log_constant, draws_std = -0.5 * math.log(2 * math.pi), 1.0

    def log_prob(self, z):
        return ops.sum(self.log_constant - 0.5 * ops.square(z), axis=-1)

    def sample(self, num_samples, noise=None):
        return self.draws_std * noises.get(noise)((1, num_samples, self.latent_dim), "own")[0]


class Unnormalised(OwnPrior):
    log_constant = 0.0


class WideDraws(OwnPrior):
    draws_std = 2.0


class ConstantDraws(OwnPrior):
    def sample(self, num_samples, noise=None):
        return ops.ones((num_samples, self.latent_dim))


class OneDrawForAll(OwnPrior):
    def sample(self, num_samples, noise=None):
        return ops.tile(noises.get(noise)((1, 1, self.latent_dim), "own")[0], (num_samples, 1))


class OneDrawForAllDimensions(OwnPrior):
    def sample(self, num_samples, noise=None):
        return ops.tile(noises.get(noise)((1, num_samples, 1), "own")[0], (1, self.latent_dim))


class DeafToSeeds(OwnPrior):
    def sample(self, num_samples, noise=None):
        return noises.get(7)((1, num_samples, self.latent_dim), "own")[0]


def with_kl(wrong):
    """A prior whose KL is what `wrong` makes of the right one."""

    class WrongKL(priors.StandardNormal):
        pass

    @kl.closed_form(posteriors.DiagonalGaussian, WrongKL)
    def groups(posterior, prior, heads, z, log_q):
        right, _ = kl.CLOSED_FORMS[posteriors.DiagonalGaussian, priors.StandardNormal]
        return wrong(right(posterior, prior, heads, z, log_q))

    return with_parts(prior=WrongKL())


class HighDensity(priors.StandardNormal):
    def log_prob(self, z):
        return super().log_prob(z) + 3.0


class MixtureWithoutConstant(priors.GaussianMixture):
    def log_prob(self, z):
        return super().log_prob(z) + 0.5 * self.latent_dim * math.log(2 * math.pi)


class MixtureOfRawWeights(priors.GaussianMixture):
    def log_prob(self, z):
        return super().log_prob(z) + ops.logsumexp(self.logits)


class MixtureOfOneDraw(priors.GaussianMixture):
    def sample(self, num_samples, noise=None):
        return self.means[:1] + noises.get(noise)((1, num_samples, self.latent_dim), "own")[0]


def mixture_patched(patch, change):
    """A mixture whose formula in the package is another."""
    right = priors.gaussian.mixture_log_prob
    patch.setattr(priors.gaussian, "mixture_log_prob", lambda z, *parts: right(z, *parts) + change(*parts))
    return with_parts(prior=priors.GaussianMixture(4))


# -- likelihoods ------------------------------------------------------------------------------------------------------


class ClippedBernoulli(likelihoods.Bernoulli):
    def log_prob(self, x, params):
        p = ops.clip(ops.sigmoid(params), 1e-7, 1 - 1e-7)
        return ops.sum(x * ops.log(p) + (1 - x) * ops.log(1 - p), axis=(-3, -2, -1))


class MeanBernoulli(likelihoods.Bernoulli):
    def log_prob(self, x, params):
        return super().log_prob(x, params) / PIXELS


class DroppedConstant(likelihoods.Gaussian):
    def log_prob(self, x, params):
        return super().log_prob(x, params) + 0.5 * math.log(2 * math.pi) * PIXELS


class DroppedScale(likelihoods.Gaussian):
    def log_prob(self, x, params):
        return super().log_prob(x, params) + math.log(0.3) * PIXELS


class SquaredError(likelihoods.Gaussian):
    def log_prob(self, x, params):
        return -ops.sum(ops.square(x - params), axis=(-3, -2, -1))


class DroppedNormaliser(likelihoods.ContinuousBernoulli):
    def log_prob(self, x, params):
        return likelihoods.Bernoulli().log_prob(x, params)


class MeanLogistic(likelihoods.DiscretizedLogistic):
    def log_prob(self, x, params):
        return super().log_prob(x, params) / math.prod(x.shape[-3:])


class SigmoidTwice(likelihoods.Bernoulli):
    def mean(self, logits):
        return ops.sigmoid(ops.sigmoid(logits))


class DrawsOfAnotherMean(likelihoods.Bernoulli):
    def sample(self, logits, noise=None):
        return super().sample(logits + 1.0, noise)


class OwnLaplace(likelihoods.Likelihood):
    """Laplace of scale 0.2, right."""

    log_constant = math.log(0.4)

    def log_prob_per_value(self, x, location):
        return -ops.abs(x - location) / 0.2 - self.log_constant

    def mean(self, location):
        return location

    def params_of(self, mean):
        return mean

    def sample(self, location, noise=None):
        uniform = noises.get(noise).uniform(ops.shape(location), "x") - 0.5
        return location - 0.2 * ops.sign(uniform) * ops.log1p(-2 * ops.abs(uniform))


class UnnormalisedLaplace(OwnLaplace):
    log_constant = 0.0


class MeanLaplace(OwnLaplace):
    def log_prob(self, x, params):
        return super().log_prob(x, params) / math.prod(x.shape[1:])


# -- posteriors of one's own ------------------------------------------------------------------------------------------


class OwnPosterior(posteriors.DiagonalGaussian):
    """A diagonal Gaussian with a density of its own, right."""

    log_constant = 0.0

    def log_prob(self, z, heads):
        return super().log_prob(z, heads) + self.log_constant

    def sample(self, heads, num_samples, noise):
        z, _ = super().sample(heads, num_samples, noise)
        return z, self.log_prob(z, heads)


class UnnormalisedPosterior(OwnPosterior):
    log_constant = 1.5 * math.log(2 * math.pi)


class NarrowDraws(OwnPosterior):
    def sample(self, heads, num_samples, noise):
        z, _ = super().sample([heads[0], heads[1] - 1.0], num_samples, noise)
        return z, self.log_prob(z, heads)


class TwoDensities(OwnPosterior):
    def sample(self, heads, num_samples, noise):
        z, log_q = super().sample(heads, num_samples, noise)
        return z, log_q + 1.0


# -- noise, objectives and estimators ---------------------------------------------------------------------------------


def with_wide_sampling(patch):
    vae = small()
    vae.encoder.get_layer("z_log_var").bias.assign([1.0, 1.0, 1.0])  # so that the noise is most of z
    right = vae.sampling.draw

    def draw(heads, num_samples=1, noise=None):
        draws = right((heads[0], 2 * heads[1]), num_samples, noise)
        draws.heads = heads  # the KL is still the right one
        return draws

    vae.sampling.draw = draw
    return vae


def with_shared_noise(vae, axis):
    """The noise of z is the same along an axis: of draws, images or dimensions."""
    right = vae.sampling.draw

    def draw(heads, num_samples=1, noise=None):
        draws = right(heads, num_samples, noise)
        z_mean, std = heads[0], tf.exp(0.5 * heads[1])
        eps = (draws.z - z_mean) / std
        draws.z = z_mean + std * tf.gather(eps, tf.zeros(eps.shape[axis], "int32"), axis=axis)
        return draws

    vae.sampling.draw = draw
    return vae


def with_shared_noise_in_the_loss(patch):
    vae = small()
    count = iter(range(1000))

    def loss_terms(x, condition=None, training=False):
        z_mean, z_log_var = vae.encode(x)
        eps = tf.random.stateless_normal((1, 1, 3), [0, next(count)])
        reconstruction_loss = -vae.log_likelihood(x, z_mean + tf.exp(0.5 * z_log_var) * eps)[0]
        kl_loss = gaussian.kl(z_mean=z_mean, z_log_var=z_log_var)
        loss = reconstruction_loss + kl_loss
        return {"loss": loss, "reconstruction_loss": reconstruction_loss, "kl_loss": kl_loss}

    vae.loss_terms = loss_terms
    return vae


def with_proposal(patch, change):
    """An estimate whose draws and log-ratios are changed: (z, log_ratio, z_mean, z_log_var) -> (z, log_ratio)."""
    right = marginal.posterior_proposal

    def posterior_proposal(encode, *others):
        def propose(x):
            draw, heads = right(encode, *others)(x), encode(x)
            return lambda num_samples, seed: change(*draw(num_samples, seed), *heads)

        return propose

    patch.setattr(marginal, "posterior_proposal", posterior_proposal)
    return small()


def same_noise_for_all(z, log_ratio, z_mean, z_log_var):
    eps = ((z - z_mean) / tf.exp(0.5 * z_log_var))[:, :1]
    z = z_mean + tf.exp(0.5 * z_log_var) * eps
    log_posterior = -0.5 * tf.reduce_sum(math.log(2 * math.pi) + z_log_var + eps**2, axis=-1)
    return z, -0.5 * tf.reduce_sum(math.log(2 * math.pi) + z**2, axis=-1) - log_posterior


def without_posterior(z, log_ratio, z_mean, z_log_var):
    return z, -0.5 * tf.reduce_sum(math.log(2 * math.pi) + z**2, axis=-1)


def with_mean(patch, log_mean_exp):
    patch.setattr(marginal, "_log_mean_exp", log_mean_exp)
    return small()


class AverageOutside(objectives.IWAE):
    def bounds(self, log_weights):
        return ops.mean(log_weights, axis=0, keepdims=True)


class ForgottenLogK(objectives.IWAE):
    def bounds(self, log_weights):
        return super().bounds(log_weights) + math.log(self.k)


class NoTotalCorrelation(objectives.BetaTC):
    def total_correlation(self, draws):
        return 0.0 * super().total_correlation(draws)


def without_total_correlation(patch):
    vae = with_parts(objective=NoTotalCorrelation(beta=6.0))
    kernel = vae.encoder.get_layer("z_mean").kernel
    kernel.assign(np.repeat(kernel[:, :1], 3, axis=1))  # so that there is much of it
    return vae


def double_sigmoid_in_the_likelihood(patch):
    vae = small()
    right = vae.likelihood.log_prob
    vae.log_likelihood = lambda x, z, condition=None, training=False: right(
        x, ops.sigmoid(ops.reshape(vae.decoder(ops.reshape(z, (-1, 3))), (*z.shape[:2], 8, 8, 1)))
    )
    return vae


# -- what is written down ---------------------------------------------------------------------------------------------


def card_of(vae, images=BINARY, **changed):
    """The card of a model as `evaluate` gives it, with changed results."""
    results = evaluate(vae, images, nll_samples=100)
    written_down = card(vae, images, results, protocol={}, versions={})
    return written_down | {"results": results | {name: change(results) for name, change in changed.items()}}


@dataclass(frozen=True, eq=False)
class Fault:
    """A planted fault.

    Attributes:
        words: What it is.
        check: Name of the check that finds it.
        advice: Words that are in what the check says.
        make: Callable: a pytest.MonkeyPatch -> the model.
        images: What it is audited on.
        changed: Results that were changed in its card: name -> function of the right ones.
    """

    words: str
    check: str
    advice: str
    make: object = lambda patch: small()
    images: np.ndarray = field(default_factory=lambda: BINARY)
    changed: dict | None = None

    def __str__(self):
        return self.words

    def audit(self, patch):
        """The findings: {name: advice} of the errors."""
        written_down = None if self.changed is None else card_of(self.make(patch), **self.changed)
        found = run_audit(self.make(patch), self.images, card=written_down, seconds=1000)
        return {finding.name: finding.advice for finding in found if finding.status == "error"}


FAULTS = (
    Fault(
        "z drawn with the standard deviation exp(z_log_var)", terms.SAMPLING, "exp(0.5 * z_log_var)", with_wide_sampling
    ),
    Fault("the same in the loss", terms.RECONSTRUCTION, "the standard deviation exp(z_log_var)", with_wide_sampling),
    Fault(
        "one noise vector for all images of a batch",
        terms.SAMPLING,
        "same for each image",
        lambda patch: with_shared_noise(small(), axis=1),
    ),
    Fault(
        "one noise vector for all draws of an image",
        terms.SAMPLING,
        "same for each draw",
        lambda patch: with_shared_noise(small(objective="iwae", importance_samples=5), axis=0),
    ),
    Fault(
        "one number of noise for all dimensions of z",
        terms.SAMPLING,
        "same for each dimension",
        lambda patch: with_shared_noise(small(), axis=2),
    ),
    Fault(
        "one noise vector for all images in the loss alone",
        terms.RECONSTRUCTION,
        "same noise",
        with_shared_noise_in_the_loss,
    ),
    Fault(
        "one noise vector for all images in the estimate alone",
        terms.ESTIMATE,
        "same noise",
        lambda patch: with_proposal(patch, same_noise_for_all),
    ),
    Fault("KL with its sign turned", terms.KL, "sign is turned", lambda patch: with_kl(lambda groups: -groups)),
    Fault(
        "KL averaged over latent dimensions",
        terms.KL,
        "mean over the 3 latent dimensions",
        lambda patch: with_kl(lambda groups: groups / 3),
    ),
    Fault("KL twice", terms.KL, "twice the KL", lambda patch: with_kl(lambda groups: 2 * groups)),
    Fault(
        "KL averaged over latent dimensions in the loss",
        terms.KL,
        "mean over the 3 latent dimensions",
        lambda patch: plant(small(), kl_loss=lambda found: found["kl_loss"] / 3),
    ),
    Fault(
        "a KL that is multiplied by beta",
        terms.KL,
        "multiplied by beta",
        lambda patch: plant(small(beta=4.0), kl_loss=lambda found: 4 * found["kl_loss"]),
    ),
    Fault(
        "a prior of one's own without log(2 pi)",
        densities.PRIOR,
        "integrates to 15.7",
        lambda patch: with_parts(prior=Unnormalised()),
    ),
    Fault(
        "a prior with a constant too much",
        densities.PRIOR,
        "off by 3.0",
        lambda patch: with_parts(prior=HighDensity()),
    ),
    Fault(
        "a mixture of one's own without log(2 pi)",
        densities.PRIOR,
        "integrates to 15.7",
        lambda patch: with_parts(prior=MixtureWithoutConstant(4)),
    ),
    Fault(
        "a mixture of one's own whose weights do not sum to 1",
        densities.PRIOR,
        "integrates to 4",
        lambda patch: with_parts(prior=MixtureOfRawWeights(4)),
    ),
    Fault(
        "this package's mixture without log(2 pi)",
        densities.PRIOR,
        "log(2 pi) is dropped",
        lambda patch: mixture_patched(patch, lambda logits, means, log_vars: 1.5 * math.log(2 * math.pi)),
    ),
    Fault(
        "this package's mixture whose weights do not sum to 1",
        densities.PRIOR,
        "weights of its components",
        lambda patch: mixture_patched(patch, lambda logits, means, log_vars: ops.logsumexp(logits)),
    ),
    Fault(
        "draws of the prior from N(0, 4)",
        densities.PRIOR_DRAWS,
        "variance 4",
        lambda patch: with_parts(prior=WideDraws()),
    ),
    Fault(
        "draws of the prior that are constant",
        densities.PRIOR_DRAWS,
        "",
        lambda patch: with_parts(prior=ConstantDraws()),
    ),
    Fault(
        "draws of the prior that are all the same",
        densities.PRIOR_DRAWS,
        "",
        lambda patch: with_parts(prior=OneDrawForAll()),
    ),
    Fault(
        "draws of the prior with one number for all dimensions",
        densities.PRIOR_DRAWS,
        "correlated",
        lambda patch: with_parts(prior=OneDrawForAllDimensions()),
    ),
    Fault(
        "draws of the prior that ignore the seed",
        densities.PRIOR_DRAWS,
        "ignores its seed",
        lambda patch: with_parts(prior=DeafToSeeds()),
    ),
    Fault(
        "draws of one component of a mixture",
        densities.PRIOR_DRAWS,
        "another distribution",
        lambda patch: with_parts(prior=MixtureOfOneDraw(4)),
    ),
    Fault(
        "a posterior of one's own without log(2 pi)",
        densities.POSTERIOR,
        "integrates to 15.7",
        lambda patch: with_parts(posterior=UnnormalisedPosterior()),
    ),
    Fault(
        "draws of a posterior of one's own that are too narrow",
        densities.POSTERIOR,
        "variance",
        lambda patch: with_parts(posterior=NarrowDraws()),
    ),
    Fault(
        "draws of a posterior of one's own that bring another density",
        densities.POSTERIOR,
        "two densities",
        lambda patch: with_parts(posterior=TwoDensities()),
    ),
    Fault(
        "the log of clipped probabilities",
        likelihood.DENSITY,
        "clipped probabilities",
        lambda patch: with_parts(ClippedBernoulli()),
    ),
    Fault(
        "a likelihood averaged over pixels",
        likelihood.DENSITY,
        "mean over pixels",
        lambda patch: with_parts(MeanBernoulli()),
    ),
    Fault(
        "a Gaussian likelihood without log(2 pi)",
        likelihood.DENSITY,
        "log(2 pi) is dropped",
        lambda patch: with_parts(DroppedConstant()),
    ),
    Fault(
        "a Gaussian likelihood without log(scale)",
        likelihood.DENSITY,
        "log(scale) is dropped",
        lambda patch: with_parts(DroppedScale(scale=0.3)),
    ),
    Fault(
        "the squared error for a likelihood",
        likelihood.DENSITY,
        "minus the squared error",
        lambda patch: with_parts(SquaredError()),
    ),
    Fault(
        "a continuous Bernoulli without its constant",
        likelihood.DENSITY,
        "normalising constant",
        lambda patch: with_parts(DroppedNormaliser()),
    ),
    Fault(
        "a discretized logistic averaged over pixels",
        likelihood.DENSITY,
        "mean over pixels",
        lambda patch: with_parts(MeanLogistic()),
    ),
    Fault(
        "a likelihood of one's own without its constant",
        likelihood.DENSITY,
        "do not sum to 1",
        lambda patch: with_parts(UnnormalisedLaplace()),
    ),
    Fault(
        "a likelihood of one's own averaged over pixels",
        likelihood.DENSITY,
        "mean over pixels",
        lambda patch: with_parts(MeanLaplace()),
    ),
    Fault(
        "draws of the likelihood of another mean",
        likelihood.MEAN,
        "another mean",
        lambda patch: with_parts(DrawsOfAnotherMean()),
    ),
    Fault(
        "a sigmoid applied twice in what is drawn",
        likelihood.MEAN,
        "sigmoid applied twice",
        lambda patch: with_parts(SigmoidTwice()),
    ),
    Fault("a sigmoid applied twice in the loss", terms.RECONSTRUCTION, "must be", double_sigmoid_in_the_likelihood),
    Fault(
        "a reconstruction loss with its sign turned",
        terms.RECONSTRUCTION,
        "its sign is turned",
        lambda patch: plant(small(), reconstruction_loss=lambda found: -found["reconstruction_loss"]),
    ),
    Fault(
        "a reconstruction loss without log(2 pi)",
        terms.RECONSTRUCTION,
        "log(2 pi) is dropped",
        lambda patch: plant(
            small(likelihood="gaussian"),
            reconstruction_loss=lambda found: found["reconstruction_loss"] - 0.5 * math.log(2 * math.pi) * PIXELS,
        ),
    ),
    Fault(
        "a reconstruction loss averaged over pixels",
        terms.RECONSTRUCTION,
        "mean over pixels",
        lambda patch: plant(small(), reconstruction_loss=lambda found: found["reconstruction_loss"] / PIXELS),
    ),
    Fault(
        "a weighted loss under the name of an ELBO",
        terms.LOSS,
        "weight 4",
        lambda patch: plant(small(), loss=lambda found: found["reconstruction_loss"] + 4 * found["kl_loss"]),
    ),
    Fault(
        "an IWAE with the average outside of the logarithm",
        terms.LOSS,
        "average is outside",
        lambda patch: with_parts(objective=AverageOutside(k=10)),
    ),
    Fault(
        "an IWAE without log k",
        terms.LOSS,
        "log k is forgotten",
        lambda patch: with_parts(objective=ForgottenLogK(k=10)),
    ),
    Fault(
        "a beta-TC loss without the total correlation",
        terms.LOSS,
        "must be",
        without_total_correlation,
    ),
    Fault(
        "an estimate of log p(x) without log k",
        terms.ESTIMATE,
        "log k is forgotten",
        lambda patch: with_mean(patch, lambda values, axis: np.logaddexp.reduce(values.astype("float64"), axis=axis)),
    ),
    Fault(
        "an estimate with the average outside of the logarithm",
        terms.ESTIMATE,
        "average is outside",
        lambda patch: with_mean(patch, lambda values, axis: values.mean(axis=axis, dtype="float64")),
    ),
    Fault(
        "an estimate without log q(z given x)",
        terms.ESTIMATE,
        "must be",
        lambda patch: with_proposal(patch, without_posterior),
    ),
    Fault("a decoder that ends in a sigmoid", networks.DECODER, "sigmoid", lambda patch: own(decoder_end="sigmoid")),
    Fault("a decoder that ends in relu", networks.DECODER, "relu", lambda patch: own(decoder_end="relu")),
    Fault("a decoder that ends in tanh", networks.DECODER, "tanh", lambda patch: own(decoder_end="tanh")),
    Fault(
        "z_log_var that ends in softplus",
        networks.HEADS,
        "z_log_var is never below 0",
        lambda patch: own((None, "softplus")),
    ),
    Fault("z_log_var that ends in relu", networks.HEADS, "z_log_var is never", lambda patch: own((None, "relu"))),
    Fault("z_log_var that ends in a sigmoid", networks.HEADS, "like a sigmoid", lambda patch: own((None, "sigmoid"))),
    Fault("z_mean that ends in relu", networks.HEADS, "z_mean is never below 0", lambda patch: own(("relu", None))),
    Fault("pixels from 0 to 255", likelihood.PIXELS, "Divide", images=255 * BINARY),
    Fault("pixels from -1 to 1", likelihood.PIXELS, "not in [0, 1]", images=2 * BINARY - 1),
    Fault(
        "a pixel that is NaN",
        likelihood.PIXELS,
        "NaN",
        images=np.where(np.arange(64).reshape(8, 8, 1) == 9, np.nan, BINARY),
    ),
    Fault("nll written down as 20", written.VALUES, "nll is written down as 20", changed={"nll": lambda results: 20.0}),
    Fault(
        "nll written down without its last 4 nats",
        written.VALUES,
        "nll is written down",
        changed={"nll": lambda results: results["nll"] - 4.0},
    ),
    Fault("mse written down too low", written.VALUES, "mse is", changed={"mse": lambda results: 0.5 * results["mse"]}),
    Fault(
        "loss and its parts written down too low",
        written.VALUES,
        "is written down",
        changed={
            "loss": lambda results: results["loss"] - 5.0,
            "reconstruction_loss": lambda results: results["reconstruction_loss"] - 5.0,
            "elbo": lambda results: results["elbo"] + 5.0,
        },
    ),
    Fault(
        "active units written down that are dead",
        written.VALUES,
        "active_units is written down as 7",
        changed={"active_units": lambda results: 7},
    ),
    Fault(
        "a weighted loss written down as elbo",
        written.NAMES,
        "weighted loss is called an ELBO",
        lambda patch: small(beta=4.0),
        changed={"elbo": lambda results: -results["loss"]},
    ),
    Fault(
        "nll of grey pixels under a Bernoulli likelihood",
        written.NAMES,
        "neither elbo nor nll",
        images=np.where(BINARY == 1, 0.75, BINARY).astype("float32"),
        changed={},
    ),
)


def table():
    """The table as Markdown."""
    lines = ["| planted fault | check that finds it |", "| --- | --- |"]
    return "\n".join(lines + [f"| {fault.words} | {fault.check} |" for fault in FAULTS])


if __name__ == "__main__":
    print(table())
