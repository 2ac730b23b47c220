"""Diagonal Gaussians against scipy, numerical integration, Monte Carlo and the formulas that others get wrong."""

import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats
import tensorflow as tf

from keras_vae import gaussian

RNG = np.random.default_rng(0)
Z_MEAN = RNG.normal(size=(5, 4)).astype("float32")
Z_LOG_VAR = RNG.normal(size=(5, 4)).astype("float32")


def quadrature_kl(mean, log_var):
    """KL(N(mean, exp(log_var)) || N(0, 1)) as an integral."""
    q, p = scipy.stats.norm(mean, np.exp(0.5 * log_var)), scipy.stats.norm(0, 1)
    reach = 12 * np.exp(0.5 * log_var)
    value, _ = scipy.integrate.quad(
        lambda z: q.pdf(z) * (q.logpdf(z) - p.logpdf(z)), mean - reach, mean + reach, epsabs=1e-11, limit=200
    )
    return value


@pytest.mark.parametrize("mean, log_var", [(0.0, 0.0), (1.5, 0.3), (-2.0, -4.0), (0.1, 2.0), (0.0, -9.0), (3.0, 1e-4)])
def test_kl_is_the_integral(mean, log_var):
    kl = float(gaussian.kl(z_mean=np.float32([mean]), z_log_var=np.float32([log_var])))
    assert kl == pytest.approx(quadrature_kl(mean, log_var), rel=1e-5, abs=1e-7)


def test_kl_is_what_monte_carlo_gives():
    z = Z_MEAN[:, None] + np.exp(0.5 * Z_LOG_VAR[:, None]) * RNG.normal(size=(5, 200_000, 4))
    q = scipy.stats.norm(Z_MEAN[:, None], np.exp(0.5 * Z_LOG_VAR[:, None]))
    ratio = (q.logpdf(z) - scipy.stats.norm.logpdf(z)).sum(-1)
    error = ratio.std(axis=1) / np.sqrt(200_000)
    assert np.all(np.abs(gaussian.kl(z_mean=Z_MEAN, z_log_var=Z_LOG_VAR) - ratio.mean(axis=1)) < 5 * error)


