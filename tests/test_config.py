"""The configuration: nothing is lost in JSON, and nothing wrong gets in."""

import dataclasses
import json

import pytest

from keras_vae import registry
from keras_vae.config import Choice, Config, InputError, ModelConfig, axes_of, field_owners, options_of, sections

DEFAULTS = {
    name: field for part in sections(Config()).values() for name, field in (options_of(part) | axes_of(part)).items()
}


def another_value(field):
    """A value that the field accepts and that is not its default."""
    default = field.default
    if field.name in registry.AXES:
        return Choice(field.name, next(name for name in registry.members(field.name) if name != default))
    if field.choices:
        return next(choice for choice in field.choices if choice != default)
    if isinstance(default, bool):
        return not default
    if isinstance(default, tuple):
        return (3, 4)
    if isinstance(default, int):
        return default + 1
    if isinstance(default, float):
        return default / 2 + 0.01
    return 64 if field.kind is int else "somewhere"


@pytest.mark.parametrize("name", [name for name in DEFAULTS if len(DEFAULTS[name].choices or "ab") > 1])
def test_every_field_survives_json(name):
    value = another_value(DEFAULTS[name])
    config = Config(preset="beta").replace(**{name: value})
    assert config != Config(preset="beta")
    restored = Config.from_json(config.to_json())
    assert restored == config and restored.preset == "beta"
    assert getattr(sections(restored)[field_owners()[name]], name) == value


@pytest.mark.parametrize("name", DEFAULTS)
def test_every_field_explains_itself_and_accepts_its_default(name):
    assert DEFAULTS[name].help.endswith(".")
    assert Config().replace(**{name: DEFAULTS[name].default}) == Config()


def test_field_names_are_unique_across_sections():
    names = [field.name for section in sections(Config()).values() for field in dataclasses.fields(section)]
    assert len(names) == len(set(names))


def test_replace_leaves_the_rest_and_the_original_alone():
    original = Config()
    changed = original.replace(latent_dim=2, epochs=1)
    assert (changed.model.latent_dim, changed.training.epochs) == (2, 1)
    assert original == Config()
    assert changed.replace(latent_dim=20, epochs=15) == original


def test_missing_keys_take_their_defaults():
    assert Config.from_dict({"model": {"latent_dim": 7}}) == Config().replace(latent_dim=7)
    assert Config.from_dict({}) == Config()


BAD_VALUES = [
    ("latent_dim", 0, "at least 1"),
    ("latent_dim", 2.0, "int"),
    ("latent_dim", True, "int"),
    ("latent_dim", "2", "int"),
    ("latent_dim", None, "int"),
    ("hidden", (0,), "at least 1"),
    ("hidden", 400, "int"),
    ("hidden", ("400",), "int"),
    ("likelihood", "poisson", "bernoulli"),
    ("network", "MLP", "mlp"),
    ("beta", float("nan"), "finite"),
    ("beta", float("inf"), "finite"),
    ("beta", "4", "float"),
    ("learning_rate", 0, "more than 0"),
    ("test_fraction", 1.0, "at most 0.9"),
    ("seed", -1, "at least 0"),
    ("seed", 2**31, "at most"),
    ("epochs", 0, "at least 1"),
    ("mnist_dir", 3, "str"),
]


@pytest.mark.parametrize("name, value, expected", BAD_VALUES)
def test_bad_value_is_refused_by_name(name, value, expected):
    with pytest.raises(InputError, match=f"{name}.*{expected}") as refusal:
        Config().replace(**{name: value})
    assert repr(value) in str(refusal.value)
    with pytest.raises(InputError):
        Config.from_dict({field_owners().get(name, "model"): {name: value}})


@pytest.mark.parametrize(
    "values, named",
    [
        ({"models": {}}, "'models'"),
        ({"model": {"latent_dims": 2}}, "'model.latent_dims'"),
        ({"training": {"latent_dim": 2}}, "'training.latent_dim'"),
        ({"model": 3}, "'model'"),
        ([], "JSON object"),
    ],
)
def test_unknown_key_is_refused_by_name(values, named):
    with pytest.raises(InputError, match=named):
        Config.from_dict(values)


