"""The audit: each of the formulas that are commonly got wrong is planted, and the audit names it."""

import math

import keras
import numpy as np
import pytest
from keras import ops

from keras_vae import evaluation, kl, likelihoods
from keras_vae.config import InputError, ModelConfig
from keras_vae.models import VAE, build_model
from keras_vae.posteriors import DiagonalGaussian
from keras_vae.priors import StandardNormal

PIXELS = 64
BINARY = np.random.default_rng(0).integers(0, 2, (100, 8, 8, 1)).astype("float32")


def small(**values):
    """An untrained VAE whose q(z|x) is far from the prior, and whose decoder listens to z."""
    keras.utils.set_random_seed(0)
    vae = build_model(ModelConfig(hidden=(8,), latent_dim=3, **values), (8, 8, 1), seed=0)
    vae.encoder.get_layer("z_log_var").bias.assign([-4.0, -3.0, -2.0])
    vae.encoder.get_layer("z_mean").kernel.assign(3 * vae.encoder.get_layer("z_mean").kernel)
    vae.decoder.weights[0].assign(5 * vae.decoder.weights[0])
    return vae


def plant(vae, **terms):
    """Gives `vae` other terms of its loss: name -> function of the dict of the right ones."""
    right = vae.loss_terms
    vae.loss_terms = lambda x, training: (
        (found := right(x, training)) | {name: function(found) for name, function in terms.items()}
    )
    return vae


def errors(findings):
    return {finding.name: finding.advice for finding in findings if finding.status == "error"}


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"likelihood": "gaussian", "scale": 0.3},
        {"prior": "gaussian_mixture", "prior_components": 3},
        {"model": "hierarchical_vae", "upper_latent_dims": (2,), "upper_hidden": (4,)},
        {"objective": "iwae", "importance_samples": 5},
    ],
    ids=str,
)
def test_a_right_model_has_no_errors(values):
    assert errors(small(**values).audit(BINARY)) == {}


def with_kl(wrong):
    """A prior whose KL is what `wrong` makes of the right one."""

    class WrongKL(StandardNormal):
        pass

    @kl.closed_form(DiagonalGaussian, WrongKL)
    def groups(posterior, prior, heads, z, log_q):
        return wrong(kl.CLOSED_FORMS[DiagonalGaussian, StandardNormal][0](posterior, prior, heads, z, log_q))

    return WrongKL()


class HighDensity(StandardNormal):
    def log_prob(self, z):
        return super().log_prob(z) + 3.0


kl.closed_form(DiagonalGaussian, HighDensity)(kl.CLOSED_FORMS[DiagonalGaussian, StandardNormal][0])


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


def with_wide_sampling():
    vae = small()
    vae.encoder.get_layer("z_log_var").bias.assign([1.0, 1.0, 1.0])  # so that the noise is most of z
    right = vae.sampling.draw

    def draw(heads, num_samples=1, noise=None):
        draws = right((heads[0], 2 * heads[1]), num_samples, noise)
        draws.heads = heads  # the KL is still the right one
        return draws

    vae.sampling.draw = draw
    return vae


def with_parts(likelihood="bernoulli", prior="standard_normal"):
    vae = small()
    return VAE(vae.encoder, vae.decoder, likelihood, prior=prior, seed=0)


