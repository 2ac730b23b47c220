"""The configuration: nothing is lost in JSON, and nothing wrong gets in."""

import dataclasses
import json

import pytest

from keras_vae.config import Config, InputError, ModelConfig, field_owners, sections

DEFAULTS = {field.name: field for section in sections(Config()).values() for field in dataclasses.fields(section)}


def another_value(field):
    """A value that the field accepts and that is not its default."""
    limits, default = field.metadata, field.default
    if limits["choices"]:
        return next(choice for choice in limits["choices"] if choice != default)
    if isinstance(default, bool):
        return not default
    if isinstance(default, tuple):
        return (3, 4)
    if isinstance(default, int):
        return default + 1
    if isinstance(default, float):
        return default / 2 + 0.01
    return 64 if "int" in str(field.type) else "somewhere"


@pytest.mark.parametrize("name", [name for name in DEFAULTS if len(DEFAULTS[name].metadata["choices"] or "ab") > 1])
def test_every_field_survives_json(name):
    value = another_value(DEFAULTS[name])
    config = Config(preset="beta").replace(**{name: value})
    assert config != Config(preset="beta")
    restored = Config.from_json(config.to_json())
    assert restored == config and restored.preset == "beta"
    assert getattr(sections(restored)[field_owners()[name]], name) == value


@pytest.mark.parametrize("name", DEFAULTS)
def test_every_field_explains_itself_and_accepts_its_default(name):
    assert DEFAULTS[name].metadata["help"].endswith(".")
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
    ("beta", -0.5, "at least 0"),
    ("beta", float("nan"), "finite"),
    ("beta", float("inf"), "finite"),
    ("beta", "4", "float"),
    ("scale", 0.0, "more than 0"),
    ("learn_scale", 1, "bool"),
    ("learn_scale", "yes", "bool"),
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
        Config.from_dict({field_owners()[name]: {name: value}})


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
