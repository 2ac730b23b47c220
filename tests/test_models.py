"""Conformance: what Keras users expect of a model, of every case in cases.py."""

import json
import os
import pathlib
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from cases import CASES, all_cases, build, config, images, inputs, labels, over

from keras_vae import networks, noise, priors
from keras_vae.config import Config, InputError
from keras_vae.layers import Sampling
from keras_vae.models import VAE, Autoencoder, HierarchicalVAE, NonFiniteLossError, build_model
from keras_vae.objectives import IWAE

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
BY_NAME = {case.name: case for case in CASES}
SGD = keras.optimizers.SGD


def case_of(name):
    return BY_NAME[name]


def as_list(x):
    return x if isinstance(x, list) else [x]


def is_vae(case):
    return config(case).model.model != "autoencoder"


# One for each way through a step of training.
STEPS = {
    "mlp", "gaussian-learned", "free-bits", "beta-tc", "full-covariance-iwae", "hierarchical-three-layers",
    "conditional-conv",
}  # fmt: skip
# The images of a batch have losses of their own, except where q(z) is estimated from the batch.
independent_cases = over([case for case in CASES if config(case).model.objective != "beta_tc"], quick=STEPS)


def built_and_compiled(case, learning_rate=1e-3, **options):
    """A compiled model whose codes spread: as they start, the KL is too small to show what is done to it."""
    model = build(case)
    for weight in model.encoder.trainable_weights:
        weight.assign(3 * weight)
    model.compile(SGD(learning_rate), **options)
    return model


def evaluate(model, x, *y, **options):
    return model.evaluate(x, *y, verbose=0, return_dict=True, **options)


def same_weights(left, right, atol=0.0):
    for a, b in zip(left, right, strict=True):
        np.testing.assert_allclose(a, b, rtol=atol, atol=atol)


@pytest.fixture
def no_noise(monkeypatch):
    """Layers draw 0 in place of noise: what is left is a function of images and weights."""

    def silence(name, constant):
        draw = getattr(tf.random, name)

        def replacement(shape, seed, dtype="float32", **others):
            # Keras's initializers give a mean or a range, and are left alone
            keras_own = others.keys() - {"alg"}
            return draw(shape=shape, seed=seed, dtype=dtype, **others) if keras_own else constant(shape, dtype)

        monkeypatch.setattr(tf.random, name, replacement)

    silence("stateless_normal", tf.zeros)
    silence("stateless_uniform", tf.ones)


# -- the numbers ------------------------------------------------------------------------------------------------


def log_prob_by_numpy(settings, x, params):
    """log p(x|z), in float64, summed over pixels."""
    if settings.likelihood == "bernoulli":
        p = 1 / (1 + np.exp(-params))
        log_prob = x * np.log(p) + (1 - x) * np.log(1 - p)
    elif settings.likelihood == "continuous_bernoulli":
        log_prob = x * params - np.log(np.expm1(params) / params)
    elif settings.likelihood == "discretized_logistic":
        level, cdf = np.round(255 * x), scipy.stats.logistic(params, 0.1).cdf
        upper = np.where(level == 255, 1, cdf((level + 0.5) / 255))
        log_prob = np.log(upper - np.where(level == 0, 0, cdf((level - 0.5) / 255)))
    else:
        log_prob = scipy.stats.norm(params, settings.scale).logpdf(x)
    return log_prob.reshape(len(x), -1).sum(-1)


def mean_by_numpy(settings, params):
    """The mean of p(x|z), in float64."""
    if settings.likelihood == "bernoulli":
        return 1 / (1 + np.exp(-params))
    if settings.likelihood == "continuous_bernoulli":
        safe = np.where(np.abs(params) < 1e-4, 1e-4, params)  # below, both terms are huge and the mean is 0.5
        return np.where(np.abs(params) < 1e-4, 0.5 + params / 12, -1 / np.expm1(-safe) - 1 / safe)
    if settings.likelihood == "discretized_logistic":
        edges = (np.arange(255) + 0.5) / 255  # a level is the number of edges below it
        return scipy.stats.logistic(params[..., None], 0.1).sf(edges).mean(axis=-1)
    return params


def normal_log_prob(z, mean, log_var):
    return scipy.stats.norm(mean, np.exp(0.5 * log_var)).logpdf(z).sum(-1)


def posterior_by_numpy(posterior, heads):
    """Mean [b, d] and covariance [b, d, d] of q(z|x), in float64, of the lowest layer."""
    mean, spread = (np.asarray(head, "float64") for head in heads)
    if list(posterior.head_shapes((2,))) == ["z_mean", "z_log_var"]:
        return mean, np.exp(spread)[:, :, None] * np.eye(mean.shape[1])
    factor = np.zeros((*mean.shape, mean.shape[1]))
    factor[(slice(None), *np.tril_indices(mean.shape[1]))] = spread
    diagonal = np.arange(mean.shape[1])
    factor[:, diagonal, diagonal] = np.exp(0.5 * factor[:, diagonal, diagonal])
    return mean, factor @ factor.transpose(0, 2, 1)


def many_normals(z, means, covariances):
    rows = zip(z, means, covariances, strict=True)
    return np.array([scipy.stats.multivariate_normal(mean, cov).logpdf(one) for one, mean, cov in rows])


