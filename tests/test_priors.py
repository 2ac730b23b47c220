"""Priors: log_prob, kl and samples must be of one and the same distribution."""

import numpy as np
import pytest
import scipy.stats
from keras.src.testing import TestCase as KerasTestCase

from keras_vae import gaussian, kl, networks, posteriors, priors

every_prior = pytest.mark.parametrize("name", priors.PRIORS)
RNG = np.random.default_rng(0)


def make(name, latent_dim=2):
    """A built prior with weights that are not those it starts with, where it has any."""
    prior = priors.get(name, **({"num_components": 3} if name != "standard_normal" else {}))
    encoder, _ = networks.build("linear", (2, 2, 1), latent_dim)
    prior.bind(encoder, (2, 2, 1), posteriors.DiagonalGaussian())
    prior.build((None, latent_dim))
    rng = np.random.default_rng(1)
    for weight in prior.weights:
        weight.assign(weight + rng.normal(size=weight.shape))
    for weight in encoder.weights:
        weight.assign(0.5 * rng.normal(size=weight.shape))
    return prior


@every_prior
def test_kl_is_what_log_prob_gives_by_monte_carlo(name):
    prior, count = make(name), 100_000
    z_mean, z_log_var = np.float32([0.7, -1.2]), np.float32([-0.5, 0.4])
    std = np.exp(0.5 * z_log_var)
    z = (z_mean + std * RNG.normal(size=(count, 2))).astype("float32")
    ratio = scipy.stats.norm.logpdf(z, z_mean, std).sum(-1) - np.asarray(prior.log_prob(z))
    others = (z_mean + std * RNG.normal(size=(count, 1, 2))).astype("float32")
    posterior, heads = posteriors.DiagonalGaussian(), (z_mean[None], z_log_var[None])
    groups = kl.groups(posterior, prior, heads, others, posterior.log_prob(others, heads))
    assert len(kl.group_dims(posterior, prior)) == groups.shape[1] and sum(kl.group_dims(posterior, prior)) == 2
    reported = float(np.sum(groups))
    assert reported == pytest.approx(ratio.mean(), abs=7 * ratio.std() / np.sqrt(count))
    assert reported > 0.1


@every_prior
def test_log_prob_integrates_to_one(name):
    axis = np.linspace(-12, 12, 481, dtype="float32")
    grid = np.stack(np.meshgrid(axis, axis), axis=-1)
    density = np.exp(np.asarray(make(name).log_prob(grid), "float64"))
    assert density.sum() * (axis[1] - axis[0]) ** 2 == pytest.approx(1, abs=1e-4)


@every_prior
def test_samples_have_the_entropy_of_log_prob(name):
    prior = make(name)
    samples = np.asarray(prior.sample(50_000, noise=1))
    axis = np.linspace(-12, 12, 481, dtype="float32")
    log_prob = np.asarray(prior.log_prob(np.stack(np.meshgrid(axis, axis), axis=-1)), "float64")
    entropy = -(np.exp(log_prob) * log_prob).sum() * (axis[1] - axis[0]) ** 2
    surprise = -np.asarray(prior.log_prob(samples))
    assert surprise.mean() == pytest.approx(entropy, abs=5 * surprise.std() / np.sqrt(50_000))


@every_prior
def test_samples_follow_the_seed(name):
    prior = make(name)
    np.testing.assert_array_equal(prior.sample(9, noise=1), prior.sample(9, noise=1))
    assert np.all(np.asarray(prior.sample(9, noise=1)) != prior.sample(9, noise=2))
    assert np.all(np.asarray(prior.sample(9)) != prior.sample(9))


@every_prior
def test_prior_passes_the_serialization_checks_of_keras(name):
    KerasTestCase().run_class_serialization_test(priors.get(name))


def test_mixture_is_that_of_scipy():
    prior = make("gaussian_mixture", 5)
    z = RNG.normal(size=(6, 5)).astype("float32")
    logits, means, log_vars = (
        weight.numpy().astype("float64") for weight in (prior.logits, prior.means, prior.log_vars)
    )
    weights = np.exp(logits) / np.exp(logits).sum()
    components = [
        weight * scipy.stats.multivariate_normal(mean, np.diag(np.exp(log_var))).pdf(z)
        for weight, mean, log_var in zip(weights, means, log_vars, strict=True)
    ]
    np.testing.assert_allclose(prior.log_prob(z), np.log(np.sum(components, axis=0)), rtol=1e-4)


def test_narrow_components_lose_no_more_digits_than_documented():
    rng = np.random.default_rng(0)
    means, log_vars = rng.normal(size=(50, 40)).astype("float32"), np.full((50, 40), -7.0, "float32")
    z = (means[:10] + np.exp(-3.5) * rng.normal(size=(10, 40))).astype("float32")
    exact = scipy.stats.norm.logpdf(z, means[:10], np.exp(-3.5)).sum(-1) - np.log(50)  # the others are far away
    np.testing.assert_allclose(gaussian.mixture_log_prob(z, np.zeros(50, "float32"), means, log_vars), exact, atol=0.02)


def test_components_of_a_vampprior_are_posteriors_of_its_pseudo_inputs():
    prior = make("vampprior")
    logits, means, log_vars = prior.frozen().components()
    assert np.ptp(logits) == 0
    for found, expected in zip((means, log_vars), prior._encode(prior.pseudo_inputs.numpy()), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    z = RNG.normal(size=(6, 2)).astype("float32")
    np.testing.assert_allclose(prior.frozen().log_prob(z), prior.log_prob(z), rtol=1e-5)


def test_a_fitted_mixture_finds_planted_components():
    rng = np.random.default_rng(0)
    centres = np.float32([[3, 0], [-3, 1], [0, -4]])
    z = centres[rng.choice(3, 3000, p=[0.5, 0.4, 0.1])] + 0.5 * rng.normal(size=(3000, 2))
    prior = priors.GaussianMixture(3)
    prior.build((None, 2))
    before = np.mean(prior.log_prob(z.astype("float32")))
    prior.fit(z)
    order = np.argsort(prior.means.numpy()[:, 0])
    np.testing.assert_allclose(prior.means.numpy()[order], centres[[1, 2, 0]], atol=0.1)
    np.testing.assert_allclose(np.exp(prior.logits.numpy()[order]), [0.4, 0.1, 0.5], atol=0.03)
    np.testing.assert_allclose(np.exp(0.5 * prior.log_vars.numpy()), 0.5, atol=0.05)
    assert np.mean(prior.log_prob(z.astype("float32"))) > before + 1


def test_a_vampprior_without_a_model_says_what_it_needs():
    with pytest.raises(ValueError, match="VAE\\(encoder, decoder, prior=...\\)"):
        priors.VampPrior().build((None, 2))


@pytest.mark.parametrize("value", [0, -1, 2.5, "many"])
def test_a_number_of_components_that_is_none_is_refused(value):
    with pytest.raises(ValueError, match="`num_components`"):
        priors.GaussianMixture(num_components=value)


def test_standard_normal_is_that_of_scipy():
    z = RNG.normal(size=(6, 5)).astype("float32")
    np.testing.assert_allclose(make("standard_normal", 5).log_prob(z), scipy.stats.norm.logpdf(z).sum(-1), rtol=1e-5)
    samples = np.asarray(make("standard_normal").sample(20_000, noise=1))
    assert scipy.stats.kstest(samples.ravel(), "norm").pvalue > 1e-4


def test_unknown_prior_is_refused_with_the_choices():
    with pytest.raises(ValueError, match=r"standard_normal.*'cauchy'"):
        priors.get("cauchy")
