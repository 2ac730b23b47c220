"""Evaluation against exact answers: a linear-Gaussian model, planted latents, and numpy."""

import hashlib
import math

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from keras_vae import evaluation, gaussian, priors
from keras_vae.callbacks import LatentStatistics
from keras_vae.config import InputError, ModelConfig
from keras_vae.evaluation import marginal
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

    def estimate(self, num_samples, **options):
        return self.results(num_samples, **options)["log_marginal"]

    def results(self, num_samples, propose=None, **options):
        projection = tf.constant(np.linalg.lstsq(self.x, self.posterior_mean, rcond=None)[0].astype("float32"))

        def encode(x):
            z_mean = x @ projection + 0.05
            return z_mean, tf.zeros_like(z_mean) + np.log(2 * self.posterior_var)

        def log_likelihood(x, z):
            mean = tf.einsum("sbd,pd->sbp", z, self.w)
            return gaussian.log_prob(x=x, mean=mean, log_var=tf.fill((PIXELS,), float(np.log(SCALE**2))))

        def log_prior(z):
            return gaussian.log_prob(x=z, mean=tf.zeros_like(z), log_var=tf.zeros_like(z))

        propose = propose or marginal.posterior_proposal(encode, log_prior)
        return marginal.estimate(
            self.x, propose=propose, log_likelihood=log_likelihood, num_samples=num_samples, **options
        )


def test_importance_sampling_finds_the_exact_likelihood():
    planted = Planted()
    np.testing.assert_allclose(planted.estimate(20_000, chunk=1000), planted.exact, atol=0.06)


def test_the_mean_over_seeds_is_within_its_standard_error_of_the_exact_likelihood():
    planted = Planted()
    means = np.array([planted.estimate(2000, seed=seed).mean() for seed in range(8)])
    assert abs(means.mean() - planted.exact.mean()) < 3 * means.std(ddof=1) / np.sqrt(8) + 2e-3
    assert means.std(ddof=1) < 0.02


def test_the_bound_rises_with_the_samples_and_stays_below_the_truth():
    planted = Planted()
    results = planted.results(1000)
    bounds = results["bound"].mean(axis=0)
    assert bounds[0] + 0.1 < bounds[1] < bounds[2] < bounds[3] < planted.exact.mean() + 0.02
    np.testing.assert_array_equal(results["bound"][:, 3], results["log_marginal"])


