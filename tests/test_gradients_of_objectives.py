"""log q(z|x) of what was drawn, where float32 cannot tell the draws from their mean."""

import numpy as np
import pytest
import tensorflow as tf

from keras_vae import objectives
from keras_vae.layers import Sampling


def terms(objective, log_var, dim=4, rows=8):
    """(loss [b], its gradients by the heads) of an objective whose decoder ignores z."""
    heads = [tf.Variable(tf.fill((rows, dim), value)) for value in (3.0, log_var)]
    sampling = Sampling(seed=2)
    sampling.build([(None, dim)] * 2)
    with tf.GradientTape() as tape:
        draws = sampling.draw(heads, objective.num_samples)
        loss = objective.terms(draws, lambda z: tf.zeros(tf.shape(z)[:2]))["loss"]
    return loss.numpy(), tape.gradient(loss, heads), draws


@pytest.mark.parametrize("log_var", [-10.0, -30.0, -60.0])
def test_dreg_takes_log_q_from_the_noise_as_the_other_objectives_do(log_var):
    plain, _, draws = terms(objectives.IWAE(k=5), log_var)
    doubly, _, _ = terms(objectives.DReG(k=5), log_var)
    np.testing.assert_allclose(doubly, plain, rtol=1e-5)
    # and what they take is the density of the noise, computed here in float64
    expected = -0.5 * 4 * (np.log(2 * np.pi) + log_var)
    noise = draws.log_posterior.numpy() - expected  # -0.5 * sum of squares of 4 standard normals
    assert -30 < noise.min() and -3.5 < noise.mean() < -0.8


def test_gradients_by_a_small_variance_are_as_good_as_the_docstring_says():
    def score(log_var):
        _, gradients, draws = terms(objectives.DReG(k=1), log_var)
        return gradients[1].numpy(), draws

    gradient, draws = score(-23.0)
    # k = 1, no likelihood: d loss / d log_var = d/d log_var of (log q - log p) at z = 0.5 (eps (-eps) + z sigma eps)
    eps2 = -2 * (draws.log_posterior.numpy()[0] + 0.5 * 4 * (np.log(2 * np.pi) - 23.0))
    np.testing.assert_allclose(gradient.sum(axis=1), -0.5 * eps2, rtol=0.03, atol=0.01)