def log_prior_and_kl(posterior, prior, z, mean, covariance):
    """log p(z) and KL(q || p) of each image, in float64, from weights and networks alone; no layer draws noise."""
    log_posterior = many_normals(z, mean, covariance)
    if isinstance(prior, priors.StandardNormal):
        factor = np.linalg.cholesky(covariance)
        log_squares = 2 * np.log(np.diagonal(factor, axis1=1, axis2=2))
        closed = 0.5 * ((factor**2).sum(-1) + mean**2 - 1 - log_squares)  # of each dimension, given those before it
        return normal_log_prob(z, 0.0, 0.0), closed.sum(-1), closed
    if hasattr(prior, "decoder"):
        upper = posterior_by_numpy(posterior.upper, posterior.encoder(z))
        log_upper, kl_upper, groups = log_prior_and_kl(posterior.upper, prior.upper, upper[0], *upper)
        log_conditional = normal_log_prob(z, *(np.asarray(code, "float64") for code in prior.decoder(upper[0])))
        kl = log_posterior - log_conditional
        log_prior = log_conditional + log_upper - many_normals(upper[0], *upper)
        return log_prior, kl + kl_upper, np.concatenate([kl[:, None], groups], axis=1)
    if isinstance(prior, priors.VampPrior):
        means, covariances = posterior_by_numpy(posterior, prior._encode(prior.pseudo_inputs))
        weights = np.full(len(means), 1 / len(means))
    else:
        means, log_vars, logits = (np.asarray(w, "float64") for w in (prior.means, prior.log_vars, prior.logits))
        weights, covariances = np.exp(logits) / np.exp(logits).sum(), [np.diag(np.exp(row)) for row in log_vars]
    parts = zip(weights, means, covariances, strict=True)
    densities = [w * scipy.stats.multivariate_normal(m, c).pdf(z) for w, m, c in parts]
    log_prior = np.log(np.sum(densities, axis=0))
    return log_prior, log_posterior - log_prior, (log_posterior - log_prior)[:, None]


def total_correlation(mean, log_var):
    """log q(z) - sum_j log q(z_j) at the means, q(z) being the mixture of the batch."""
    density = scipy.stats.norm(mean[None], np.exp(0.5 * log_var)[None]).pdf(mean[:, None])  # of draw, image, dimension
    return np.log(density.prod(-1).mean(1)) - np.log(density.mean(1)).sum(-1)


def terms_by_numpy(model, case, x, batch_size=4):
    """Terms of each example's loss without noise, in float64, from the networks' outputs alone."""
    settings = config(case).model
    codes = model.encoder(inputs(case, x))
    z = codes[0] if is_vae(case) else codes
    params = np.asarray(model.decoder(inputs(case, z)), "float64")
    reconstruction = -log_prob_by_numpy(settings, x.astype("float64"), params)
    if not is_vae(case):
        penalty = settings.activity_penalty * np.abs(np.asarray(z)).sum(-1)
        return {"loss": reconstruction + penalty, "reconstruction_loss": reconstruction}
    mean, covariance = posterior_by_numpy(model.posterior, codes)
    log_prior, kl, groups = log_prior_and_kl(model.posterior, model.prior, mean, mean, covariance)
    if settings.objective == "elbo":
        free = np.maximum(groups, settings.free_bits) if settings.free_bits else groups
        loss = reconstruction + settings.beta * free.sum(-1)
    elif settings.objective == "beta_tc":
        batches = [slice(first, first + batch_size) for first in range(0, len(x), batch_size)]
        correlation = np.concatenate(
            [total_correlation(mean[batch], np.asarray(codes[1], "float64")[batch]) for batch in batches]
        )
        loss = reconstruction + kl + (settings.beta - 1) * correlation
    else:  # without noise all draws are alike, and so are their weights
        loss = reconstruction + many_normals(mean, mean, covariance) - log_prior
    return {"loss": loss, "reconstruction_loss": reconstruction, "kl_loss": kl}


@all_cases
def test_evaluate_gives_the_numbers_of_numpy(case, no_noise):
    x, model = images(case, count=7), built_and_compiled(case, run_eagerly=True)
    logs = evaluate(model, x, *labels(case, 7), batch_size=4)  # the last batch is smaller, and weighs less
    expected = {name: value.mean() for name, value in terms_by_numpy(model, case, x).items()}
    assert logs == pytest.approx(expected, rel=1e-5)
    wrong = {name: value / np.prod(case.shape) for name, value in expected.items()}  # mean over pixels
    assert wrong["reconstruction_loss"] != pytest.approx(logs["reconstruction_loss"], rel=0.5)


@pytest.mark.parametrize("name", ["mlp", "gaussian-learned", "conv", "sparse-autoencoder", "warm-up", "beta"])
def test_a_training_step_descends_the_gradient_of_the_mean_loss(name, no_noise):
    case = case_of(name)
    x, model = images(case), built_and_compiled(case, learning_rate=0.01)
    settings = config(case).model
    scale = 1.0 / settings.warmup_steps if settings.warmup_steps else 1.0
    model.step.assign(1)  # so that the warm-up weighs the KL by beta / 4
    with tf.GradientTape() as tape:
        codes = model.encoder(x)
        z = codes[0] if is_vae(case) else codes
        params = model.decoder(z)
        if settings.likelihood == "bernoulli":
            loss = tf.nn.sigmoid_cross_entropy_with_logits(labels=x, logits=params)
        else:
            s = tf.exp(model.likelihood.log_scale.value)
            loss = 0.5 * tf.square((x - params) / s) + tf.math.log(s)
        loss = tf.reduce_sum(loss) / len(x)
        if is_vae(case):
            kl = 0.5 * (tf.exp(codes[1]) + codes[0] ** 2 - 1 - codes[1])
            loss += scale * settings.beta * tf.reduce_sum(kl) / len(x)
        else:
            loss += settings.activity_penalty * tf.reduce_sum(tf.abs(z)) / len(x)
    variables = model.trainable_variables
    gradients = tape.gradient(loss, [variable.value for variable in variables])
    expected = [variable.numpy() - 0.01 * gradient for variable, gradient in zip(variables, gradients, strict=True)]
    model.fit(x, batch_size=len(x), verbose=0)
    same_weights([variable.numpy() for variable in variables], expected, atol=2e-6)
    assert int(model.step) == 2


@pytest.mark.parametrize("name", ["mlp", "conv-colour", "gaussian-learned"])
def test_loss_adds_up_at_beta_one_with_noise(name):
    case = case_of(name)
    model, x = built_and_compiled(case), images(case)
    history = model.fit(x, validation_data=(x,), epochs=2, batch_size=4, verbose=0).history
    for prefix in ("", "val_"):
        total = np.array(history[f"{prefix}reconstruction_loss"]) + history[f"{prefix}kl_loss"]
        np.testing.assert_allclose(history[f"{prefix}loss"], total, rtol=1e-4)
    logs = evaluate(model, x)
    assert logs["loss"] == pytest.approx(logs["reconstruction_loss"] + logs["kl_loss"], rel=1e-4)


