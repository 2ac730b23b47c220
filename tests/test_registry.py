"""A member of an axis is one class and one row: everything else comes of itself."""

import inspect

import click
import keras
import numpy as np
import pytest
import test_models
import test_serving
from cases import Case, build
from keras import ops
from test_models import no_noise  # noqa: F401  a fixture of the tests that are run here

from keras_vae import cli, evaluation, likelihoods, networks, objectives, posteriors, priors, registry
from keras_vae.config import Config, InputError
from keras_vae.models import build_model
from keras_vae.serving import export_saved_models, verify

SERIALIZABLE = keras.saving.register_keras_serializable(package="test_registry")


@SERIALIZABLE
class DummyPosterior(posteriors.DiagonalGaussian):
    """A diagonal Gaussian that is narrower.

    Args:
        narrowing: Float, what is taken from the log-variance.
    """

    def __init__(self, narrowing: float = 1.0, **kwargs):
        super().__init__(**kwargs)
        self.narrowing = narrowing

    def head_shapes(self, latent_shape):
        return {"z_mean": tuple(latent_shape), "z_dummy": tuple(latent_shape)}

    def parameters(self, heads):
        z_mean, z_log_var = super().parameters(heads)
        return z_mean, z_log_var - self.narrowing

    def get_config(self):
        return {**super().get_config(), "narrowing": self.narrowing}


@SERIALIZABLE
class DummyPrior(priors.StandardNormal):
    """N(0, s^2).

    Args:
        spread: Float, the standard deviation.
    """

    def __init__(self, spread: float = 2.0, **kwargs):
        super().__init__(**kwargs)
        self.spread = spread

    def log_prob(self, z):
        return super().log_prob(z / self.spread) - self.latent_dim * np.log(self.spread)

    def sample(self, num_samples, noise=None):
        return self.spread * super().sample(num_samples, noise)

    def get_config(self):
        return {**super().get_config(), "spread": self.spread}


@SERIALIZABLE
class DummyLikelihood(likelihoods.Gaussian):
    """A Gaussian of a fixed width.

    Args:
        width: Float, the standard deviation.
    """

    def __init__(self, width: float = 0.5, **kwargs):
        super().__init__(scale=width, **{k: v for k, v in kwargs.items() if k not in ("scale", "learn_scale")})
        self.width = width

    def get_config(self):
        return {**super().get_config(), "width": self.width}


@SERIALIZABLE
class DummyObjective(objectives.ELBO):
    """The ELBO with a weight that is trained.

    Args:
        pull: Float, where the weight starts.
    """

    term_names = ("loss", "reconstruction_loss", "kl_loss", "pulled")

    def __init__(self, pull: float = 0.5, **kwargs):
        super().__init__(**{k: v for k, v in kwargs.items() if k not in ("beta", "warmup_steps")})
        self.pull = pull
        self.weight = self.add_weight(name="weight", shape=(), initializer=keras.initializers.Constant(pull))

    def terms(self, draws, decode, step=None):
        terms = super().terms(draws, decode, step)
        pulled = ops.square(self.weight) + ops.zeros_like(terms["loss"])
        return {**terms, "loss": terms["loss"] + pulled, "pulled": pulled}

    def get_config(self):
        known = super().get_config()
        return {**{k: v for k, v in known.items() if k not in ("cycle_steps", "free_bits")}, "pull": self.pull}


class DummyNetwork(networks.MLP):
    """One hidden layer.

    Args:
        breadth: Int, its units.
    """

    def __init__(self, breadth: int = 6):
        super().__init__(hidden=(breadth,))


DUMMIES = {
    "posterior": (posteriors.POSTERIORS, DummyPosterior, "narrowing", 0.5),
    "prior": (priors.PRIORS, DummyPrior, "spread", 3.0),
    "likelihood": (likelihoods.LIKELIHOODS, DummyLikelihood, "width", 0.25),
    "objective": (objectives.OBJECTIVES, DummyObjective, "pull", 0.75),
    "network": (networks.NETWORKS, DummyNetwork, "breadth", 5),
}


