"""Posteriors: draws, density, KL and gradients belong to one distribution, and the layers above them work for each."""

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from keras.src.testing import TestCase as KerasTestCase

from keras_vae import kl, networks, noise, objectives, posteriors, priors
from keras_vae.layers import Sampling
from keras_vae.models import VAE

RNG = np.random.default_rng(0)
every_posterior = pytest.mark.parametrize("name", posteriors.POSTERIORS)


def heads_of(name, count=3, latent_dim=2):
    shapes = posteriors.get(name).head_shapes((latent_dim,))
    return [RNG.normal(size=(count, *shape)).astype("float32") for shape in shapes.values()]


def moments(name, heads):
    """Mean [b, d] and covariance [b, d, d] by numpy."""
    if name == "diagonal_gaussian":
        return heads[0], np.stack([np.diag(np.exp(row)) for row in heads[1]])
    factors = np.zeros((len(heads[0]), 2, 2))
    factors[:, 0, 0], factors[:, 1, 0], factors[:, 1, 1] = (
        np.exp(heads[1][:, 0] / 2),
        heads[1][:, 1],
        np.exp(heads[1][:, 2] / 2),
    )
    return heads[0], factors @ factors.transpose(0, 2, 1)


@every_posterior
def test_density_is_that_of_scipy_for_draws_and_for_any_z(name):
    posterior, heads = posteriors.get(name), heads_of(name)
    means, covariances = moments(name, heads)
    z, log_q = posterior.sample(heads, 4, noise.get(1))
    for points, found in ((np.asarray(z), log_q), (RNG.normal(size=(5, 3, 2)).astype("float32"), None)):
        found = posterior.log_prob(points, heads) if found is None else found
        for row in range(3):
            exact = scipy.stats.multivariate_normal(means[row], covariances[row]).logpdf(points[:, row])
            np.testing.assert_allclose(np.asarray(found)[:, row], exact, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(log_q, posterior.log_prob(z, heads), rtol=1e-4, atol=1e-4)


@every_posterior
def test_draws_have_the_moments_of_the_density(name):
    posterior, heads = posteriors.get(name), heads_of(name)
    means, covariances = moments(name, heads)
    z = np.asarray(posterior.sample(heads, 100_000, noise.get(2))[0])
    np.testing.assert_allclose(posterior.mean(heads), means, rtol=1e-6)
    for row in range(3):
        assert np.abs(z[:, row].mean(0) - means[row]).max() < 5 * np.sqrt(np.diag(covariances[row]).max() / 1e5)
        np.testing.assert_allclose(np.cov(z[:, row].T), covariances[row], atol=0.03 * np.abs(covariances[row]).max())


@every_posterior
def test_kl_in_closed_form_is_that_of_the_draws(name):
    posterior, heads, prior = posteriors.get(name), heads_of(name), priors.StandardNormal()
    prior.build((None, 2))
    assert (type(posterior), type(prior)) in kl.CLOSED_FORMS
    z, log_q = posterior.sample(heads, 200_000, noise.get(3))
    groups = np.asarray(kl.groups(posterior, prior, heads, z, log_q))
    ratio = np.asarray(log_q) - np.asarray(prior.log_prob(z))
    assert np.all(np.abs(groups.sum(-1) - ratio.mean(0)) < 5 * ratio.std(0) / np.sqrt(len(ratio)))
    assert groups.shape[1] == len(kl.group_dims(posterior, prior)) and np.all(groups >= 0)


def test_part_of_a_dimension_is_the_kl_of_its_conditional():
    heads = heads_of("full_covariance")
    prior = priors.StandardNormal()
    prior.build((None, 2))
    posterior = posteriors.get("full_covariance")
    groups = np.asarray(kl.groups(posterior, prior, heads, None, None))
    means, covariances = moments("full_covariance", heads)
    first = 0.5 * (covariances[:, 0, 0] + means[:, 0] ** 2 - 1 - np.log(covariances[:, 0, 0]))
    np.testing.assert_allclose(groups[:, 0], first, rtol=1e-4)  # the marginal of z_1
    trace, log_det = np.trace(covariances, axis1=1, axis2=2), np.log(np.linalg.det(covariances))
    np.testing.assert_allclose(groups.sum(-1), 0.5 * (trace + (means**2).sum(-1) - 2 - log_det), rtol=1e-4)


@every_posterior
def test_zeros_are_the_standard_normal(name):
    posterior = posteriors.get(name)
    sampling = Sampling(posterior=posterior)
    heads = [tf.zeros((3, *shape)) for shape in posterior.head_shapes((4,)).values()]
    np.testing.assert_allclose(sampling(heads)[1], 0, atol=1e-6)


@every_posterior
@pytest.mark.parametrize("value", [-1e4, 30.0, 1e4])
def test_extreme_spreads_stay_finite_and_find_back(name, value):
    sampling = Sampling(posterior=name, seed=1)
    heads = [tf.fill((1, *shape), value) for shape in posteriors.get(name).head_shapes((1,)).values()]
    heads[0] = tf.zeros((1, 1))
    with tf.GradientTape() as tape:
        tape.watch(heads)
        loss = tf.reduce_sum(sampling(heads)[1])
    gradient = tape.gradient(loss, heads[1])
    assert np.isfinite(loss) and np.all(np.isfinite(gradient)) and np.sign(gradient[0, 0]) == np.sign(value)


@every_posterior
def test_gradients_flow_to_every_head(name):
    heads = [tf.Variable(head) for head in heads_of(name)]
    with tf.GradientTape() as tape:
        z, log_q = posteriors.get(name).sample(heads, 2, noise.get(1))
        loss = tf.reduce_sum(z**2) + tf.reduce_sum(log_q)
    assert all(np.abs(gradient).max() > 0 for gradient in tape.gradient(loss, heads))


@every_posterior
def test_dreg_has_the_mean_of_the_iwae_gradient(name):
    heads, repeats = [np.repeat(head[:1], 3000, axis=0) for head in heads_of(name)], 3000
    found = []
    for objective in (objectives.IWAE(k=5), objectives.DReG(k=5)):
        variables = [tf.Variable(head) for head in heads]
        sampling = Sampling(posterior=name, seed=4)
        sampling.build([(None, *head.shape[1:]) for head in heads])
        with tf.GradientTape() as tape:
            draws = sampling.draw(variables, 5)
            loss = objective.terms(draws, lambda z: -tf.reduce_sum(tf.square(z - 0.5), axis=-1))["loss"]
        gradients = [np.asarray(gradient) for gradient in tape.gradient(loss, variables)]
        found.append(np.concatenate([gradient.reshape(repeats, -1) for gradient in gradients], axis=1))
    plain, doubly = found
    assert np.all(np.abs(plain.mean(0) - doubly.mean(0)) < 5 * np.sqrt((plain.var(0) + doubly.var(0)) / repeats))


@every_posterior
def test_posterior_passes_the_serialization_checks_of_keras(name):
    KerasTestCase().run_class_serialization_test(posteriors.get(name))


@every_posterior
def test_a_pseudo_input_prior_is_the_mixture_of_its_posteriors(name):
    heads = tuple(posteriors.get(name).head_shapes((2,)).items())
    x = keras.Input((3,))
    encoder = keras.Model(x, [keras.layers.Dense(shape[0], name=head)(x) for head, shape in heads])
    decoder = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    vae = VAE(encoder, decoder, posterior=name, prior=priors.VampPrior(4))
    z = RNG.normal(size=(5, 2)).astype("float32")
    means, covariances = moments(name, [np.asarray(head) for head in encoder(vae.prior.pseudo_inputs.numpy())])
    densities = [scipy.stats.multivariate_normal(m, c).pdf(z) for m, c in zip(means, covariances, strict=True)]
    np.testing.assert_allclose(vae.prior.log_prob(z), np.log(np.mean(densities, axis=0)), rtol=1e-3, atol=1e-4)
    drawn = np.asarray(vae.prior.sample(50_000, 1))
    np.testing.assert_allclose(drawn.mean(0), means.mean(0), atol=0.05)


def test_unknown_posterior_is_refused_with_the_choices():
    with pytest.raises(ValueError, match=r"diagonal_gaussian.*'cauchy'"):
        posteriors.get("cauchy")


def test_networks_give_what_the_posterior_asks_for():
    encoder, decoder = networks.build("linear", (2, 2, 1), 3, heads=posteriors.get("full_covariance").head_shapes((3,)))
    assert encoder.output_names == ["z_mean", "z_factor"] and encoder.output_shape == [(None, 3), (None, 6)]
    assert decoder.input_shape == (None, 3)