def test_beta_weighted_loss_is_not_passed_off_as_the_elbo(no_noise):
    case = case_of("beta")
    model, x = built_and_compiled(case), images(case)
    logs = evaluate(model, x)
    assert logs["kl_loss"] == pytest.approx(terms_by_numpy(model, case, x)["kl_loss"].mean(), rel=1e-5)  # unweighted
    assert logs["loss"] == pytest.approx(logs["reconstruction_loss"] + 4 * logs["kl_loss"], rel=1e-5)
    assert logs["loss"] - (logs["reconstruction_loss"] + logs["kl_loss"]) > 0.1


def test_warm_up_counts_training_steps_and_spares_evaluation(no_noise):
    case = case_of("warm-up")  # beta 2 after 4 steps
    model, x = built_and_compiled(case, learning_rate=0.0), images(case)
    history = model.fit(x, batch_size=len(x), epochs=6, validation_data=(x,), verbose=0).history
    weight = (np.array(history["loss"]) - history["reconstruction_loss"]) / history["kl_loss"]
    np.testing.assert_allclose(weight, [0, 0.5, 1.0, 1.5, 2.0, 2.0], atol=1e-4)
    weight = (np.array(history["val_loss"]) - history["val_reconstruction_loss"]) / history["val_kl_loss"]
    np.testing.assert_allclose(weight, 2.0, rtol=1e-4)
    np.testing.assert_allclose(history["kl_loss"], history["val_kl_loss"], rtol=1e-5)  # reported unweighted


def test_latent_noise_is_fresh_in_training_and_in_evaluation():
    case = case_of("gaussian-narrow")
    model, x = built_and_compiled(case, learning_rate=0.0), images(case)
    history = model.fit(x, batch_size=len(x), epochs=4, verbose=0).history
    assert len(set(history["reconstruction_loss"])) == 4 and np.ptp(history["kl_loss"]) < 1e-6
    assert evaluate(model, x)["reconstruction_loss"] != evaluate(model, x)["reconstruction_loss"]


# -- what goes into fit -----------------------------------------------------------------------------------------


@over(CASES, quick=STEPS)
def test_arrays_and_datasets_with_and_without_labels_train_alike(case):
    x, needed = images(case), labels(case)
    y = needed[0] if needed else np.arange(len(x)) + 1000  # that these are ignored shows in the numbers
    data = (x, *needed) if needed else x
    dataset = tf.data.Dataset.from_tensor_slices
    feeds = (
        lambda model: model.fit(x, *needed, batch_size=4, shuffle=False, verbose=0),
        lambda model: model.fit(dataset(data).batch(4), verbose=0, validation_data=dataset(data).batch(4)),
        lambda model: model.fit(dataset((x, y)).batch(4), verbose=0, validation_data=(x, y), validation_batch_size=4),
    )
    start, results = [weight.numpy() for weight in built_and_compiled(case).trainable_weights], []
    for feed, eagerly in zip(feeds, (False, True, True), strict=True):  # a graph does what Python does
        model = built_and_compiled(case, run_eagerly=eagerly)
        history = feed(model).history
        results.append(([weight.numpy() for weight in model.trainable_weights], history))
    assert any(np.any(a != b) for a, b in zip(start, results[0][0], strict=True))
    assert set(results[0][1]) == set(model.term_names)
    for weights, history in results[1:]:
        same_weights(weights, results[0][0], atol=1e-6)
        for name in model.term_names:
            assert history[name] == pytest.approx(results[0][1][name], rel=1e-5)
            # the same images as an array and as a dataset, in batches of one size and so with the same noise
            assert history[f"val_{name}"] == pytest.approx(results[1][1][f"val_{name}"], rel=1e-5, abs=1e-5)


@independent_cases
def test_weight_two_is_the_example_twice_and_weight_zero_is_its_absence(case, no_noise):
    x, y = images(case, count=4), labels(case, 4)
    weights = np.float32([2, 0, 1, 1])
    twice = [0, 0, 2, 3]
    repeated = [x[twice], *(values[twice] for values in y)]
    by_weight, by_hand = (built_and_compiled(case, 0.01, run_eagerly=case.name != "mlp") for _ in range(2))
    for _ in range(2):
        weighted_logs = by_weight.fit(x, *y, sample_weight=weights, batch_size=4, verbose=0).history
        repeated_logs = by_hand.fit(*repeated, batch_size=4, verbose=0).history
        assert weighted_logs == {name: pytest.approx(value, rel=1e-5) for name, value in repeated_logs.items()}
    same_weights(
        [weight.numpy() for weight in by_weight.trainable_weights],
        [weight.numpy() for weight in by_hand.trainable_weights],
        atol=1e-6,
    )
    by_weight.run_eagerly = by_hand.run_eagerly = True
    expected = evaluate(by_hand, *repeated)
    assert evaluate(by_weight, x, *y, sample_weight=weights) == pytest.approx(expected, rel=1e-4)
    assert abs(evaluate(by_weight, x, *y)["reconstruction_loss"] - expected["reconstruction_loss"]) > 1e-3


def test_a_batch_of_weight_zero_moves_nothing():
    case = case_of("mlp")
    model, x = built_and_compiled(case, 0.1), images(case)
    before = [weight.numpy() for weight in model.trainable_weights]
    model.fit(x, sample_weight=np.zeros(len(x), "float32"), verbose=0)
    same_weights([weight.numpy() for weight in model.trainable_weights], before)


def test_weights_in_a_dataset_count_too(no_noise):
    case = case_of("mlp")
    x, weights = images(case, count=4), np.float32([2, 0, 1, 1])
    dataset = tf.data.Dataset.from_tensor_slices((x, np.zeros(4), weights)).batch(4)
    model = built_and_compiled(case)
    assert evaluate(model, dataset) == pytest.approx(evaluate(model, x[[0, 0, 2, 3]]), rel=1e-5)


