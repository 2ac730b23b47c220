"""Likelihoods are true probabilities: they sum or integrate to 1, agree with scipy, and draw what they promise."""

import itertools

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from keras.src.testing import TestCase as KerasTestCase

from keras_vae import evaluation, likelihoods
from keras_vae.config import ModelConfig
from keras_vae.models import build_model

RNG = np.random.default_rng(0)
SHAPE = (3, 4, 5, 2)
X = RNG.uniform(size=SHAPE).astype("float32")
BINARY = (X > 0.5).astype("float32")
PARAMS = (2 * RNG.normal(size=SHAPE)).astype("float32")

NODES, NODE_WEIGHTS = (array / 2 for array in np.polynomial.legendre.leggauss(400))
NODES += 0.5  # Gauss's rule on [0, 1]
LEVELS = np.arange(256) / 255


def continuous_bernoulli(logits):
    """Density of x = NODES for each logit, [..., 400], by numerical integration of its unnormalised form."""
    density = np.exp(logits[..., None] * NODES - np.maximum(logits, 0)[..., None])
    return density / (density @ NODE_WEIGHTS)[..., None]


def log_continuous_bernoulli(x, logits):
    logits = logits.astype("float64")
    shift = np.maximum(logits, 0)
    return x * logits - shift - np.log(np.exp(logits[..., None] * NODES - shift[..., None]) @ NODE_WEIGHTS)


def log_discretized_logistic(x, location, scale=0.1):
    logistic = scipy.stats.logistic(location.astype("float64"), scale)
    level = np.round(255 * x.astype("float64"))
    lower = np.where(level == 0, -np.inf, (level - 0.5) / 255)
    upper = np.where(level == 255, np.inf, (level + 0.5) / 255)
    # in each tail by the function that keeps its digits there
    by_cdf, by_sf = logistic.cdf(upper) - logistic.cdf(lower), logistic.sf(lower) - logistic.sf(upper)
    return np.log(np.where(lower + upper < 2 * location, by_cdf, by_sf))


# name, options, images, frozen scipy distribution of a pixel
ORACLES = {
    "bernoulli": ({}, BINARY, lambda p: scipy.stats.bernoulli(1 / (1 + np.exp(-p.astype("float64")))).logpmf(BINARY)),
    "continuous_bernoulli": ({}, X, lambda p: log_continuous_bernoulli(X, p)),
    "discretized_logistic": ({}, X, lambda p: log_discretized_logistic(X, p)),
    "gaussian": ({}, X, lambda p: scipy.stats.norm(p, 1.0).logpdf(X)),
    "gaussian-scaled": ({"scale": 0.1}, X, lambda p: scipy.stats.norm(p, 0.1).logpdf(X)),
    "gaussian-learned": ({"scale": 0.3, "learn_scale": True}, X, lambda p: scipy.stats.norm(p, 0.3).logpdf(X)),
}


def make(name):
    return likelihoods.get(name.split("-")[0], **ORACLES[name][0])


@pytest.mark.parametrize("name", ORACLES)
def test_log_prob_is_that_of_scipy_summed_over_pixels(name):
    _, x, oracle = ORACLES[name]
    np.testing.assert_allclose(make(name).log_prob(x, PARAMS), oracle(PARAMS).sum(axis=(1, 2, 3)), rtol=2e-5)


@pytest.mark.parametrize("name", ORACLES)
def test_log_prob_takes_leading_sample_axes(name):
    likelihood, x = make(name), ORACLES[name][1]
    params = np.stack([PARAMS, -PARAMS, 0 * PARAMS])
    together = likelihood.log_prob(x, params)
    assert together.shape == (3, 3)
    np.testing.assert_allclose(together, [likelihood.log_prob(x, p) for p in params], rtol=1e-5)


WRONG_GAUSSIAN = {
    "log(2 pi) dropped": lambda x, m, s: np.sum(-0.5 * ((x - m) / s) ** 2 - np.log(s), axis=(1, 2, 3)),
    "log(scale) dropped": lambda x, m, s: np.sum(-0.5 * ((x - m) / s) ** 2 - 0.5 * np.log(2 * np.pi), axis=(1, 2, 3)),
    "mean over pixels": lambda x, m, s: np.mean(scipy.stats.norm(m, s).logpdf(x), axis=(1, 2, 3)),
    "squared error without the half": lambda x, m, s: -np.sum((x - m) ** 2, axis=(1, 2, 3)),
}


