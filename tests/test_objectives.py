"""Objectives: what is added to what, when, and with which gradient."""

import keras
import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf

from keras_vae import kl, networks, objectives
from keras_vae.layers import Draws, Sampling
from keras_vae.models import VAE, HierarchicalVAE
from keras_vae.posteriors import DiagonalGaussian
from keras_vae.priors import StandardNormal

RNG = np.random.default_rng(0)
MEAN = RNG.normal(size=(5, 3)).astype("float32")
LOG_VAR = RNG.normal(size=(5, 3)).astype("float32") - 1
KL = 0.5 * (np.exp(LOG_VAR) + MEAN**2 - 1 - LOG_VAR)


def draws_of(num_samples, mean=MEAN, log_var=LOG_VAR, seed=1):
    sampling = Sampling(seed=seed)
    sampling.build(((None, mean.shape[1]),) * 2)
    return sampling.draw((mean, log_var), num_samples)


def decode(z):
    """Some log p(x|z), [s, b]."""
    return -10 - tf.reduce_sum(tf.square(z - 0.3), axis=-1)


def loss_of(objective, draws=None, step=None):
    return np.asarray(objective.terms(draws or draws_of(objective.num_samples), decode, step)["loss"])


# -- the ELBO ---------------------------------------------------------------------------------------------------


def weight(objective, step):
    """The weight of the KL term, seen from outside."""
    draws = draws_of(1)
    return float((loss_of(objective, draws, step)[0] + decode(draws.z)[0, 0]) / KL.sum(-1)[0])


def test_beta_one_is_the_negative_elbo():
    draws = draws_of(1)
    np.testing.assert_allclose(loss_of(objectives.ELBO(), draws), KL.sum(-1) - decode(draws.z)[0], rtol=1e-5)


@pytest.mark.parametrize("beta", [0.0, 4.0])
def test_beta_weighs_the_kl_alone(beta):
    assert weight(objectives.ELBO(beta=beta), None) == pytest.approx(beta, abs=1e-5)


@pytest.mark.parametrize("step, expected", [(0, 0.0), (1, 0.3), (5, 1.5), (9, 2.7), (10, 3.0), (11, 3.0), (10**6, 3.0)])
def test_warm_up_rises_linearly_from_zero_to_beta(step, expected):
    objective = objectives.ELBO(beta=3.0, warmup_steps=10)
    assert weight(objective, tf.constant(step, tf.int64)) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("step, expected", [(0, 0.0), (2, 1.0), (4, 2.0), (9, 2.0), (10, 0.0), (12, 1.0), (1007, 2.0)])
def test_cycles_start_again_from_zero(step, expected):
    objective = objectives.ELBO(beta=2.0, warmup_steps=4, cycle_steps=10)
    assert weight(objective, tf.constant(step, tf.int64)) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("warmup_steps", [0, 11])
def test_cycles_without_a_warm_up_that_fits_are_refused(warmup_steps):
    with pytest.raises(ValueError, match="`cycle_steps` needs `warmup_steps`"):
        objectives.ELBO(warmup_steps=warmup_steps, cycle_steps=10)


def test_evaluation_uses_the_full_beta_during_warm_up():
    assert weight(objectives.ELBO(beta=3.0, warmup_steps=10), None) == pytest.approx(3.0, rel=1e-5)


def test_without_warm_up_the_first_step_has_the_full_beta():
    assert weight(objectives.ELBO(beta=3.0), tf.constant(0, tf.int64)) == pytest.approx(3.0, rel=1e-5)


def test_free_bits_hold_up_each_dimension_of_each_image():
    draws, free = draws_of(1), float(np.median(KL))
    expected = np.maximum(KL, free).sum(-1) - decode(draws.z)[0]
    np.testing.assert_allclose(loss_of(objectives.ELBO(free_bits=free), draws), expected, rtol=1e-5)
    log_var = tf.Variable(LOG_VAR)
    with tf.GradientTape() as tape:
        draws = draws_of(1, log_var=log_var)
        loss = objectives.ELBO(free_bits=free).terms(draws, lambda z: tf.zeros(z.shape[:2]))["loss"]
    gradient = tape.gradient(loss, log_var).numpy()
    assert np.all((gradient == 0) == (KL < free))