def test_callbacks_see_the_names_of_the_terms():
    case = case_of("mlp")
    model, x = built_and_compiled(case, learning_rate=0.0), images(case)
    seen = []
    watch = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(sorted(logs)))
    stop = keras.callbacks.EarlyStopping("val_kl_loss", mode="min", patience=1)
    history = model.fit(x, batch_size=4, epochs=9, validation_data=(x,), callbacks=[watch, stop], verbose=0)
    assert len(history.epoch) == 2  # learning rate 0: the KL does not improve
    assert seen == [["kl_loss", "loss", "reconstruction_loss"]] * 4


def test_metrics_given_to_compile_compare_reconstructions_with_images(no_noise):
    case = case_of("mlp")
    model, x = build(case), images(case)
    model.compile(SGD(0.0), metrics=[keras.metrics.MeanSquaredError(name="mse")])
    expected = np.mean((x - np.asarray(model.reconstruct(x))) ** 2)
    assert model.fit(x, verbose=0).history["mse"][0] == pytest.approx(expected, rel=1e-5)
    labels = np.arange(len(x))
    assert model.evaluate(x, labels, verbose=0, return_dict=True)["mse"] == pytest.approx(expected, rel=1e-5)


def test_several_steps_per_execution_train_alike():
    case = case_of("mlp")
    results = []
    for steps in (1, 2):
        model = built_and_compiled(case, steps_per_execution=steps)
        model.fit(images(case), batch_size=2, shuffle=False, verbose=0)
        results.append([weight.numpy() for weight in model.weights])
    same_weights(*results, atol=1e-7)


@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.optimizers.AdamW(1e-2),
        lambda: SGD(3e-2, momentum=0.9, use_ema=True),
        lambda: keras.optimizers.RMSprop(1e-2),
    ],
)
def test_any_optimizer_lowers_the_loss(make):
    case = case_of("mlp")
    model, x = build(case), images(case)
    model.compile(make())
    history = model.fit(x, epochs=15, verbose=0).history["loss"]
    assert history[-1] < history[0] - 1  # the noise of a loss is far below that


def test_loss_of_the_users_own_networks_is_descended_once():
    """Regularisers and activity regularisers, beside evaluation, which must not add to them."""
    shape = (8, 8, 1)
    weights = {}
    for penalised in (False, True):
        keras.utils.set_random_seed(0)
        image = keras.Input(shape)
        flat = keras.layers.Flatten()(image)
        options = {"kernel_regularizer": keras.regularizers.L2(0.5)} if penalised else {}
        encoder = keras.Model(image, [keras.layers.Dense(2, **options)(flat), keras.layers.Dense(2)(flat)])
        vae = VAE(encoder, networks.build("linear", shape, 2)[1], seed=1)
        vae.compile(SGD(0.01))
        kernel = encoder.weights[0]
        before = kernel.numpy()
        x = images(case_of("mlp"))
        history = vae.fit(x, validation_data=(x,), batch_size=8, verbose=0).history
        weights[penalised] = kernel.numpy() - before
        penalty = 0.5 * np.square(before).sum() if penalised else 0.0
        terms = history["reconstruction_loss"][0] + history["kl_loss"][0]
        assert history["loss"][0] == pytest.approx(terms + penalty, rel=1e-5)
    np.testing.assert_allclose(weights[True] - weights[False], -0.01 * before, atol=1e-6)  # d/dw 0.5 w^2 = w


# -- what comes out ---------------------------------------------------------------------------------------------


@all_cases
def test_predict_is_reconstruct_without_noise_or_corruption(case):
    model, x, y = build(case), images(case, count=5), labels(case, 5)
    expected = model.reconstruct(x, *y)
    codes = model.encode(x, *y)
    z = codes[0] if is_vae(case) else codes
    np.testing.assert_allclose(model.predict(inputs(case, x), batch_size=2, verbose=0), expected, atol=1e-6)
    np.testing.assert_array_equal(model.reconstruct(x, *y), expected)
    np.testing.assert_array_equal(model.decode(z, *y), expected)
    params = np.asarray(model.decoder(inputs(case, z)), "float64")
    np.testing.assert_allclose(expected, mean_by_numpy(config(case).model, params), atol=1e-5)
    assert model.latent_dim == config(case).model.latent_dim


@over(
    [case for case in CASES if is_vae(case)],
    quick={"mlp", "gaussian-mixture", "full-covariance-iwae", "hierarchical-three-layers", "conditional-conv"},
)
def test_generate_decodes_draws_from_the_prior_by_seed(case):
    model, y = build(case), labels(case, 6)
    y = y[0] if y else None
    generated = np.asarray(model.generate(6, 3, y))
    assert generated.shape == (6, *case.shape)
    if model.likelihood.mean_range is not None:
        assert generated.min() >= 0 and generated.max() <= 1
    np.testing.assert_array_equal(generated, model.generate(6, seed=3, condition=y))
    if case.name in ("mlp", "iwae"):
        np.testing.assert_array_equal(generated, model.decode(noise.get(3)((1, 6, 3), "prior")[0]))
    np.testing.assert_array_equal(generated, model.decode(model.lowest(model.prior.sample(6, 3)), y))
    assert np.any(generated != model.generate(6, 4, y)) and np.any(generated != model.generate(6, condition=y))
    assert np.any(np.asarray(model.generate(6, condition=y)) != model.generate(6, condition=y))


def test_interpolate_starts_at_one_image_and_ends_at_the_other():
    case = case_of("mlp-colour-not-square")
    model = build(case)
    start, end = images(case, 3), images(case, 3, seed=1)
    path = np.asarray(model.interpolate(start, end, steps=5))
    assert path.shape == (3, 5, *case.shape)
    np.testing.assert_allclose(path[:, 0], model.reconstruct(start), atol=1e-6)
    np.testing.assert_allclose(path[:, -1], model.reconstruct(end), atol=1e-6)
    middle = 0.5 * (np.asarray(model.encode(start)[0]) + model.encode(end)[0])
    np.testing.assert_allclose(path[:, 2], model.decode(middle), atol=1e-6)
    with pytest.raises(ValueError, match="`steps`"):
        model.interpolate(start, end, steps=1)