@pytest.mark.parametrize("wrong", WRONG_GAUSSIAN.values(), ids=WRONG_GAUSSIAN)
def test_gaussian_is_not_the_wrong_formula(wrong):
    right = scipy.stats.norm(PARAMS, 0.3).logpdf(X).sum(axis=(1, 2, 3))
    off = np.abs(wrong(X, PARAMS, 0.3) - right)
    assert off.min() > 10
    assert np.all(np.abs(likelihoods.Gaussian(0.3).log_prob(X, PARAMS) - right) < 1e-3 * off)


@pytest.mark.parametrize("logit", [-1e4, -200.0, -40.0, 40.0, 200.0, 1e4])
def test_bernoulli_at_extreme_logits_is_not_log_of_clipped_p(logit):
    x, logits = np.float32([[0.0], [1.0]]), np.full((2, 1), logit, "float32")
    right = -np.logaddexp(0, [logit, -logit])  # log(1 - s(l)), log s(l)
    np.testing.assert_allclose(likelihoods.Bernoulli().log_prob(x, logits), right, rtol=1e-6, atol=1e-6)
    with np.errstate(over="ignore"):
        p = np.clip(1 / (1 + np.exp(-np.float64(logit))), 1e-7, 1 - 1e-7)  # Keras's epsilon
    clipped = np.array([np.log(1 - p), np.log(p)])
    assert np.abs(clipped - right).max() > 20


def test_bernoulli_is_not_the_mean_over_pixels():
    right = ORACLES["bernoulli"][2](PARAMS).sum(axis=(1, 2, 3))
    mean = ORACLES["bernoulli"][2](PARAMS).mean(axis=(1, 2, 3))
    assert np.abs(right - mean).min() > 10
    assert np.abs(likelihoods.Bernoulli().log_prob(BINARY, PARAMS) - right).max() < 1e-3


def test_bernoulli_probabilities_of_all_images_sum_to_one():
    every = np.array(list(itertools.product([0.0, 1.0], repeat=8)), "float32").reshape(256, 2, 4, 1)
    logits = np.broadcast_to((3 * RNG.normal(size=(2, 4, 1))).astype("float32"), every.shape)
    total = np.exp(np.asarray(likelihoods.Bernoulli().log_prob(every, logits), "float64")).sum()
    assert total == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("scale", [0.05, 1.0, 3.0])
def test_gaussian_density_integrates_to_one(scale):
    grid = np.linspace(0.4 - 10 * scale, 0.4 + 10 * scale, 2001, dtype="float32")
    log_prob = likelihoods.Gaussian(scale).log_prob(grid[:, None], np.full((2001, 1), 0.4, "float32"))
    assert np.trapezoid(np.exp(np.asarray(log_prob, "float64")), grid.astype("float64")) == pytest.approx(1, abs=1e-4)


def test_bernoulli_of_a_grey_pixel_is_the_cross_entropy():
    p = 1 / (1 + np.exp(-PARAMS.astype("float64")))
    expected = (X * np.log(p) + (1 - X) * np.log(1 - p)).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(likelihoods.Bernoulli().log_prob(X, PARAMS), expected, rtol=1e-5)


def variance_of(name, params, mean):
    if name == "bernoulli":
        return mean * (1 - mean)
    if name == "continuous_bernoulli":
        return continuous_bernoulli(params) * np.square(NODES - mean[:, None]) @ NODE_WEIGHTS
    if name == "discretized_logistic":
        probabilities = np.exp(log_discretized_logistic(LEVELS, params[:, None]))
        return (probabilities * np.square(LEVELS - mean[:, None])).sum(axis=1)
    return np.full(len(params), float(np.exp(make(name).log_scale)) ** 2)


@pytest.mark.parametrize("name", ORACLES)
def test_mean_is_the_mean_of_samples_and_spread_is_right(name):
    likelihood = make(name)
    params = np.broadcast_to(np.float32([[-0.1, 0.0, 0.4, 1.0]]), (40_000, 4))
    samples = np.asarray(likelihood.sample(params, noise=1))
    mean = np.asarray(likelihood.mean(params))[0]
    variance = variance_of(name, params[0], mean)
    assert np.all(np.abs(samples.mean(axis=0) - mean) < 5 * np.sqrt(variance / 40_000))
    np.testing.assert_allclose(samples.var(axis=0), variance, rtol=0.06)
    if name == "bernoulli":
        assert set(np.unique(samples)) == {0.0, 1.0}


@pytest.mark.parametrize("name", ORACLES)
def test_samples_follow_the_seed(name):
    likelihood = make(name)
    np.testing.assert_array_equal(likelihood.sample(PARAMS, noise=1), likelihood.sample(PARAMS, noise=1))
    assert np.mean(np.asarray(likelihood.sample(PARAMS, noise=1)) != likelihood.sample(PARAMS, noise=2)) > 0.05
    assert np.mean(np.asarray(likelihood.sample(PARAMS)) != likelihood.sample(PARAMS)) > 0.05


