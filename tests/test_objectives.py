"""Objectives: what is added to what, and when."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_vae import objectives

RECONSTRUCTION = np.float32([80.0, 100.0])
KL = np.float32([20.0, 10.0])


def weight(objective, step):
    """The weight of the KL term, seen from outside."""
    zero, one = np.float32([0.0]), np.float32([1.0])
    return float(objective(reconstruction_loss=zero, kl_loss=one, step=step)[0])


def test_beta_one_is_the_negative_elbo():
    np.testing.assert_allclose(objectives.ELBO()(reconstruction_loss=RECONSTRUCTION, kl_loss=KL), [100, 110])


def test_beta_weighs_the_kl_alone_and_is_no_elbo():
    loss = objectives.ELBO(beta=4.0)(reconstruction_loss=RECONSTRUCTION, kl_loss=KL)
    np.testing.assert_allclose(loss, [160, 140])
    assert np.all(np.abs(loss - (RECONSTRUCTION + KL)) > 25)


def test_beta_zero_is_the_reconstruction_loss():
    np.testing.assert_allclose(
        objectives.ELBO(beta=0.0)(reconstruction_loss=RECONSTRUCTION, kl_loss=KL), RECONSTRUCTION
    )


@pytest.mark.parametrize("step, expected", [(0, 0.0), (1, 0.3), (5, 1.5), (9, 2.7), (10, 3.0), (11, 3.0), (10**6, 3.0)])
def test_warm_up_rises_linearly_from_zero_to_beta(step, expected):
    objective = objectives.ELBO(beta=3.0, warmup_steps=10)
    assert weight(objective, tf.constant(step, tf.int64)) == pytest.approx(expected, abs=1e-6)


def test_evaluation_uses_the_full_beta_during_warm_up():
    assert weight(objectives.ELBO(beta=3.0, warmup_steps=10), None) == 3.0


def test_without_warm_up_the_first_step_has_the_full_beta():
    assert weight(objectives.ELBO(beta=3.0), tf.constant(0, tf.int64)) == 3.0


@pytest.mark.parametrize("name", ["beta", "warmup_steps"])
@pytest.mark.parametrize("value", [-1, -1e-9, float("nan")])
def test_negative_or_nan_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"`{name}`"):
        objectives.ELBO(**{name: value})


def test_configuration_survives_serialization():
    config = keras.saving.serialize_keras_object(objectives.ELBO(beta=2.0, warmup_steps=7))
    restored = keras.saving.deserialize_keras_object(config)
    assert (restored.beta, restored.warmup_steps) == (2.0, 7)


def test_unknown_objective_is_refused_with_the_choices():
    with pytest.raises(ValueError, match=r"elbo.*'elbow'"):
        objectives.get("elbow")