def test_denoiser_sees_damage_in_training_and_is_scored_on_clean_images():
    case = case_of("denoising-gaussian")
    model, x = build(case), images(case)
    damaged = np.asarray(model.corrupt(x))
    assert np.mean(damaged != x) > 0.9
    terms = model.loss_terms(x, training=True)
    model.corruption.seed_generator.state.assign(build(case).corruption.seed_generator.state)
    z = model.encoder(model.corrupt(x))
    model.corruption.seed_generator.state.assign(build(case).corruption.seed_generator.state)
    expected = -model.likelihood.log_prob(x, model.decoder(z))
    np.testing.assert_allclose(model.loss_terms(x, training=True)["loss"], expected, rtol=1e-5)
    assert np.any(np.abs(terms["loss"] - expected) > 1e-3)  # other damage at another call


# -- saving -----------------------------------------------------------------------------------------------------

FRESH_PROCESS = """
import json, pathlib, sys
import numpy as np
import keras_vae
import keras
folder, logs = pathlib.Path(sys.argv[1]), {}
for path in sorted(folder.glob("*.keras")):
    model = keras.saving.load_model(path)
    x, y = np.load(path.with_suffix(".npy")), [np.load(file) for file in folder.glob(f"{path.stem}.labels.npy")]
    model.run_eagerly = True  # quicker than a graph for one batch
    np.save(path.with_suffix(".predicted.npy"), model.predict([x, *y] if y else x, verbose=0))
    logs[path.stem] = model.evaluate(x, *y, verbose=0, return_dict=True)
    logs[path.stem]["optimizer"] = type(model.optimizer).__name__
model.fit(x, verbose=0)  # it is compiled
(folder / "logs.json").write_text(json.dumps(logs))
"""


def environment():
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), "TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "-1"}