@pytest.fixture
def dummies(monkeypatch):
    for table, cls, _, _ in DUMMIES.values():
        monkeypatch.setitem(table, "dummy", cls)


def test_class_and_row_are_all_that_a_member_takes(dummies, tmp_path):
    values = {axis: "dummy" for axis in DUMMIES} | {option: value for _, _, option, value in DUMMIES.values()}
    # the command line: choices and options, with help
    command = cli.config_options(click.Command("train", callback=lambda **given: given))
    words = [word for name, value in values.items() for word in (f"--{name}", str(value))]
    parsed = command.main([*words, "--latent-dim", "3"], standalone_mode=False)
    given = {name: value for name, value in parsed.items() if value is not None}
    assert given == {**values, "latent_dim": 3}
    assert {"Its units." in param.help for param in command.params if param.name == "breadth"} == {True}
    # the config
    config = Config().replace(**given)
    for axis, (_, _, option, value) in DUMMIES.items():
        assert config.to_dict()["model"][axis] == {"name": "dummy", option: value}
    assert Config.from_json(config.to_json()) == config
    # the model, its training, the card
    keras.utils.set_random_seed(0)
    model, x = build_model(config.model, (7,), seed=0), np.random.default_rng(0).normal(size=(12, 7)).astype("float32")
    model.compile("sgd")
    logs = model.fit(x, verbose=0).history
    assert list(model.objective.term_names) == ["loss", "reconstruction_loss", "kl_loss", "pulled"] and "pulled" in logs
    assert float(model.objective.weight) < 0.75  # it was trained
    for axis, part in {name: getattr(model, name) for name in DUMMIES if name != "network"}.items():
        _, _, option, value = DUMMIES[axis]
        assert registry.name_of(part) == "dummy" and registry.options_of(part) == {option: value}
    card = evaluation.card(model, x, evaluation.evaluate(model, x, nll_samples=3), protocol={}, versions={})
    assert {card["model"][axis] for axis in ("likelihood", "prior", "objective")} == {"dummy"}
    # the saved file and what is served
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again.reconstruct(x), model.reconstruct(x), atol=1e-6)
    written = export_saved_models(model, tmp_path / "export")
    with verify.Model(written.paths["encoder"]) as encoder:
        assert set(encoder.run("serve", {"x": x})) == {"z_mean", "z_dummy"}
    with verify.Model(written.paths["decoder"]) as decoder:
        z = decoder.run("generate", {"seed": np.arange(2000)})["z"]
    assert z.std() == pytest.approx(3.0, rel=0.05)


CONFORMANCE = (
    test_models.test_arrays_and_datasets_with_and_without_labels_train_alike,
    test_models.test_weight_two_is_the_example_twice_and_weight_zero_is_its_absence,
    test_models.test_generate_decodes_draws_from_the_prior_by_seed,
    test_models.test_from_config_of_get_config_is_the_same_model,
    test_serving.test_serve_equals_keras_for_any_batch_size,
)
DUMMY = Case("dummy", {axis: "dummy" for axis in DUMMIES} | {option: value for _, _, option, value in DUMMIES.values()})


@pytest.mark.slow
@pytest.mark.parametrize("conforms", CONFORMANCE, ids=lambda test: test.__name__)
def test_members_pass_the_tests_of_all_cases(conforms, dummies, request, tmp_path):
    def export_of(name):
        model = build(DUMMY)
        return DUMMY, model, export_saved_models(model, tmp_path)

    given = {"case": DUMMY, "export_of": export_of}
    names = inspect.signature(conforms).parameters
    fixtures = {name: request.getfixturevalue(name) for name in names if name not in given}
    conforms(**fixtures, **{name: value for name, value in given.items() if name in names})


def test_an_option_of_another_member_is_refused_with_those_that_have_it():
    with pytest.raises(InputError, match="Objective elbo has no importance_samples: it goes with iwae, dreg, miwae"):
        Config().replace(importance_samples=3)
    with pytest.raises(InputError, match="expected one of: standard_normal"):
        Config().replace(prior="cauchy")
