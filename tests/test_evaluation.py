"""Evaluation against exact answers: a linear-Gaussian model, planted latents, and numpy."""

import hashlib

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from keras_vae import evaluation, gaussian
from keras_vae.config import ModelConfig
from keras_vae.models import build_model

PIXELS, LATENT, SCALE = 6, 2, 0.3


class Planted:
    """x = W z + noise with the exact likelihood known, and a q(z|x) that is too wide and off the mark."""

    def __init__(self, seed=0):
        rng = np.random.default_rng(seed)
        self.w = rng.normal(size=(PIXELS, LATENT)).astype("float32")
        self.x = (rng.normal(size=(40, LATENT)) @ self.w.T + SCALE * rng.normal(size=(40, PIXELS))).astype("float32")
        covariance = self.w @ self.w.T + SCALE**2 * np.eye(PIXELS)
        self.exact = scipy.stats.multivariate_normal(np.zeros(PIXELS), covariance).logpdf(self.x)
        precision = np.eye(LATENT) + self.w.T @ self.w / SCALE**2
        self.posterior_mean = (self.x @ self.w @ np.linalg.inv(precision) / SCALE**2).astype("float32")
        self.posterior_var = np.diag(np.linalg.inv(precision)).astype("float32")

    def estimate(self, num_samples, seed=0, **options):
        projection = tf.constant(np.linalg.lstsq(self.x, self.posterior_mean, rcond=None)[0].astype("float32"))

        def encode(x):
            z_mean = x @ projection + 0.05
            return z_mean, tf.zeros_like(z_mean) + np.log(2 * self.posterior_var)

        def log_likelihood(x, z):
            mean = tf.einsum("sbd,pd->sbp", z, self.w)
            return gaussian.log_prob(x=x, mean=mean, log_var=tf.fill((PIXELS,), float(np.log(SCALE**2))))

        return evaluation.log_marginal(
            self.x,
            encode=encode,
            log_likelihood=log_likelihood,
            log_prior=lambda z, seed: gaussian.log_prob(x=z, mean=tf.zeros_like(z), log_var=tf.zeros_like(z)),
            num_samples=num_samples,
            seed=seed,
            **options,
        )


def test_importance_sampling_finds_the_exact_likelihood():
    planted = Planted()
    np.testing.assert_allclose(planted.estimate(20_000, chunk=1000), planted.exact, atol=0.06)


def test_the_bound_rises_with_the_samples_and_stays_below_the_truth():
    planted = Planted()
    means = [np.mean([planted.estimate(k, seed=seed).mean() for seed in range(6)]) for k in (1, 10, 100)]
    assert means[0] + 0.1 < means[1] < means[2] < planted.exact.mean() + 0.02


@pytest.mark.parametrize("num_samples", [1, 7, 50, 53])
def test_a_last_chunk_that_is_not_full_is_weighed_right(num_samples):
    constant = evaluation.log_marginal(
        np.zeros((3, 2), "float32"),
        encode=lambda x: (tf.zeros((tf.shape(x)[0], 1)),) * 2,
        log_likelihood=lambda x, z: tf.fill(tf.shape(z)[:-1], -500.0),
        log_prior=lambda z, seed: gaussian.log_prob(x=z, mean=tf.zeros_like(z), log_var=tf.zeros_like(z)),
        num_samples=num_samples,
        chunk=10,
    )
    np.testing.assert_allclose(constant, -500.0, rtol=1e-6)


def test_samples_differ_between_batches_chunks_and_seeds():
    planted = Planted()
    planted.x = np.repeat(planted.x[:1], 40, axis=0)
    one_by_one = planted.estimate(2, batch_size=1, chunk=1)
    assert len(np.unique(one_by_one)) == 40
    assert not np.allclose(one_by_one, planted.estimate(2, seed=1, batch_size=1, chunk=1))
    np.testing.assert_array_equal(one_by_one, planted.estimate(2, batch_size=1, chunk=1))