def run_python(script, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.fixture(scope="module")
def fresh_process(request, tmp_path_factory):
    """The cases of this session trained two steps and saved here, loaded and run in one process without the tests."""
    folder = tmp_path_factory.mktemp("saved")
    test = test_saved_model_is_the_same_in_a_fresh_process
    for case in [item.callspec.params["case"] for item in request.session.items if item.function is test]:
        model, x, y = built_and_compiled(case, run_eagerly=True), images(case), labels(case)
        untrained = np.asarray(model.reconstruct(x, *y))
        model.fit(x, *y, batch_size=4, verbose=0)
        model.save(folder / f"{case.name}.keras")
        np.save(folder / f"{case.name}.npy", x)
        for values in y:
            np.save(folder / f"{case.name}.labels.npy", values)
        trained = np.asarray(model.reconstruct(x, *y))
        assert np.any(np.abs(untrained - trained) > 1e-5)
        np.save(folder / f"{case.name}.trained.npy", trained)
    run_python(FRESH_PROCESS, folder)
    return folder, json.loads((folder / "logs.json").read_text())


@over(CASES, quick=STEPS | {"warm-up"})
def test_saved_model_is_the_same_in_a_fresh_process(case, fresh_process):
    folder, logs = fresh_process
    x, y = images(case), labels(case)
    trained, predicted = (np.load(folder / f"{case.name}.{name}.npy") for name in ("trained", "predicted"))
    np.testing.assert_allclose(predicted, trained, atol=1e-6)
    here = keras.saving.load_model(folder / f"{case.name}.keras")
    here.run_eagerly = True
    np.testing.assert_allclose(here.reconstruct(x, *y), trained, atol=1e-6)
    there = dict(logs[case.name])
    assert there.pop("optimizer") == type(here.optimizer).__name__ == "SGD"
    assert evaluate(here, x, *y) == pytest.approx(there, rel=1e-5)  # noise included: the seed was saved
    assert int(here.step) == 2  # a warm-up goes on where it was


def without_ids(settings):
    """A config as JSON, without the numbers by which Keras knows that two objects were one."""
    return json.loads(re.sub(r'"shared_object_id": \d+', '"shared_object_id": 0', json.dumps(settings)))


@all_cases
def test_from_config_of_get_config_is_the_same_model(case):
    model, x = build(case), inputs(case, images(case))
    copy = type(model).from_config(json.loads(json.dumps(model.get_config())))
    assert without_ids(copy.get_config()) == without_ids(model.get_config())
    copy.set_weights(model.get_weights())
    np.testing.assert_array_equal(copy.reconstruct(*as_list(x)), model.reconstruct(*as_list(x)))
    np.testing.assert_allclose(copy.loss_terms(*as_list(x))["loss"], model.loss_terms(*as_list(x))["loss"], rtol=1e-6)


@pytest.mark.parametrize("name", ["mlp", "denoising-masking", "gaussian-learned"])
def test_weights_alone_can_be_saved_and_loaded(name, tmp_path):
    case = case_of(name)
    model, other, x = build(case), build(case, seed=2), images(case)
    assert np.any(np.asarray(model.reconstruct(x)) != other.reconstruct(x))
    model.save_weights(tmp_path / "model.weights.h5")
    other.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(model.reconstruct(x), other.reconstruct(x))


# -- mixed precision --------------------------------------------------------------------------------------------


POLICIES = ("mixed_bfloat16", "mixed_float16")


def policies():
    """Every case with every policy; by default the policies take turns over the cases."""
    for case in CASES:
        for turn, policy in enumerate(POLICIES):
            default = case.name in STEPS and turn == sorted(STEPS).index(case.name) % 2
            yield pytest.param(policy, case, marks=() if default else pytest.mark.slow, id=f"{case}-{policy}")


@pytest.mark.parametrize("policy, case", policies())
def test_mixed_precision_keeps_the_terms_of_the_loss_in_float32(policy, case, no_noise):
    x, y, reference = images(case), labels(case), build(case)
    keras.config.set_dtype_policy(policy)
    model = built_and_compiled(case, run_eagerly=case.name != "conv")
    model.set_weights(reference.get_weights())
    history = model.fit(x, *y, batch_size=len(x), verbose=0).history
    x = inputs(case, x)
    expected = reference.loss_terms(*as_list(x), training=True)
    for name, values in model.loss_terms(*as_list(x), training=False).items():
        assert values.dtype == "float32"
        assert history[name][0] == pytest.approx(float(np.mean(expected[name])), rel=0.02, abs=0.02)
    assert all(variable.dtype == "float32" for metric in model.metrics for variable in metric.variables)
    assert model.encoder.compute_dtype == policy.removeprefix("mixed_")
    assert model.reconstruct(*as_list(x)).dtype == "float32"
    if is_vae(case) and isinstance(model.prior, priors.StandardNormal):
        mean, covariance = posterior_by_numpy(model.posterior, model.encode(*as_list(x)))
        _, kl, _ = log_prior_and_kl(model.posterior, model.prior, mean, mean, covariance)
        np.testing.assert_allclose(model.loss_terms(*as_list(x))["kl_loss"], kl, rtol=1e-5, atol=1e-6)


# -- networks of the user's own ---------------------------------------------------------------------------------

SHAPE = (8, 8, 1)


@keras.saving.register_keras_serializable(package="test_models")
class OwnEncoder(keras.Model):
    def __init__(self, heads=2, units=2, **kwargs):
        super().__init__(**kwargs)
        self.flatten = keras.layers.Flatten()
        self.outs = [keras.layers.Dense(units) for _ in range(heads)]

    def call(self, x):
        return tuple(layer(self.flatten(x)) for layer in self.outs)

    def get_config(self):
        return {"heads": len(self.outs), "units": self.outs[0].units}


def functional_encoder(units=2, heads=2, shape=SHAPE):
    image = keras.Input(shape)
    flat = keras.layers.Flatten()(image)
    return keras.Model(image, [keras.layers.Dense(units)(flat) for _ in range(heads)])


def sequential_decoder(shape=SHAPE, with_input=False):
    first = [keras.Input((2,))] if with_input else []
    return keras.Sequential([*first, keras.layers.Dense(int(np.prod(shape))), keras.layers.Reshape(shape)])


def called(model, x):
    model(x)
    return model


OWN_NETWORKS = {
    "functional and Sequential": lambda: (functional_encoder(), sequential_decoder(with_input=True)),
    "functional and lazy Sequential": lambda: (functional_encoder(), sequential_decoder()),
    "subclassed and lazy Sequential": lambda: (OwnEncoder(), sequential_decoder()),
    "subclassed, called before": lambda: (called(OwnEncoder(), np.zeros((1, *SHAPE))), sequential_decoder()),
}


@pytest.mark.parametrize("make", OWN_NETWORKS.values(), ids=OWN_NETWORKS)
def test_own_networks_train_save_and_generate(make, tmp_path):
    keras.utils.set_random_seed(0)
    vae, x = VAE(*make(), seed=1), images(case_of("mlp"))
    vae.compile(SGD(0.01))
    history = vae.fit(x, batch_size=4, epochs=8, verbose=0).history["loss"]
    assert history[-1] < history[0] - 0.3
    assert vae.generate(3, seed=1).shape == (3, *SHAPE)
    vae.save(tmp_path / "own.keras")
    loaded = keras.saving.load_model(tmp_path / "own.keras")
    np.testing.assert_allclose(loaded.reconstruct(x), vae.reconstruct(x), atol=1e-6)
    np.testing.assert_allclose(evaluate(loaded, x)["kl_loss"], evaluate(vae, x)["kl_loss"], rtol=1e-5)


def test_own_lazy_sequential_encoder_of_an_autoencoder():
    keras.utils.set_random_seed(0)
    encoder = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(2)])
    model, x = Autoencoder(encoder, sequential_decoder()), images(case_of("mlp"))
    model.compile(SGD(0.02))
    history = model.fit(x, batch_size=4, epochs=8, verbose=0).history["loss"]
    assert history[-1] < history[0] - 0.3
    assert model.latent_dim == 2


def test_names_and_objects_on_an_axis_mean_the_same(no_noise):
    from keras_vae.likelihoods import Gaussian
    from keras_vae.objectives import ELBO

    x, losses = images(case_of("mlp")), []
    for options in ({"beta": 3.0, "likelihood": "gaussian"}, {"objective": ELBO(beta=3.0), "likelihood": Gaussian()}):
        keras.utils.set_random_seed(0)
        vae = VAE(*networks.build("linear", SHAPE, 2), **options)
        losses.append(vae.loss_terms(x, training=False)["loss"])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-6)


WRONG_NETWORKS = {
    "one head": (lambda: (functional_encoder(heads=1), sequential_decoder(with_input=True)), "`encoder`"),
    "three heads": (lambda: (functional_encoder(heads=3), sequential_decoder(with_input=True)), "`encoder`"),
    "one head, subclassed": (lambda: (OwnEncoder(heads=1), sequential_decoder()), "`encoder`"),
    "code is a map": (
        lambda: (keras.Model(image := keras.Input(SHAPE), [image, image]), sequential_decoder(with_input=True)),
        "`encoder`",
    ),
    "flat decoder": (
        lambda: (functional_encoder(), keras.Sequential([keras.Input((2,)), keras.layers.Dense(64)])),
        "`decoder`",
    ),
    "flat decoder, lazy": (lambda: (functional_encoder(), keras.Sequential([keras.layers.Dense(64)])), "`decoder`"),
    "too many channels": (lambda: (functional_encoder(), sequential_decoder((8, 8, 2), with_input=True)), "`decoder`"),
    "decoder of another latent size": (
        lambda: (functional_encoder(units=5), sequential_decoder(with_input=True)),
        "`decoder`",
    ),
}