NEAR_HALF = np.float32([0, 1e-8, 1e-7, 1e-5, 1e-3, 0.03, 0.3, 0.999, 1.0, 1.001, 2, 7, 60])
NEAR_HALF = np.concatenate([-NEAR_HALF, NEAR_HALF])


def test_continuous_bernoulli_is_stable_near_one_half_in_value_and_gradient():
    likelihood, x = likelihoods.ContinuousBernoulli(), np.float32(0.3)
    logits = tf.constant(NEAR_HALF[:, None])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        log_prob = likelihood.log_prob(np.full(logits.shape, x), logits)
    mean = continuous_bernoulli(NEAR_HALF.astype("float64")) @ (NODES * NODE_WEIGHTS)
    np.testing.assert_allclose(log_prob, log_continuous_bernoulli(x, NEAR_HALF), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(tape.gradient(log_prob, logits)[:, 0], x - mean, atol=3e-7)
    np.testing.assert_allclose(likelihood.mean(logits)[:, 0], mean, atol=2e-7)
    with np.errstate(all="ignore"):
        naive = NEAR_HALF / np.expm1(NEAR_HALF)  # its logarithm is nan at 0, and its gradient long before
    assert np.isnan(naive[0])


def test_continuous_bernoulli_is_not_the_bernoulli_of_grey_pixels():
    grid = np.linspace(0, 1, 2001)
    for logit in (-4.0, 0.0, 0.4, 30.0):
        params = np.full((2001, 1), logit, "float32")
        density, wrong = (
            np.exp(np.asarray(likelihoods.get(name).log_prob(grid[:, None].astype("float32"), params), "float64"))
            for name in ("continuous_bernoulli", "bernoulli")
        )
        assert np.trapezoid(density, grid) == pytest.approx(1, abs=1e-3)
        assert np.trapezoid(wrong, grid) < 0.6


@pytest.mark.parametrize("logit", [-1e4, -30.0, -1e-3, 0.0, 1e-6, 2.0, 1e4])
def test_continuous_bernoulli_samples_have_the_distribution_of_its_density(logit):
    samples = np.asarray(
        likelihoods.ContinuousBernoulli().sample(np.full(20_000, logit, "float32"), noise=3), "float64"
    )
    assert samples.min() >= 0 and samples.max() <= 1

    def cdf(x):  # of 1 - x where logit > 0, whose density falls from 0 on
        size = abs(logit)
        return np.expm1(-size * x) / np.expm1(-size) if size else x

    folded = 1 - samples if logit > 0 else samples
    if abs(logit) < 1e3:  # at 1e4, float32 has few values between 1 - 1e-4 and 1
        assert scipy.stats.kstest(folded, cdf).pvalue > 1e-3
    assert folded.mean() == pytest.approx(1e-4, rel=0.05) or abs(logit) < 1e3


@pytest.mark.parametrize("scale", [1e-3, 0.02, 0.1, 2.0])
@pytest.mark.parametrize("location", [-0.3, 0.0, 0.4012, 1.0])
def test_discretized_logistic_sums_to_one_and_has_the_mean_that_it_says(location, scale):
    likelihood = likelihoods.DiscretizedLogistic(scale)
    x, params = LEVELS[:, None].astype("float32"), np.full((256, 1), location, "float32")
    probabilities = np.exp(np.asarray(likelihood.log_prob(x, params), "float64"))
    assert probabilities.sum() == pytest.approx(1, abs=1e-6)
    mean = float(likelihood.mean(params)[0, 0])
    assert mean == pytest.approx(probabilities @ LEVELS, abs=0.5 / 255 if scale < 0.1 else 3e-6)


def test_discretized_logistic_keeps_its_digits_in_the_tails():
    location = np.float32([-30, -3, -0.5, 1.5, 4, 30])[:, None]
    for x in np.float32([0, 1 / 255, 100 / 255, 254 / 255, 1]):
        pixels = np.full(location.shape, x)
        expected = log_discretized_logistic(pixels, location)[:, 0]
        log_prob = likelihoods.DiscretizedLogistic().log_prob(pixels, location)
        np.testing.assert_allclose(log_prob, expected, rtol=1e-5, atol=1e-12)


def test_discretized_logistic_takes_other_pixels_for_the_nearest_level():
    likelihood = likelihoods.DiscretizedLogistic()
    exact = likelihood.log_prob(np.round(255 * X) / np.float32(255), PARAMS)
    np.testing.assert_allclose(likelihood.log_prob(X, PARAMS), exact, rtol=1e-6)
    samples = 255 * np.asarray(likelihood.sample(0.1 * PARAMS + 0.5, noise=1))
    np.testing.assert_allclose(samples, np.round(samples), atol=1e-4)
    assert len(np.unique(np.round(samples))) > 50 and samples.min() >= 0 and samples.max() <= 255


def test_bits_per_dimension_of_a_uniform_image_are_eight():
    nats = 28 * 28 * np.log(256)
    assert likelihoods.DiscretizedLogistic().bits_per_dimension(nats, (28, 28, 1)) == pytest.approx(8)


def test_evaluation_gives_bits_per_dimension_beside_nats():
    vae = build_model(ModelConfig(hidden=(4,), latent_dim=2, likelihood="discretized_logistic"), SHAPE[1:])
    results = evaluation.evaluate(vae, np.round(255 * X) / np.float32(255), nll_samples=2)
    assert results["nll_bits_per_dimension"] == pytest.approx(results["nll"] / (4 * 5 * 2 * np.log(2)))


@pytest.mark.parametrize("name", ["continuous_bernoulli", "discretized_logistic"])
def test_extreme_parameters_leave_value_mean_and_gradient_finite(name):
    likelihood = make(name)
    params = tf.constant([[-1e4], [-100.0], [0.0], [100.0], [1e4]])
    for x in (0.0, 0.5, 1.0):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(params)
            values = [likelihood.log_prob(np.full((5, 1), x, "float32"), params), likelihood.mean(params)]
        sources = [params, *(weight.value for weight in likelihood.trainable_weights)]
        gradients = [gradient for value in values for gradient in tape.gradient(value, sources)]
        assert all(np.all(np.isfinite(value)) for value in (*values, *gradients) if value is not None)


@pytest.mark.parametrize("name", ORACLES)
def test_params_of_a_mean_have_that_mean(name):
    likelihood = make(name)
    mean = np.float32([0.001, 0.01, 0.3, 0.5, 0.77, 0.999])
    np.testing.assert_allclose(likelihood.mean(likelihood.params_of(mean)), mean, rtol=1e-4)
    assert np.all(np.isfinite(likelihood.params_of(np.float32([0, 1]))))


@pytest.mark.parametrize("x", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("logit", [-1e4, -100.0, 0.0, 100.0, 1e4])
def test_bernoulli_gradient_is_the_residual_at_any_logit(x, logit):
    logits = tf.constant([[logit]])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        log_prob = likelihoods.Bernoulli().log_prob(tf.constant([[x]]), logits)
    expected = x - (0.5 if logit == 0 else float(logit > 0))
    assert float(tape.gradient(log_prob, logits)[0, 0]) == pytest.approx(expected, abs=1e-6)


def test_learned_scale_is_a_weight_whose_best_value_is_the_residual():
    likelihood = likelihoods.Gaussian(0.5, learn_scale=True)
    assert [weight.name for weight in likelihood.trainable_weights] == ["log_scale"]
    assert likelihoods.Gaussian(0.5).trainable_weights == []
    residual = np.sqrt(np.mean((X - PARAMS) ** 2))
    likelihood.log_scale.assign(np.log(residual))
    with tf.GradientTape() as tape:
        log_prob = tf.reduce_sum(likelihood.log_prob(X, PARAMS))
    assert abs(float(tape.gradient(log_prob, likelihood.log_scale.value))) < 1e-2  # of 120 pixels


@pytest.mark.parametrize("name", ORACLES)
def test_likelihood_passes_the_serialization_checks_of_keras(name):
    identifier = name.split("-")[0]
    KerasTestCase().run_class_serialization_test(likelihoods.LIKELIHOODS[identifier](**ORACLES[name][0]))


def test_likelihoods_stay_in_float32_under_mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    for name in ORACLES:
        assert make(name).log_prob(ORACLES[name][1], PARAMS).dtype == "float32"


@pytest.mark.parametrize("scale", [0, -1.0, float("nan"), float("inf"), "big", None])
def test_bad_scale_is_refused_by_name(scale):
    with pytest.raises(ValueError, match="`scale`"):
        likelihoods.Gaussian(scale)
    with pytest.raises(ValueError, match="`scale`"):
        likelihoods.DiscretizedLogistic(scale)


def test_unknown_likelihood_is_refused_with_the_choices():
    with pytest.raises(ValueError, match=r"bernoulli, .*gaussian.*'poisson'"):
        likelihoods.get("poisson")