def test_bounds_are_means_over_disjoint_groups_of_the_samples():
    log_weights = np.random.default_rng(0).normal(size=(25, 3)).astype("float32")
    bound = marginal.summarise(log_weights)["bound"]
    groups = np.log(np.exp(log_weights[:20].astype("float64")).reshape(2, 10, 3).mean(axis=1))
    np.testing.assert_allclose(bound[:, 0], log_weights.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(bound[:, 1], groups.mean(axis=0), rtol=1e-5)


def test_effective_samples_of_planted_weights():
    weights = np.array([[1, 1, 1], [1, 0, 0.5], [1, 0, 0], [1, 0, 0]])
    with np.errstate(divide="ignore"):
        found = marginal.summarise((np.log(weights) - 900).astype("float32"))
    np.testing.assert_allclose(found["effective_samples"], [4, 1, 1.5**2 / 1.25], rtol=1e-4)
    np.testing.assert_allclose(found["log_marginal"], np.log(weights.mean(axis=0)) - 900, rtol=1e-6)


def test_prior_samples_find_the_same_likelihood_with_less_to_show_for_them():
    planted = Planted()
    results = planted.results(20_000, propose=marginal.prior_proposal(lambda n, noise: noise((1, n, 2), "prior")[0]))
    assert results["log_marginal"].mean() == pytest.approx(planted.exact.mean(), abs=0.2)
    assert results["effective_samples"].mean() < 0.2 * planted.results(20_000)["effective_samples"].mean()


def test_a_stopped_estimate_goes_on_to_the_same_bits():
    planted = Planted()
    whole, parts = planted.results(20, batch_size=15), []

    class Stop(Exception):
        pass

    def stop(results):
        parts.append(results)
        raise Stop

    with pytest.raises(Stop):
        planted.results(20, batch_size=15, on_batch=stop)
    assert len(parts[0]["log_marginal"]) == 15
    continued = planted.results(20, batch_size=15, done=parts[0])
    for name, values in whole.items():
        np.testing.assert_array_equal(continued[name], values)


def test_chunks_that_are_drawn_at_once_share_no_state():
    prior = priors.GaussianMixture(3)
    prior.build((None, LATENT))
    draw = marginal.prior_proposal(prior.sample)(tf.zeros((5, PIXELS)))
    graph = tf.function(lambda seed: draw(10, seed)).get_concrete_function(tf.TensorSpec([2], "int32")).graph
    assert not [operation.name for operation in graph.get_operations() if "Assign" in operation.type]


def test_memory_does_not_grow_with_the_samples():
    """The decoder never sees more than one chunk of rows, whatever the samples."""
    rows = []

    def log_likelihood(x, z):
        rows.append(z.shape[0] * x.shape[0])
        return tf.zeros(tf.shape(z)[:-1])

    for num_samples in (10, 100_000):
        marginal.estimate(
            np.zeros((30, 2), "float32"),
            propose=marginal.posterior_proposal(
                lambda x: (tf.zeros((x.shape[0], 1)),) * 2, lambda z: tf.zeros(tf.shape(z)[:-1])
            ),
            log_likelihood=log_likelihood,
            num_samples=num_samples,
        )
    assert max(rows) <= marginal.ROWS


@pytest.mark.parametrize("num_samples", [1, 7, 50, 53])
def test_a_last_chunk_that_is_not_full_is_weighed_right(num_samples):
    results = marginal.estimate(
        np.zeros((3, 2), "float32"),
        propose=marginal.posterior_proposal(
            lambda x: (tf.zeros((x.shape[0], 1)),) * 2,
            lambda z: gaussian.log_prob(x=z, mean=0.0, log_var=tf.zeros_like(z)),
        ),
        log_likelihood=lambda x, z: tf.fill(tf.shape(z)[:-1], -500.0),
        num_samples=num_samples,
        chunk=10,
    )
    np.testing.assert_allclose(results["log_marginal"], -500.0, rtol=1e-6)
    np.testing.assert_allclose(results["effective_samples"], num_samples, rtol=1e-3)


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
    z_mean = np.linspace(-1, 1, 50)[:, None] * [1.0, 0.0, 0.1, 0.2] + [0.0, 3.0, 0.0, 0.0]
    assert evaluation.active_units(z_mean).tolist() == [True, False, False, True]  # variances 0.35, 0, 0.0035, 0.014


def test_an_aggregate_posterior_that_is_the_prior_has_nothing_to_report():
    rng = np.random.default_rng(0)
    prior = rng.normal(size=(50_000, 3))
    checks = evaluation.aggregate_posterior(
        0.8 * rng.normal(size=(50_000, 3)), np.full((50_000, 3), np.log(0.36)), prior
    )
    assert checks["aggregate_mean_offset"] < 0.02 and checks["aggregate_correlation"] < 0.02
    assert 0.97 < checks["aggregate_variance_min"] <= checks["aggregate_variance_max"] < 1.03


def test_duplicated_latents_are_seen_in_the_correlation_and_constant_ones_in_the_variance():
    rng = np.random.default_rng(0)
    z, prior = rng.normal(size=(5000, 1)), rng.normal(size=(5000, 3))
    z_mean = np.concatenate([z, z, np.full_like(z, 2.0)], axis=1)
    checks = evaluation.aggregate_posterior(z_mean, np.full((5000, 3), -9.0), prior)
    assert checks["aggregate_correlation"] > 0.95
    assert checks["aggregate_variance_min"] < 0.01
    assert checks["aggregate_mean_offset"] == pytest.approx(2.0, abs=0.1)


def test_probes_find_planted_classes_and_none_in_noise():
    rng = np.random.default_rng(0)
    labels, noise = rng.integers(0, 4, 400), rng.normal(size=(400, 5))
    perfect = np.eye(4)[labels]
    for codes, low, high in ((perfect, 1.0, 1.0), (noise, 0.1, 0.4)):
        accuracies = evaluation.probe_accuracies(codes[:200], labels[:200], codes[200:], labels[200:])
        assert all(low <= accuracy <= high for accuracy in accuracies.values())


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
    assert results["mse"] == pytest.approx(np.mean(np.square(binary - vae.reconstruct(binary))), rel=1e-5)
    estimates = [evaluation.evaluate(vae, binary[i::3], nll_samples=50)["nll"] for i in range(3)]
    assert np.std(estimates, ddof=1) == pytest.approx(np.sqrt(3) * results["nll_standard_error"], rel=0.9)


def test_the_same_call_gives_the_same_numbers_and_leaves_the_noise_alone(vae):
    _, binary = grey_and_binary()
    vae.loss_terms(binary, training=False)
    first = evaluation.evaluate(vae, binary, nll_samples=3, seed=5)
    states = [variable.numpy() for variable in vae.variables if variable.path.endswith("seed_generator_state")]
    assert evaluation.evaluate(vae, binary, nll_samples=3, seed=5) == first
    assert evaluation.evaluate(vae, binary, nll_samples=3, seed=6)["loss"] != first["loss"]
    after = [variable.numpy() for variable in vae.variables if variable.path.endswith("seed_generator_state")]
    assert states and np.array_equal(states, after)


OTHER_PRIORS = [
    {"prior": "gaussian_mixture", "prior_components": 3},
    {"model": "hierarchical_vae", "upper_latent_dims": (2,)},
]


@pytest.mark.parametrize("values", OTHER_PRIORS, ids=str)
def test_both_estimators_agree_where_the_prior_is_no_standard_normal(values):
    keras.utils.set_random_seed(0)
    vae = build_model(ModelConfig(hidden=(8,), latent_dim=2, upper_hidden=(4,), **values), (4, 4, 1), seed=0)
    images = np.random.default_rng(0).integers(0, 2, (20, 4, 4, 1)).astype("float32")
    by_q = evaluation.evaluate(vae, images, nll_samples=2000)
    by_p = evaluation.evaluate(vae, images, nll_samples=2000, estimator="prior")
    assert by_q["nll"] == pytest.approx(by_p["prior_sampled_nll"], abs=0.03)
    assert by_q["nll"] < -by_q["elbo"]
    assert "kl_per_dimension" not in by_q  # there is no closed form for each dimension
    many = evaluation.evaluate(vae, np.repeat(images, 40, axis=0))  # each is estimated by draws of its own
    assert sum(many.get("kl_per_part", [many["kl_loss"]])) == pytest.approx(many["kl_loss"], abs=0.1)


def test_an_unknown_estimator_is_refused_with_the_choices(vae):
    with pytest.raises(InputError, match="importance, prior"):
        evaluation.evaluate(vae, grey_and_binary()[1], estimator="posterior")


def test_a_denoiser_is_scored_on_noisy_images():
    keras.utils.set_random_seed(0)
    config = ModelConfig(model="autoencoder", hidden=(8,), latent_dim=2, corruption="masking", corruption_rate=0.3)
    images = np.ones((200, 8, 8, 1), "float32")
    results = evaluation.evaluate(build_model(config, (8, 8, 1), seed=0), images)
    assert results["corrupted_mse"] == pytest.approx(0.3, abs=0.02)  # a masked one is wrong by 1
    assert results["restored_mse"] != results["mse"]


def test_latent_statistics_reach_the_logs_and_tensorboard_and_leave_training_as_it_was(tmp_path):
    _, binary = grey_and_binary()
    histories = []
    for callbacks in ([], [LatentStatistics(binary), keras.callbacks.TensorBoard(tmp_path, write_graph=False)]):
        keras.utils.set_random_seed(0)
        vae = build_model(ModelConfig(hidden=(8,), latent_dim=2, beta=4.0, warmup_steps=1000), (8, 8, 1), seed=0)
        vae.compile(run_eagerly=True)
        fit = {"epochs": 2, "batch_size": 50, "verbose": 0, "shuffle": False}
        histories.append(vae.fit(binary, callbacks=callbacks, **fit).history)
    plain, logged = histories
    assert logged["loss"] == plain["loss"]
    z_mean, z_log_var = (np.asarray(value) for value in vae.encode(binary))
    kl = 0.5 * (np.exp(z_log_var) + z_mean**2 - 1 - z_log_var).mean(axis=0)
    np.testing.assert_allclose([logged["kl_0"][-1], logged["kl_1"][-1]], kl, rtol=1e-4)
    assert logged["active_units"][-1] == (z_mean.var(axis=0) > 0.01).sum()
    steps = math.ceil(len(binary) / 50)
    np.testing.assert_allclose(logged["beta"], [4.0 * steps / 1000, 8.0 * steps / 1000], rtol=1e-6)
    written = read_scalars(tmp_path)
    for name in ("active_units", "kl_0", "kl_1", "beta", "loss", "kl_loss", "reconstruction_loss"):
        np.testing.assert_allclose(written[f"epoch_{name}"], logged[name], rtol=1e-6, err_msg=name)


def read_scalars(folder):
    """Every scalar in the event files below a folder: tag -> values in the order of the steps."""
    found = {}
    for file in folder.rglob("events*"):
        for record in tf.data.TFRecordDataset(str(file)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == "scalars":
                    found.setdefault(value.tag, {})[event.step] = float(tf.make_ndarray(value.tensor))
    return {tag: [values[step] for step in sorted(values)] for tag, values in found.items()}