@pytest.mark.parametrize("make, named", WRONG_NETWORKS.values(), ids=WRONG_NETWORKS)
def test_wrong_network_is_refused_by_argument(make, named):
    with pytest.raises((InputError, ValueError), match=named):
        vae = VAE(*make())
        vae.compile()
        vae.fit(images(case_of("mlp")), verbose=0)


# -- bad input --------------------------------------------------------------------------------------------------


def spoiled(value):
    x = images(case_of("mlp"))
    x[3, 2, 1, 0] = value
    return x


BAD_IMAGES = {
    "NaN": lambda: spoiled(np.nan),
    "infinite": lambda: spoiled(np.inf),
    "negative": lambda: spoiled(-0.1),
    "over 1": lambda: spoiled(1.1),
    "8-bit": lambda: (255 * images(case_of("mlp"))).astype("uint8"),
    "flat": lambda: images(case_of("mlp")).reshape(8, 64),
    "without channel": lambda: images(case_of("mlp"))[..., 0],
    "other size": lambda: np.zeros((8, 9, 8, 1), "float32"),
    "dataset of another size": lambda: tf.data.Dataset.from_tensor_slices(np.zeros((8, 9, 8, 1), "float32")).batch(4),
}


@pytest.mark.parametrize("make", BAD_IMAGES.values(), ids=BAD_IMAGES)
def test_bad_images_are_refused_before_training(make):
    model = built_and_compiled(case_of("mlp"))
    before = model.get_weights()
    with pytest.raises(InputError, match=r"Values must be|wrong shape"):
        model.fit(make(), verbose=0)
    with pytest.raises(InputError, match=r"Values must be|wrong shape"):
        model.evaluate(make(), verbose=0)
    same_weights(model.get_weights(), before)


def test_a_loss_given_to_compile_is_refused():
    with pytest.raises(ValueError, match="brings its own loss"):
        build(case_of("mlp")).compile("adam", loss="mse")


def test_preset_of_another_class_is_refused():
    with pytest.raises(InputError, match=r"Autoencoder\.from_preset"):
        VAE.from_preset("pca")
    with pytest.raises(InputError, match="'mpl'"):
        VAE.from_preset("mpl")


@pytest.mark.parametrize("options, named", [({"beta": -1.0}, "`beta`"), ({"likelihood": "poisson"}, "'poisson'")])
def test_bad_arguments_are_refused_by_name(options, named):
    with pytest.raises(ValueError, match=named):
        VAE(*networks.build("linear", SHAPE, 2), **options)


def test_negative_activity_penalty_is_refused():
    with pytest.raises(ValueError, match="`activity_penalty`"):
        Autoencoder(*networks.build("linear", SHAPE, 2, heads={"z": (2,)}), activity_penalty=-1.0)


# -- losses that are not finite ---------------------------------------------------------------------------------


def everything(model):
    return [variable.numpy() for variable in (*model.weights, *model.optimizer.variables)]


@pytest.mark.parametrize(
    "make, steps_per_execution", [(lambda: SGD(1e-3, momentum=0.9), 2), (lambda: keras.optimizers.Adam(1e-3), 1)]
)
def test_nan_stops_training_at_its_step_with_the_weights_before(make, steps_per_execution):
    x = images(case_of("mlp"), count=12)
    weight = np.ones(12, "float32")
    weight[8:] = np.nan  # of the third batch
    spoilt = tf.data.Dataset.from_tensor_slices((x, x, weight)).batch(4)
    model, reference = build(case_of("mlp")), build(case_of("mlp"))
    model.compile(make(), steps_per_execution=steps_per_execution)
    reference.compile(make())
    reference.fit(tf.data.Dataset.from_tensor_slices(x[:8]).batch(4), verbose=0)
    with pytest.raises(NonFiniteLossError, match="at step 3"):
        model.fit(spoilt, verbose=0)
    same_weights(everything(model), everything(reference))
    model.fit(x, verbose=0)  # and it can go on
    assert int(model.step) == 3


def test_infinite_gradient_of_a_finite_loss_stops_training():
    model, x = build(case_of("gaussian")), images(case_of("gaussian"))
    model.compile(SGD(1e30))
    with pytest.raises(NonFiniteLossError, match="lower learning rate"):
        model.fit(x, batch_size=2, epochs=3, verbose=0)
    assert all(np.all(np.isfinite(weight)) for weight in model.get_weights())


def test_nan_stops_training_in_mixed_float16_too():
    keras.config.set_dtype_policy("mixed_float16")
    model = built_and_compiled(case_of("mlp"))
    before = [weight.numpy() for weight in model.trainable_weights]
    x, weight = images(case_of("mlp"), count=8), np.full(8, np.nan, "float32")
    spoilt = tf.data.Dataset.from_tensor_slices((x, x, weight)).batch(4)
    with pytest.raises(NonFiniteLossError):
        model.fit(spoilt, verbose=0)
    same_weights([weight.numpy() for weight in model.trainable_weights], before)


def test_other_errors_in_fit_keep_their_own_message():
    model = built_and_compiled(case_of("mlp"))

    def fail(x):
        tf.debugging.Assert(False, ["the user's own check"])
        return x

    dataset = tf.data.Dataset.from_tensor_slices(images(case_of("mlp"))).batch(4).map(fail)
    with pytest.raises(tf.errors.InvalidArgumentError, match="own check"):
        model.fit(dataset, verbose=0)


# -- what is left of the axes --------------------------------------------------------------------------------------


def test_sampling_is_the_only_noise_of_a_vae():
    """A VAE in evaluation without its Sampling layer's noise is a function: nothing else draws."""
    case = case_of("conv")
    model, x = build(case), images(case)
    seeds = [layer for layer in model._flatten_layers() if isinstance(layer, Sampling)]
    assert len(seeds) == 1
    state = model.sampling.seed_generator.state
    start = state.numpy()
    first = model.loss_terms(x, training=True)["loss"].numpy()
    assert np.any(first != model.loss_terms(x, training=True)["loss"].numpy())
    state.assign(start)
    np.testing.assert_array_equal(first, model.loss_terms(x, training=True)["loss"])