def test_unknown_key_of_replace_is_refused_with_the_choices():
    with pytest.raises(InputError, match=r"'latent_dims'.*latent_dim"):
        Config().replace(latent_dims=2)


@pytest.mark.parametrize("text", ["", "{", "null", "[1]", '"mlp"'])
def test_text_that_is_no_config_is_refused(text):
    with pytest.raises(InputError):
        Config.from_json(text)


def test_json_holds_every_field_by_name():
    values = json.loads(Config().to_json())
    assert set(values) == {"preset", "model", "data", "training"}
    assert set(values["model"]) == {field.name for field in dataclasses.fields(ModelConfig)}


def test_config_cannot_be_changed_in_place():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().model.latent_dim = 3


def test_options_are_nested_under_the_member_that_has_them():
    config = Config().replace(objective="iwae", importance_samples=10, prior="vampprior", prior_components=5)
    assert config.to_dict()["model"]["objective"] == {"name": "iwae", "k": 10}
    assert config.to_dict()["model"]["prior"] == {"name": "vampprior", "num_components": 5}
    assert config.model.prior == "vampprior" and config.model.prior_components == 5
    assert Config.from_json(config.to_json()) == config != Config().replace(objective="iwae", prior="vampprior")


def test_another_member_starts_with_its_own_defaults_and_the_same_one_keeps_its_options():
    config = Config().replace(objective="iwae", importance_samples=10)
    assert config.replace(objective="iwae").model.importance_samples == 10
    assert config.replace(objective="dreg").model.importance_samples == 50
    assert config.replace(objective="beta_tc").model.beta == 6.0


@pytest.mark.parametrize("learn_scale", [1, "yes"])
def test_a_switch_of_a_member_is_a_bool(learn_scale):
    with pytest.raises(InputError, match="learn_scale.*bool"):
        Config().replace(likelihood="gaussian", learn_scale=learn_scale)


@pytest.mark.parametrize("axis", registry.AXES)
def test_the_source_of_a_table_says_what_its_classes_say(axis):
    import keras_vae.models  # noqa: F401  after which the tables are there

    module, table = registry.AXES[axis]
    skeleton = registry.skeleton(f"keras_vae.{module}")[table]
    from_source = {name: registry._member(name, cls) for name, cls in skeleton.items()}
    assert from_source == registry.members(axis)
    assert all(option.help for member in from_source.values() for option in member.options.values())


OUT_OF_RANGE = [
    ({"objective": "iwae", "importance_samples": 0}, "importance_samples: expected at least 1. Received: 0"),
    ({"objective": "miwae", "importance_groups": 0}, "importance_groups: expected at least 1"),
    ({"prior": "vampprior", "prior_components": 0}, "prior_components: expected at least 1"),
    ({"prior": "gaussian_mixture", "prior_components": -3}, "prior_components: expected at least 1"),
    ({"beta": -0.1}, "beta: expected at least 0"),
    ({"free_bits": -1.0}, "free_bits: expected at least 0"),
    ({"warmup_steps": -1}, "warmup_steps: expected at least 0"),
    ({"likelihood": "gaussian", "scale": 0.0}, "scale: expected more than 0"),
    ({"likelihood": "discretized_logistic", "scale": -1.0}, "scale: expected more than 0"),
    ({"condition": "label", "num_classes": 0}, "num_classes: expected at least 1"),
    ({"condition": "vector", "condition_size": 0}, "condition_size: expected at least 1"),
    ({"model": "autoencoder", "corruption": "masking", "corruption_rate": 1.5}, "corruption_rate: expected at most 1"),
    ({"network": "conv", "decoder_channels": 0}, "decoder_channels: expected at least 1"),
    ({"network": "conv", "dense": -1}, "dense: expected at least 0"),
]


@pytest.mark.parametrize("values, expected", OUT_OF_RANGE)
def test_a_number_that_a_member_does_not_take_is_refused_by_the_config(values, expected):
    with pytest.raises(InputError, match=expected):
        Config().replace(**values)