def test_kl_per_dimension_sums_to_the_kl():
    per_dimension = gaussian.kl_per_dimension(z_mean=Z_MEAN, z_log_var=Z_LOG_VAR)
    expected = np.vectorize(quadrature_kl)(Z_MEAN, Z_LOG_VAR)
    np.testing.assert_allclose(per_dimension, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(gaussian.kl(z_mean=Z_MEAN, z_log_var=Z_LOG_VAR), expected.sum(-1), rtol=1e-5)


def test_kl_is_never_negative_and_zero_only_at_the_prior():
    log_var = np.concatenate([np.linspace(-30, 30, 601), [1e-3, -1e-3, 1e-5, -1e-5, 1e-7]]).astype("float32")
    kl = np.asarray(gaussian.kl(z_mean=np.zeros((len(log_var), 1), "float32"), z_log_var=log_var[:, None]))
    assert kl.min() >= 0
    assert np.all(kl[np.abs(log_var) > 2e-3] > 1e-7)
    assert float(gaussian.kl(z_mean=np.zeros(7, "float32"), z_log_var=np.zeros(7, "float32"))) == 0


def test_small_kl_keeps_its_digits():
    # exp(v) - 1 - v in float32 would leave nothing of v^2 / 2 here
    log_var = np.float32([[1e-3]])
    expected = 0.5 * (np.expm1(np.float64(log_var[0, 0])) - np.float64(log_var[0, 0]))
    naive = 0.5 * (np.exp(log_var[0, 0]) - np.float32(1) - log_var[0, 0])
    kl = float(gaussian.kl(z_mean=np.zeros((1, 1), "float32"), z_log_var=log_var)[0])
    assert kl == pytest.approx(expected, rel=1e-3)
    assert abs(naive - expected) > 10 * abs(kl - expected)


WRONG_KL = {
    "sign turned": lambda m, v: 0.5 * np.sum(1 + v - m**2 - np.exp(v), axis=-1),
    "mean over latent dimensions": lambda m, v: 0.5 * np.mean(np.exp(v) + m**2 - 1 - v, axis=-1),
    "half dropped": lambda m, v: np.sum(np.exp(v) + m**2 - 1 - v, axis=-1),
    "log_var taken for log_std": lambda m, v: 0.5 * np.sum(np.exp(2 * v) + m**2 - 1 - 2 * v, axis=-1),
}


@pytest.mark.parametrize("wrong", WRONG_KL.values(), ids=WRONG_KL)
def test_kl_is_not_the_wrong_formula(wrong):
    right = np.vectorize(quadrature_kl)(Z_MEAN, Z_LOG_VAR).sum(-1)
    off = np.abs(wrong(Z_MEAN, Z_LOG_VAR) - right)
    assert off.min() > 0.1
    assert np.all(np.abs(gaussian.kl(z_mean=Z_MEAN, z_log_var=Z_LOG_VAR) - right) < 1e-4 * off)


def test_kl_gradient_is_the_closed_form():
    mean, log_var = tf.constant(Z_MEAN), tf.constant(Z_LOG_VAR)
    with tf.GradientTape() as tape:
        tape.watch([mean, log_var])
        total = tf.reduce_sum(gaussian.kl(z_mean=mean, z_log_var=log_var))
    by_mean, by_log_var = tape.gradient(total, [mean, log_var])
    np.testing.assert_allclose(by_mean, Z_MEAN, rtol=1e-6)
    np.testing.assert_allclose(by_log_var, 0.5 * (np.exp(Z_LOG_VAR.astype("float64")) - 1), rtol=1e-5, atol=1e-7)


def test_log_prob_is_the_density_of_scipy():
    x = RNG.normal(size=(5, 4)).astype("float32")
    expected = scipy.stats.norm.logpdf(x, Z_MEAN, np.exp(0.5 * Z_LOG_VAR)).sum(-1)
    np.testing.assert_allclose(gaussian.log_prob(x=x, mean=Z_MEAN, log_var=Z_LOG_VAR), expected, rtol=1e-5)


def test_log_prob_keeps_its_constants():
    density, _ = scipy.integrate.dblquad(
        lambda a, b: np.exp(
            gaussian.log_prob(x=np.array([a, b]), mean=np.array([0.3, -1.0]), log_var=np.array([0.5, -1.0]))
        ),
        *(-6, 6, -9, 9),
        epsabs=1e-3,
    )
    assert density == pytest.approx(1, abs=2e-3)  # exp of a log-density without log(2 pi) integrates to 6.28


def test_log_prob_broadcasts_samples_over_examples():
    z = RNG.normal(size=(7, 5, 4)).astype("float32")
    together = gaussian.log_prob(x=z, mean=Z_MEAN, log_var=Z_LOG_VAR)
    one_by_one = [gaussian.log_prob(x=sample, mean=Z_MEAN, log_var=Z_LOG_VAR) for sample in z]
    assert together.shape == (7, 5)
    np.testing.assert_allclose(together, one_by_one, rtol=1e-6)


@pytest.mark.parametrize("offset", [-1000.0, -50.0, 0.0, 50.0, 1000.0])
def test_log_mean_exp_neither_overflows_nor_underflows(offset):
    values = RNG.normal(size=(50, 3))
    expected = np.log(np.mean(np.exp(values), axis=0)) + offset
    received = gaussian.log_mean_exp((values + offset).astype("float32"), axis=0)
    np.testing.assert_allclose(received, expected, rtol=1e-6, atol=1e-3)
    np.testing.assert_allclose(gaussian.log_mean_exp(values.T + offset, axis=1), expected, rtol=1e-6, atol=1e-6)


def test_log_mean_exp_is_a_mean_and_not_a_sum():
    assert float(gaussian.log_mean_exp(np.full(1000, -86.0, "float32"), axis=0)) == pytest.approx(-86.0, abs=1e-4)


def test_log_mean_exp_takes_samples_of_probability_zero():
    values = np.array([-np.inf, 0.0, -np.inf, 0.0])
    assert float(gaussian.log_mean_exp(values, axis=0)) == pytest.approx(np.log(0.5))
    assert float(gaussian.log_mean_exp(np.full(3, -np.inf), axis=0)) == -np.inf


@pytest.mark.parametrize("log_var, spread", [(-7.0, 3.0), (-7.0, 1.0), (-2.0, 1.0)])
def test_a_mixture_of_narrow_components_keeps_its_digits(log_var, spread):
    rng = np.random.default_rng(0)
    means = (spread * rng.normal(size=(100, 40))).astype("float32")
    z = (means[:50] + np.exp(0.5 * log_var) * rng.normal(size=(50, 40))).astype("float32")
    found = gaussian.mixture_log_prob(z, np.zeros(100, "float32"), means, np.full((100, 40), log_var, "float32"))
    normals = scipy.stats.norm(means.astype("float64"), np.exp(0.5 * log_var)).logpdf(z[:, None]).sum(axis=-1)
    np.testing.assert_allclose(found, scipy.special.logsumexp(normals, axis=1) - np.log(100), atol=1e-4)