@pytest.mark.parametrize(
    "values, named",
    [
        ({"objective": "iwae", "beta": 2.0}, "iwae has no beta"),
        ({"objective": "beta_tc", "free_bits": 1.0}, "beta_tc has no free_bits"),
        ({"importance_samples": 7}, "it goes with dreg, iwae, miwae|it goes with iwae, dreg, miwae"),
        ({"model": "hierarchical_vae"}, "upper_latent_dims"),
        ({"upper_latent_dims": (2,)}, "hierarchical_vae"),
    ],
)
def test_options_that_do_not_go_together_are_refused_rather_than_ignored(values, named):
    with pytest.raises(InputError, match=named):
        build_model(Config().replace(**values).model, (8, 8, 1))


def test_layers_of_a_hierarchical_model_draw_noise_of_their_own():
    model = build(case_of("hierarchical-three-layers"))
    for weight in [weight for network in (model.posterior, model.prior) for weight in network.trainable_weights]:
        weight.assign(tf.zeros_like(weight))  # all layers are standard normals
    z = model.sampling.draw((tf.zeros((2000, 3)),) * 2).z[0]
    assert z.shape == (2000, 3 + 3 + 2)
    for drawn in (z, model.prior.sample(2000, 1)[:, :6]):
        assert np.abs(np.corrcoef(np.asarray(drawn).T) - np.eye(drawn.shape[1])).max() < 0.12


def test_importance_weights_of_two_layers_find_the_exact_likelihood():
    """All Gaussian and linear, so that p(x) is; q is as wide as the prior, whatever the image."""
    rng, shape = np.random.default_rng(0), (2, 2, 1)
    lower, upper = networks.build("linear", shape, 2), networks.build_latent(2, 1)
    model = HierarchicalVAE([lower[0], upper[0]], [lower[1], upper[1]], "gaussian", objective=IWAE(20_000), seed=1)
    for weight in model.encoder.weights + model.posterior.encoder.weights:
        weight.assign(tf.zeros_like(weight))
    for weight in model.decoder.weights + model.prior.decoder.weights:
        weight.assign(0.5 * rng.normal(size=weight.shape))
    log_var = model.prior.decoder.get_layer("log_var")
    log_var.kernel.assign(tf.zeros_like(log_var.kernel))
    mean = model.prior.decoder.get_layer("mean")
    w2, b2 = mean.kernel.numpy(), mean.bias.numpy()
    w1, b1 = (weight.numpy() for weight in model.decoder.weights)
    z1_covariance = w2.T @ w2 + np.diag(np.exp(log_var.bias.numpy()))
    exact = scipy.stats.multivariate_normal(b2 @ w1 + b1, w1.T @ z1_covariance @ w1 + np.eye(4))
    x = rng.uniform(size=(5, *shape)).astype("float32")
    bound = -np.asarray(model.loss_terms(x, training=False)["loss"])
    np.testing.assert_allclose(bound, exact.logpdf(x.reshape(5, 4)), atol=0.05)
    elbo = -sum(np.asarray(model.loss_terms(x, training=False)[name]) for name in ("reconstruction_loss", "kl_loss"))
    assert np.all(elbo < bound - 0.1)


def test_networks_of_an_upper_layer_that_do_not_fit_are_refused_by_argument():
    lower, upper = networks.build("linear", SHAPE, 3), networks.build_latent(4, 2)
    with pytest.raises(InputError, match="`encoders`"):
        HierarchicalVAE([lower[0], upper[0]], [lower[1], upper[1]])
    with pytest.raises(InputError, match="1 and 2"):
        HierarchicalVAE([lower[0]], [lower[1], upper[1]])


def test_the_same_seed_trains_the_same_model():
    case = case_of("mlp")
    results = []
    for seed in (1, 1, 2):
        keras.utils.set_random_seed(seed)
        model = build_model(config(case).model, case.shape, seed=seed)
        model.compile("adam")
        model.fit(images(case), batch_size=4, epochs=2, verbose=0)
        results.append([weight.numpy() for weight in model.trainable_weights])
    same_weights(results[0], results[1])
    assert any(np.any(a != b) for a, b in zip(results[0], results[2], strict=True))


def test_beta_beside_an_objective_is_refused_rather_than_ignored():
    from keras_vae.objectives import ELBO

    encoder, decoder = build(CASES[1]).encoder, build(CASES[1]).decoder
    for objective in (ELBO(), "iwae"):
        with pytest.raises(InputError, match="beta"):
            VAE(encoder, decoder, objective=objective, beta=4.0)


def test_parameters_beside_a_name_reach_what_is_named():
    encoder, decoder = networks.build("linear", (8, 8, 1), 2)
    vae = VAE(
        encoder,
        decoder,
        likelihood={"name": "gaussian", "scale": 0.5},
        prior={"name": "gaussian_mixture", "num_components": 4},
        objective={"name": "miwae", "m": 2, "k": 3},
    )
    assert vae.likelihood.get_config()["scale"] == 0.5 and vae.prior.num_components == 4
    assert (vae.objective.m, vae.objective.k) == (2, 3)
    for nameless in ({"k": 3}, ["iwae"]):
        with pytest.raises(InputError, match="Expected one of: elbo, iwae"):
            VAE(encoder, decoder, objective=nameless)


def test_bad_validation_images_are_refused_before_training_starts():
    case = CASES[1]
    vae = build(case)
    vae.compile("sgd")
    with pytest.raises(InputError, match=r"\[0, 1\]"):
        vae.fit(images(case), validation_data=(images(case) * 255,), verbose=0)
    assert int(vae.step) == 0


def test_generate_of_a_model_that_is_not_built_says_what_to_do():
    lazy = VAE(keras.Sequential([keras.layers.Flatten()]), keras.Sequential([keras.layers.Dense(4)]))
    with pytest.raises(InputError, match="not built"):
        lazy.generate(1)
