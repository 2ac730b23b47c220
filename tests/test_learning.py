"""Training reaches what theory and others' measurements say that it reaches."""

import keras
import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import tensorflow as tf

from keras_vae.config import ModelConfig
from keras_vae.models import VAE, build_model

PIXELS, LATENT, SCALE, COUNT = 16, 2, 0.5, 1024


@pytest.fixture(scope="module")
def planted():
    """Images of a probabilistic PCA model, x = W z + noise, and the planted W. They may leave [0, 1]: a dataset may."""
    rng = np.random.default_rng(0)
    loadings = rng.normal(size=(PIXELS, LATENT)) * [0.5, 0.3]
    x = rng.normal(size=(COUNT, LATENT)) @ loadings.T + SCALE * rng.normal(size=(COUNT, PIXELS))
    return x.astype("float32"), loadings


def dataset(x):
    return tf.data.Dataset.from_tensor_slices(x.reshape(-1, 4, 4, 1)).cache()


def train(x, epochs, **values):
    keras.utils.set_random_seed(0)
    vae = build_model(ModelConfig(network="linear", latent_dim=LATENT, likelihood="gaussian", **values), (4, 4, 1), 0)
    schedule = keras.optimizers.schedules.CosineDecay(0.02, epochs * COUNT // 128)
    vae.compile(keras.optimizers.Adam(schedule), steps_per_execution=8)
    vae.fit(dataset(x).batch(128), epochs=epochs, verbose=0)
    return vae


def evaluate(vae, x):
    """The terms of the loss, averaged over much noise."""
    return vae.evaluate(dataset(x).repeat(64).batch(4096), verbose=0, return_dict=True)


@pytest.fixture(scope="module")
def trained(planted):
    return train(planted[0], epochs=100, scale=1.0, learn_scale=True)


def ppca(x):
    """The best probabilistic PCA (Tipping and Bishop, 1999, equations 7 and 8).

    Returns mean log-likelihood, scale and principal directions.
    """
    x = x.astype("float64")
    values, vectors = np.linalg.eigh(np.cov(x.T, bias=True))
    variance = values[:-LATENT].mean()
    top = vectors[:, -LATENT:]
    covariance = variance * np.eye(PIXELS) + top @ np.diag(values[-LATENT:] - variance) @ top.T
    return scipy.stats.multivariate_normal(x.mean(axis=0), covariance).logpdf(x).mean(), np.sqrt(variance), top


def test_linear_gaussian_elbo_reaches_the_exact_likelihood_of_ppca(planted, trained):
    x, _ = planted
    elbo = -evaluate(trained, x)["loss"]
    maximum, scale, _ = ppca(x)
    assert elbo == pytest.approx(maximum, abs=0.03)
    assert elbo < maximum + 0.005  # a bound
    assert trained.likelihood.statistics()["scale"] == pytest.approx(scale, rel=0.01)
    # The trained model's own exact likelihood lies between the two.
    kernel, bias = (np.asarray(weight, "float64") for weight in trained.decoder.weights)
    covariance = kernel.T @ kernel + np.exp(2 * float(trained.likelihood.log_scale)) * np.eye(PIXELS)
    exact = scipy.stats.multivariate_normal(bias, covariance).logpdf(x).mean()
    assert elbo - 0.005 < exact <= maximum + 1e-6


def test_decoder_spans_the_planted_subspace_and_encoder_is_the_posterior(planted, trained):
    x, loadings = planted
    kernel = np.asarray(trained.decoder.weights[0], "float64")
    angle = {
        name: np.rad2deg(scipy.linalg.subspace_angles(kernel.T, basis)).max()
        for name, basis in (("planted", loadings), ("pca", ppca(x)[2]))
    }
    assert angle["pca"] < 2
    assert angle["planted"] < 7  # which 1024 noisy images do not tell better
    precision = kernel @ kernel.T / np.exp(2 * float(trained.likelihood.log_scale)) + np.eye(LATENT)
    z_log_var = np.asarray(trained.encode(x.reshape(-1, 4, 4, 1))[1])
    np.testing.assert_allclose(z_log_var.mean(axis=0), -np.log(np.diag(precision)), atol=0.05)
    assert z_log_var.std(axis=0).max() < 0.1  # the posterior's variance is the same for all images


@pytest.mark.slow
def test_beta_raises_reconstruction_loss_and_lowers_kl(planted):
    x = planted[0]
    logs = {beta: evaluate(train(x, epochs=20, scale=SCALE, beta=beta), x) for beta in (1.0, 5.0)}
    assert logs[1.0]["kl_loss"] > logs[5.0]["kl_loss"] + 0.5
    assert logs[1.0]["reconstruction_loss"] < logs[5.0]["reconstruction_loss"] - 0.5
    assert logs[1.0]["loss"] < logs[5.0]["reconstruction_loss"] + logs[5.0]["kl_loss"] - 0.1  # the better bound


@pytest.mark.slow
def test_one_epoch_of_mlp_on_mnist_is_under_130_nats(mnist_dir, mnist_data_dir):
    from keras_vae import data

    keras.utils.set_random_seed(0)
    train, test = data.load("mnist", batch_size=128, mnist_dir=mnist_dir, data_dir=mnist_data_dir)
    vae = VAE.from_preset("mlp", seed=0)
    vae.compile("adam")
    vae.fit(train, epochs=1, verbose=0)
    logs = vae.evaluate(test, verbose=0, return_dict=True)
    assert 45.53 < logs["loss"] < 130  # below the mean entropy of grey pixels no model can be
    assert logs["loss"] == pytest.approx(logs["reconstruction_loss"] + logs["kl_loss"], rel=1e-4)
