"""The audit: every fault of the table is found by the check that is to find it, and healthy models have none."""

from pathlib import Path

import audit_faults
import cases
import keras
import numpy as np
import pytest
import scipy.stats
from audit_faults import BINARY, FAULTS, card_of, small, with_parts

from keras_vae import evaluation
from keras_vae.config import InputError, ModelConfig
from keras_vae.evaluation.audit import formulas, likelihood, networks, terms, written
from keras_vae.models import VAE, build_model


def audit(model, images=BINARY, **options):
    return evaluation.audit(model, images, seconds=1000, **options)


def errors(findings):
    return {finding.name: (finding.numbers, finding.advice) for finding in findings if finding.status == "error"}


def slow_but(few, all_of_them):
    """The first `few` run by default, the others with the slow tests."""
    return [
        each if index < few else pytest.param(each, marks=pytest.mark.slow) for index, each in enumerate(all_of_them)
    ]


CHECKS = list(dict.fromkeys(fault.check for fault in FAULTS))
FIRST = [next(fault for fault in FAULTS if fault.check == check) for check in CHECKS]  # one for each check


@pytest.mark.parametrize(
    "fault", slow_but(len(FIRST), [*FIRST, *(fault for fault in FAULTS if fault not in FIRST)]), ids=str
)
def test_a_planted_fault_is_found_by_its_check(fault, monkeypatch):
    found = fault.audit(monkeypatch)
    assert fault.advice in found.get(fault.check, "not found"), found


def test_the_documentation_shows_the_table_of_faults():
    page = (Path(__file__).parents[1] / "docs" / "evaluation.md").read_text()
    assert audit_faults.table() in page


AUDITED = [case for case in cases.CASES if case.values.get("model") != "autoencoder"]


@pytest.mark.parametrize("case", slow_but(3, AUDITED), ids=str)
def test_a_healthy_case_has_no_errors(case):
    model, rng = cases.build(case), np.random.default_rng(0)
    levels = 1 if model.likelihood.support == "binary" else 255
    images = (rng.integers(0, levels + 1, (90, *case.shape)) / levels).astype("float32")
    labels = [np.arange(90) % 3, None][model.condition is None]
    assert errors(audit(model, images, labels=labels)) == {}


def trained(**values):
    vae = small(**values)
    vae.compile("adam", jit_compile=False)
    vae.fit(BINARY, epochs=30, verbose=0)
    return vae


def with_batch_normalisation():
    image = keras.Input((8, 8, 1))
    hidden = keras.layers.BatchNormalization()(keras.layers.Dense(8)(keras.layers.Flatten()(image)))
    encoder = keras.Model(image, [keras.layers.Dense(2)(hidden), keras.layers.Dense(2)(hidden)])
    layers = [keras.layers.Dense(8), keras.layers.BatchNormalization(), keras.layers.Dense(64)]
    return VAE(encoder, keras.Sequential([keras.Input((2,)), *layers, keras.layers.Reshape((8, 8, 1))]), seed=0)


HEALTHY = {
    "trained": trained,
    "trained mixture": lambda: trained(prior="gaussian_mixture", prior_components=3),
    "trained IWAE": lambda: trained(objective="iwae", importance_samples=5),
    "prior of one's own": lambda: with_parts(prior=audit_faults.OwnPrior()),
    "posterior of one's own": lambda: with_parts(posterior=audit_faults.OwnPosterior()),
    "likelihood of one's own": lambda: with_parts(audit_faults.OwnLaplace()),
    "batch normalisation": with_batch_normalisation,
    "IWAE of 50": lambda: small(objective="iwae", importance_samples=50),
    "hierarchical with free bits": lambda: small(
        model="hierarchical_vae", upper_latent_dims=(2,), upper_hidden=(4,), free_bits=0.5
    ),
    "mixture with free bits": lambda: small(prior="gaussian_mixture", prior_components=3, free_bits=0.5),
    "zeros for a decoder": lambda: zeroed(small().decoder, "decoder"),
    "zeros for an encoder": lambda: zeroed(small().encoder, "encoder"),
    "softplus inside": lambda: small(activation="softplus"),
}


def zeroed(network, which):
    vae = small()
    for weight in getattr(vae, which).weights:
        weight.assign(0 * weight)
    return vae


@pytest.mark.parametrize("name", slow_but(3, reversed(HEALTHY)))
def test_a_healthy_model_with_its_own_card_has_no_errors(name):
    model = HEALTHY[name]()
    assert errors(audit(model, card=card_of(model))) == {}


def test_there_are_forty_healthy_models():
    assert len(AUDITED) + len(HEALTHY) >= 40


# -- the formulas, against scipy --------------------------------------------------------------------------------------