def test_free_bits_of_a_part_are_those_of_all_its_dimensions():
    class Parts(StandardNormal):
        pass

    @kl.closed_form(DiagonalGaussian, Parts, dims=lambda posterior, prior: (2, 1))
    def parts(*_):
        return tf.constant(np.stack([KL[:, :2].sum(-1), KL[:, 2]], axis=1))

    draws, free = draws_of(1), float(np.median(KL))
    draws.prior = Parts()
    draws.prior.build((None, 3))
    expected = np.maximum(KL[:, :2].sum(-1), 2 * free) + np.maximum(KL[:, 2], free) - decode(draws.z)[0]
    np.testing.assert_allclose(loss_of(objectives.ELBO(free_bits=free), draws), expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["beta", "warmup_steps", "cycle_steps", "free_bits"])
@pytest.mark.parametrize("value", [-1, -1e-9, float("nan")])
def test_negative_or_nan_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"`{name}`"):
        objectives.ELBO(**{name: value})


# -- importance-weighted bounds ---------------------------------------------------------------------------------


def log_weights(draws):
    z = np.asarray(draws.z, "float64")
    log_posterior = scipy.stats.norm(MEAN, np.exp(0.5 * LOG_VAR)).logpdf(z).sum(-1)
    return np.asarray(decode(z)) + scipy.stats.norm.logpdf(z).sum(-1) - log_posterior


@pytest.mark.parametrize(
    "objective",
    [objectives.IWAE(k=6), objectives.DReG(k=6), objectives.MIWAE(m=2, k=3)],
    ids=lambda o: type(o).__name__,
)
def test_bounds_are_log_mean_weights_of_each_group(objective):
    draws = draws_of(6)
    grouped = log_weights(draws).reshape(objective.m, objective.k, -1)
    expected = -(scipy.special.logsumexp(grouped, axis=1) - np.log(objective.k)).mean(0)
    np.testing.assert_allclose(loss_of(objective, draws), expected, rtol=1e-5)


def gradients(objective, repeats=4000):
    """Gradients by z_mean and z_log_var of one image for many draws: two arrays [repeats, 3]."""
    mean, log_var = (tf.Variable(np.repeat(value[:1], repeats, axis=0)) for value in (MEAN, LOG_VAR))
    with tf.GradientTape() as tape:
        loss = objective.terms(draws_of(objective.num_samples, mean, log_var, seed=5), decode)["loss"]
    return [gradient.numpy() for gradient in tape.gradient(loss, (mean, log_var))]


def test_dreg_has_the_mean_of_the_iwae_gradient_with_less_variance():
    plain, doubly = gradients(objectives.IWAE(k=8)), gradients(objectives.DReG(k=8))
    for left, right in zip(plain, doubly, strict=True):
        error = np.sqrt((left.var(0) + right.var(0)) / len(left))
        assert np.all(np.abs(left.mean(0) - right.mean(0)) < 5 * error)
        assert np.abs(left.mean(0)).max() > 10 * error.max()
        assert np.all(right.var(0) < left.var(0))


def test_dreg_leaves_the_gradient_of_the_decoder_to_iwae():
    scale, found = tf.Variable(2.0), []
    for objective in (objectives.IWAE(k=4), objectives.DReG(k=4)):
        with tf.GradientTape() as tape:
            loss = objective.terms(draws_of(4), lambda z: scale * decode(z))["loss"]
        found.append(tape.gradient(loss, scale).numpy())
    assert found[0] == pytest.approx(found[1], rel=1e-5) and abs(found[0]) > 1


@pytest.mark.parametrize("value", [0, -3, 2.0, True + 0.5])
def test_a_number_of_draws_that_is_none_is_refused(value):
    with pytest.raises(ValueError, match="`k`"):
        objectives.IWAE(k=value)
    with pytest.raises(ValueError, match="`m`"):
        objectives.MIWAE(m=value)