def test_progress_ends_at_all_images():
    done = []
    Planted().estimate(1, batch_size=15, on_batch=lambda results: done.append(len(results["log_marginal"])))
    assert done == [15, 30, 40]


def test_planted_dead_and_live_latents_are_told_apart():
    z_mean = np.stack([np.linspace(-1, 1, 50), np.full(50, 3.0), np.linspace(-0.1, 0.1, 50)], axis=1)
    assert evaluation.active_units(z_mean).tolist() == [True, False, False]


def test_another_image_or_shape_has_another_hash():
    images = np.arange(24, dtype="float32").reshape(2, 3, 4)
    other = images.copy()
    other[0, 0, 0] += 1
    hashes = {
        evaluation.pixel_hash(array) for array in (images, other, images.reshape(3, 2, 4), images.astype("int32"))
    }
    assert len(hashes) == 4
    assert evaluation.pixel_hash(images) == evaluation.pixel_hash(images.copy())
    assert hashes.isdisjoint({hashlib.sha256(images).hexdigest()[:16]})  # the shape is part of it


def test_batches_are_joined_in_order():
    values = np.arange(25, dtype="float32").reshape(-1, 1)
    double, square = evaluation.batched(lambda x: (2 * x, x**2), values, batch_size=10)
    np.testing.assert_array_equal(double, 2 * values)
    np.testing.assert_array_equal(square, values**2)


@pytest.fixture(scope="module")
def vae():
    keras.utils.set_random_seed(0)
    return build_model(ModelConfig(hidden=(8,), latent_dim=2), (8, 8, 1), seed=0)


def grey_and_binary(count=30):
    grey = np.random.default_rng(0).uniform(size=(count, 8, 8, 1)).astype("float32")
    return grey, np.round(grey)


def test_grey_pixels_under_a_bernoulli_are_never_called_a_likelihood(vae):
    grey, binary = grey_and_binary()
    named = evaluation.evaluate(vae, grey, nll_samples=5)
    assert "nll" not in named and "elbo" not in named and "importance_weighted_loss" in named
    named = evaluation.evaluate(vae, binary, nll_samples=5)
    assert "nll" in named and "elbo" in named and "importance_weighted_loss" not in named


def test_a_beta_weighted_loss_is_never_called_elbo():
    keras.utils.set_random_seed(0)
    vae = build_model(ModelConfig(hidden=(8,), latent_dim=2, beta=50.0), (8, 8, 1), seed=0)
    results = evaluation.evaluate(vae, grey_and_binary()[1])
    assert results["elbo"] == pytest.approx(-(results["reconstruction_loss"] + results["kl_loss"]))
    assert results["loss"] == pytest.approx(results["reconstruction_loss"] + 50 * results["kl_loss"], rel=1e-5)
    assert abs(results["loss"] + results["elbo"]) > 1


def test_nll_is_at_most_the_loss_on_average(vae):
    _, binary = grey_and_binary(300)
    results = evaluation.evaluate(vae, binary, nll_samples=50)
    assert results["nll"] < -results["elbo"]
    assert results["nll_images"] == 300 and results["nll_samples"] == 50
    estimates = [evaluation.evaluate(vae, binary[i::3], nll_samples=50)["nll"] for i in range(3)]
    assert np.std(estimates, ddof=1) == pytest.approx(np.sqrt(3) * results["nll_standard_error"], rel=0.9)


def test_a_denoiser_is_scored_on_noisy_images():
    keras.utils.set_random_seed(0)
    config = ModelConfig(model="autoencoder", hidden=(8,), latent_dim=2, corruption="masking", corruption_rate=0.3)
    images = np.ones((200, 8, 8, 1), "float32")
    results = evaluation.evaluate(build_model(config, (8, 8, 1), seed=0), images)
    assert results["corrupted_mse"] == pytest.approx(0.3, abs=0.02)  # a masked one is wrong by 1
    assert results["restored_mse"] != results["mse"]
