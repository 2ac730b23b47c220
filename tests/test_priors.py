"""Priors: log_prob, kl and samples must be of one and the same distribution."""

import numpy as np
import pytest
import scipy.stats
from keras.src.testing import TestCase as KerasTestCase

from keras_vae import priors

every_prior = pytest.mark.parametrize("name", priors.PRIORS)
RNG = np.random.default_rng(0)


def make(name, latent_dim=2):
    prior = priors.get(name)
    prior.build((None, latent_dim))
    return prior


@every_prior
def test_kl_is_what_log_prob_gives_by_monte_carlo(name):
    prior, count = make(name), 100_000
    z_mean, z_log_var = np.float32([0.7, -1.2]), np.float32([-0.5, 0.4])
    std = np.exp(0.5 * z_log_var)
    z = (z_mean + std * RNG.normal(size=(count, 2))).astype("float32")
    ratio = scipy.stats.norm.logpdf(z, z_mean, std).sum(-1) - np.asarray(prior.log_prob(z))
    kl = float(prior.kl(z_mean[None], z_log_var[None])[0])
    assert kl == pytest.approx(ratio.mean(), abs=5 * ratio.std() / np.sqrt(count))


@every_prior
def test_log_prob_integrates_to_one(name):
    axis = np.linspace(-12, 12, 481, dtype="float32")
    grid = np.stack(np.meshgrid(axis, axis), axis=-1)
    density = np.exp(np.asarray(make(name).log_prob(grid), "float64"))
    assert density.sum() * (axis[1] - axis[0]) ** 2 == pytest.approx(1, abs=1e-4)


@every_prior
def test_samples_have_the_entropy_of_log_prob(name):
    prior = make(name)
    samples = np.asarray(prior.sample(50_000, seed=1))
    axis = np.linspace(-12, 12, 481, dtype="float32")
    log_prob = np.asarray(prior.log_prob(np.stack(np.meshgrid(axis, axis), axis=-1)), "float64")
    entropy = -(np.exp(log_prob) * log_prob).sum() * (axis[1] - axis[0]) ** 2
    surprise = -np.asarray(prior.log_prob(samples))
    assert surprise.mean() == pytest.approx(entropy, abs=5 * surprise.std() / np.sqrt(50_000))


@every_prior
def test_samples_follow_the_seed(name):
    prior = make(name)
    np.testing.assert_array_equal(prior.sample(9, seed=1), prior.sample(9, seed=1))
    assert np.all(np.asarray(prior.sample(9, seed=1)) != prior.sample(9, seed=2))
    assert np.all(np.asarray(prior.sample(9)) != prior.sample(9))


@every_prior
def test_prior_passes_the_serialization_checks_of_keras(name):
    KerasTestCase().run_class_serialization_test(priors.get(name))


def test_standard_normal_is_that_of_scipy():
    z = RNG.normal(size=(6, 5)).astype("float32")
    np.testing.assert_allclose(make("standard_normal", 5).log_prob(z), scipy.stats.norm.logpdf(z).sum(-1), rtol=1e-5)
    samples = np.asarray(make("standard_normal").sample(20_000, seed=1))
    assert scipy.stats.kstest(samples.ravel(), "norm").pvalue > 1e-4


def test_unknown_prior_is_refused_with_the_choices():
    with pytest.raises(ValueError, match=r"standard_normal.*'cauchy'"):
        priors.get("cauchy")