def test_formulas_are_those_of_scipy():
    rng = np.random.default_rng(0)
    z, means, log_vars, logits = (
        rng.normal(size=(5, 3)),
        rng.normal(size=(4, 3)),
        rng.normal(size=(4, 3)),
        np.arange(4.0),
    )
    normals = scipy.stats.norm(means, np.exp(0.5 * log_vars)).logpdf(z[:, None]).sum(axis=-1)
    np.testing.assert_allclose(formulas.normal(z[:, None], means, log_vars), normals)
    expected = scipy.special.logsumexp(scipy.special.log_softmax(logits) + normals, axis=1)
    np.testing.assert_allclose(formulas.mixture(z, logits, means, log_vars), expected)
    x = np.linspace(0, 1, 11)
    np.testing.assert_allclose(formulas.gaussian(x, 0.3, 0.2), scipy.stats.norm(0.3, 0.2).logpdf(x))
    np.testing.assert_allclose(
        formulas.bernoulli(np.array([0, 1]), 0.7), scipy.stats.bernoulli(0.66818777).logpmf([0, 1])
    )
    levels = np.arange(256) / 255
    logistic = scipy.stats.logistic(0.4, 0.1)
    mass = np.diff([0, *logistic.cdf((levels + 1 / 510)[:-1]), 1])
    np.testing.assert_allclose(formulas.discretized_logistic(levels, 0.4, 0.1), np.log(mass), rtol=1e-6)
    np.testing.assert_allclose(formulas.discretized_logistic_mean(0.4, 0.1), (levels * mass).sum(), rtol=1e-6)


@pytest.mark.parametrize("logit", [-30.0, -2.0, -1e-6, 0.0, 1e-5, 1e-3, 0.5, 30.0])
def test_the_continuous_bernoulli_integrates_to_1_and_to_its_mean(logit):
    x = np.linspace(0, 1, 200_001)
    density = np.exp(formulas.continuous_bernoulli(x, logit))
    assert np.trapezoid(density, x) == pytest.approx(1, rel=1e-5)
    assert np.trapezoid(x * density, x) == pytest.approx(formulas.continuous_bernoulli_mean(logit), rel=1e-4)


# -- what it says -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("values, named", [({"beta": 4.0}, "beta 4"), ({"free_bits": 0.5}, "0.5 free bits")], ids=str)
def test_a_weighted_vae_is_warned_of_and_not_called_wrong(values, named):
    findings = audit(small(**values))
    assert errors(findings) == {}
    assert named in " ".join(finding.advice for finding in findings if finding.status == "warning")


def test_a_kl_that_is_there_twice_is_not_called_a_missing_half(monkeypatch):
    twice = audit_faults.plant(small(), kl_loss=lambda found: 2 * found["kl_loss"])
    advice = errors(audit(twice))[terms.KL][1]
    assert "twice the KL" in advice and "the factor 0.5 is missing" not in advice


def test_grey_pixels_under_a_bernoulli_are_said_to_have_no_likelihood():
    named = {finding.name: finding for finding in audit(small(), np.full((20, 8, 8, 1), 0.5, "float32"))}
    assert named[likelihood.PIXELS].status == "warning"


def test_dead_dimensions_are_named_by_their_number():
    vae = small()
    kernel = vae.encoder.get_layer("z_mean").kernel
    kernel.assign(kernel * np.array([1.0, 0.0, 1.0]))
    dead = {finding.name: finding for finding in audit(vae)}[networks.DEAD]
    assert dead.status == "warning" and dead.numbers["dead"] == [1]


def test_a_collapsed_posterior_is_named_with_what_to_try():
    found = {finding.name: finding for finding in audit(zeroed(None, "encoder"))}[networks.COLLAPSE]
    assert found.status == "warning" and "--free-bits" in found.advice and "--warmup-steps" in found.advice


def test_an_objective_of_ones_own_is_said_not_to_be_checked():
    class Own(terms.objectives.Objective):
        def terms(self, draws, decode, step=None):
            reconstruction_loss, kl_loss = -decode(draws.z)[0], draws.kl_loss
            loss = reconstruction_loss + 3 * kl_loss
            return {"loss": loss, "reconstruction_loss": reconstruction_loss, "kl_loss": kl_loss}

    found = {finding.name: finding for finding in audit(with_parts(objective=Own()))}[terms.LOSS]
    assert found.status == "warning" and "Not checked" in found.advice


def test_a_card_of_other_pixels_is_refused():
    vae = small()
    found = card_of(vae) | {"protocol": {"pixels_sha256": "0123"}}
    assert "other pixels" in errors(audit(vae, card=found))[written.VALUES][1]


def test_no_check_begins_after_the_time_and_each_says_so():
    done = []
    findings = evaluation.audit(small(), BINARY, seconds=0.0, progress=done.append)
    assert done == []
    late = [finding for finding in findings if "Not checked" in finding.advice]
    assert len(late) >= 9 and all(finding.status == "warning" for finding in late)


def test_progress_names_each_check_before_it_is_made():
    done = []
    findings = audit(small(), progress=done.append)
    assert done[0] == terms.LOSS and set(done) <= {finding.name for finding in findings}


def test_an_autoencoder_has_nothing_to_audit():
    model = build_model(ModelConfig(model="autoencoder", hidden=(8,), latent_dim=2), (8, 8, 1))
    with pytest.raises(InputError, match="Autoencoder"):
        evaluation.audit(model, BINARY)


def test_an_audit_leaves_the_noise_of_the_model_as_it_was():
    vae, other = small(), small()
    audit(vae, BINARY[:10])
    for _ in range(2):
        np.testing.assert_array_equal(*(model.loss_terms(BINARY, training=False)["loss"] for model in (vae, other)))