# -- total correlation ------------------------------------------------------------------------------------------


def test_the_decomposition_of_beta_tc_adds_up_to_the_kl():
    """Mutual information + total correlation + KL of the dimensions, each by numpy, for the same draws."""
    draws = draws_of(1)
    z = np.asarray(draws.z[0], "float64")
    density = scipy.stats.norm(MEAN[None], np.exp(0.5 * LOG_VAR)[None]).pdf(z[:, None])  # of draw, image, dimension
    log_q, log_q_dims = np.log(density.prod(-1).mean(1)), np.log(density.mean(1))
    log_posterior = np.log(density[np.arange(5), np.arange(5)]).sum(-1)
    information, correlation = log_posterior - log_q, log_q - log_q_dims.sum(-1)
    dimensions = (log_q_dims - scipy.stats.norm.logpdf(z)).sum(-1)
    np.testing.assert_allclose(objectives.BetaTC().total_correlation(draws)[0], correlation, atol=1e-4)
    monte_carlo_kl = log_posterior - scipy.stats.norm.logpdf(z).sum(-1)
    np.testing.assert_allclose(information + correlation + dimensions, monte_carlo_kl, atol=1e-9)
    expected = KL.sum(-1) + 5 * correlation - decode(draws.z)[0]
    np.testing.assert_allclose(loss_of(objectives.BetaTC(beta=6.0), draws), expected, rtol=1e-4)
    assert np.abs(correlation).max() > 0.01


def test_total_correlation_tells_independent_latents_from_copies():
    rng = np.random.default_rng(0)
    independent = rng.normal(size=(400, 2)).astype("float32")
    copied = np.repeat(independent[:, :1], 2, axis=1)
    narrow = np.full((400, 2), -2.0, "float32")
    found = [np.mean(objectives.BetaTC().total_correlation(draws_of(1, z, narrow))) for z in (independent, copied)]
    assert abs(found[0]) < 0.15 and found[1] > 0.5


# -- all of them ------------------------------------------------------------------------------------------------


def test_one_layer_of_a_hierarchical_model_is_the_vae():
    losses = []
    for make in (lambda e, d, **o: VAE(e, d, **o), lambda e, d, **o: HierarchicalVAE([e], [d], **o)):
        keras.utils.set_random_seed(0)
        model = make(*networks.build("mlp", (4, 4, 1), 2, hidden=(5,)), objective=objectives.IWAE(k=3), seed=4)
        losses.append(model.loss_terms(np.full((2, 4, 4, 1), 0.5, "float32"), training=True))
    for name, value in losses[0].items():
        np.testing.assert_array_equal(value, losses[1][name])


@pytest.mark.parametrize("name", objectives.OBJECTIVES)
def test_configuration_survives_serialization(name):
    changed = {"beta": 2.0, "warmup_steps": 7, "cycle_steps": 9, "free_bits": 0.5, "k": 3, "m": 4}
    known = set(changed) & set(objectives.get(name).get_config())
    objective = objectives.get(name, **{key: changed[key] for key in known})
    restored = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(objective))
    assert type(restored) is type(objective)
    assert {key: restored.get_config()[key] for key in known} == {key: changed[key] for key in known}


def test_a_kl_is_drawn_once_for_loss_and_report():
    class Counted(StandardNormal):
        calls = 0

        def log_prob(self, z):
            Counted.calls += 1
            return super().log_prob(z)

    heads = tf.zeros((2, 2)), tf.zeros((2, 2))
    draws = Draws(tf.zeros((1, 2, 2)), tf.zeros((1, 2)), heads, DiagonalGaussian(), Counted())
    objectives.ELBO().terms(draws, decode)
    assert draws.kl_loss.shape == (2,) and Counted.calls == 1


def test_unknown_objective_is_refused_with_the_choices():
    with pytest.raises(ValueError, match=r"elbo.*'elbow'"):
        objectives.get("elbow")