PLANTED = {
    "std = exp(log_var) in the layer": (with_wide_sampling, "exp(0.5 * z_log_var)"),
    "std = exp(log_var) in the loss": (with_wide_sampling, "drawn with the standard deviation exp(z_log_var)"),
    "KL with its sign turned": (lambda: with_parts(prior=with_kl(lambda groups: -groups)), "sign is turned"),
    "KL averaged over latents": (
        lambda: with_parts(prior=with_kl(lambda groups: groups / 3)),
        "mean over the 3 latent dimensions",
    ),
    "KL without its half": (lambda: with_parts(prior=with_kl(lambda groups: 2 * groups)), "factor 0.5 is missing"),
    "prior that is no density": (lambda: with_parts(prior=HighDensity()), "the log_prob of the prior"),
    "log of clipped p": (lambda: with_parts(ClippedBernoulli()), "log of clipped probabilities"),
    "likelihood averaged over pixels": (lambda: with_parts(MeanBernoulli()), "mean over pixels"),
    "log(2 pi) dropped": (lambda: with_parts(DroppedConstant()), "log(2 pi) is dropped"),
    "log(scale) dropped": (lambda: with_parts(DroppedScale(scale=0.3)), "log(scale) is dropped"),
    "squared error": (lambda: with_parts(SquaredError()), "minus the squared error"),
    "normaliser dropped": (lambda: with_parts(DroppedNormaliser()), "A constant is missing"),
    "logistic averaged over pixels": (lambda: with_parts(MeanLogistic()), "mean over pixels"),
    "reconstruction with its sign turned": (
        lambda: plant(small(), reconstruction_loss=lambda terms: -terms["reconstruction_loss"]),
        "its sign is turned",
    ),
    "log(2 pi) dropped in the loss": (
        lambda: plant(
            small(likelihood="gaussian"),
            reconstruction_loss=lambda terms: terms["reconstruction_loss"] - 0.5 * math.log(2 * math.pi) * PIXELS,
        ),
        "log(2 pi) is dropped",
    ),
    "reconstruction averaged in the loss": (
        lambda: plant(small(), reconstruction_loss=lambda terms: terms["reconstruction_loss"] / PIXELS),
        "mean over pixels",
    ),
    "KL averaged in the loss": (
        lambda: plant(small(), kl_loss=lambda terms: terms["kl_loss"] / 3),
        "mean over the 3 latent dimensions",
    ),
    "weighted loss under the name of an ELBO": (
        lambda: plant(small(), loss=lambda terms: terms["reconstruction_loss"] + 4 * terms["kl_loss"]),
        "weight 4",
    ),
    "weighted KL under the name of a KL": (
        lambda: plant(small(beta=4.0), kl_loss=lambda terms: 4 * terms["kl_loss"]),
        "multiplied by beta",
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_formula_is_named(name):
    make, expected = PLANTED[name]
    found = errors(make().audit(BINARY))
    assert expected in " ".join(found.values()), found


@pytest.mark.parametrize("values, named", [({"beta": 4.0}, "beta 4"), ({"free_bits": 0.5}, "0.5 free bits")], ids=str)
def test_a_weighted_vae_is_warned_of_and_not_called_wrong(values, named):
    findings = small(**values).audit(BINARY)
    assert errors(findings) == {}
    assert named in " ".join(finding.advice for finding in findings if finding.status == "warning")


def test_a_weighted_loss_written_down_as_elbo_is_named():
    vae = small(beta=4.0)
    results = evaluation.evaluate(vae, BINARY)
    assert errors(evaluation.audit(vae, BINARY, results=results)) == {}
    found = errors(evaluation.audit(vae, BINARY, results=results | {"elbo": -results["loss"]}))
    assert "weighted loss is called an ELBO" in " ".join(found.values())


def test_grey_pixels_under_a_bernoulli_are_said_to_have_no_likelihood():
    findings = small().audit(np.full((20, 8, 8, 1), 0.5, "float32"))
    named = {finding.name: finding for finding in findings}
    assert named["the pixels have a likelihood under p(x|z)"].status == "warning"
    found = errors(evaluation.audit(small(), np.full((20, 8, 8, 1), 0.5, "float32"), results={"nll": 1.0}))
    assert "no likelihood" in " ".join(found.values())


def test_dead_dimensions_are_named_by_their_number():
    vae = small()
    kernel = vae.encoder.get_layer("z_mean").kernel
    kernel.assign(kernel * np.array([1.0, 0.0, 1.0]))
    dead = {finding.name: finding for finding in vae.audit(BINARY)}["no dead latent dimensions"]
    assert dead.status == "warning" and dead.numbers["dead"] == [1]


def test_a_collapsed_posterior_is_named_with_what_to_try():
    vae = small()
    for head in ("z_mean", "z_log_var"):
        layer = vae.encoder.get_layer(head)
        layer.kernel.assign(0 * layer.kernel)
        layer.bias.assign(0 * layer.bias)
    found = {finding.name: finding for finding in vae.audit(BINARY)}["no posterior collapse"]
    assert found.status == "warning" and "--free-bits" in found.advice and "--warmup-steps" in found.advice


def test_an_autoencoder_has_nothing_to_audit():
    model = build_model(ModelConfig(model="autoencoder", hidden=(8,), latent_dim=2), (8, 8, 1))
    with pytest.raises(InputError, match="Autoencoder"):
        evaluation.audit(model, BINARY)


def test_an_audit_leaves_the_noise_of_the_model_as_it_was():
    vae, other = small(), small()
    vae.audit(BINARY[:10])
    for _ in range(2):
        np.testing.assert_array_equal(*(model.loss_terms(BINARY, training=False)["loss"] for model in (vae, other)))
