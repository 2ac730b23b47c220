"""The configuration of a run: frozen dataclasses with a JSON round trip.

Every field carries its help text and its choices, and the command line is derived from them, so that a
name, a default and an explanation are written down once. Standard library only.
"""

import dataclasses
import functools
import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from keras_vae import registry
from keras_vae.options import (
    Activation,
    InputError,
    NonNegativeFloat,
    NonNegativeInt,
    Option,
    PositiveFloat,
    PositiveInt,
    Range,
    Sizes,
)

__all__ = ["Choice", "Config", "DataConfig", "InputError", "ModelConfig", "RunStopped", "TrainingConfig"]


class RunStopped(RuntimeError):
    """A run that did not come to its end: the message says why, and how to go on.

    The command line prints it as one line and exits with `exit_code`.
    """

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def option(default: Any, help: str, axis: str | None = None) -> Any:
    """A dataclass field with its help text; its annotation says which values it takes.

    With an `axis` it is a `Choice` of a member of that axis.
    """
    return dataclasses.field(default=default, metadata={"help": help, "axis": axis})


Binarization = Literal["none", "threshold", "dynamic", "fixed"]
BINARIZATIONS = get_args(Binarization)
EXPORT_FORMATS = ("saved_model", "onnx", "litert")


class Choice(str):
    """A member of an axis: its name, and the values of its options.

    It is the name, as a string. In JSON it is {"name": ..., option: value, ...}.
    """

    axis: str
    options: dict[str, Any]

    def __new__(cls, axis: str, name: Any, options: dict[str, Any] | None = None) -> "Choice":
        known = registry.members(axis)
        if not isinstance(name, str) or name not in known:
            raise InputError(f"Invalid value for {axis}: expected one of: {', '.join(known)}. Received: {name!r}")
        choice = super().__new__(cls, name)
        choice.axis = axis
        choice.options = {option.name: option.default for option in known[name].options.values()}
        for option, value in (options or {}).items():
            if option not in known[name].options:
                having = ", ".join(other for other, member in known.items() if option in member.options)
                suits = f"it goes with {having}" if having else f"no {axis} has it"
                flag = registry.SPELLINGS.get((axis, option), option)
                raise InputError(f"{axis.capitalize()} {name} has no {flag}: {suits}.")
            flag = registry.SPELLINGS.get((axis, option), option)
            choice.options[option] = known[name].options[option].checked(value, flag)
        return choice

    def to_dict(self) -> dict[str, Any]:
        """{"name": ..., option: value, ...}, as `get` of the module of the axis takes it."""
        return {"name": str(self), **self.options}

    def with_options(self, options: dict[str, Any]) -> "Choice":
        """The same member with some options changed."""
        return Choice(self.axis, str(self), {**self.options, **options})

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Choice):
            return self.to_dict() == other.to_dict()
        return str(self) == other

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__


def _check(section: Any) -> None:
    for name, option_of in options_of(section).items():
        option_of.checked(getattr(section, name))


def options_of(section: Any) -> dict[str, Option]:
    """Field name -> `Option`, for the fields of a section that are no choices of a member of an axis."""
    fields = [field for field in dataclasses.fields(section) if not field.metadata["axis"]]
    return {field.name: Option.of(field.name, field.type, field.default, field.metadata["help"]) for field in fields}


def axes_of(section: Any) -> dict[str, Option]:
    """Field name -> `Option` whose choices are the members of an axis, for the fields of a section that choose one."""
    fields = [field for field in dataclasses.fields(section) if field.metadata["axis"]]
    return {
        field.name: Option(field.name, str, field.default, field.metadata["help"], tuple(registry.members(field.name)))
        for field in fields
    }


@dataclass(frozen=True, init=False)
class ModelConfig:
    """The model: a choice on each axis, and what all models have.

    Options of a member go by their name on the command line, `ModelConfig(prior="vampprior", prior_components=5)`, and
    are read in the same way, `config.prior_components`; they are those of the member that is chosen.

    Example:

    >>> from keras_vae.config import ModelConfig
    >>> config = ModelConfig(objective="iwae", importance_samples=5)
    >>> config.objective.to_dict(), config.importance_samples
    ({'name': 'iwae', 'k': 5}, 5)
    """

    model: Literal["vae", "hierarchical_vae", "autoencoder"] = option("vae", "Model class.")
    network: Choice = option("mlp", "Encoder and decoder networks.", axis="network")
    latent_dim: PositiveInt = option(20, "Number of latent dimensions.")
    output_bias: Literal["zeros", "data_mean"] = option(
        "zeros", "Where the decoder starts: at zeros, or at the mean training example."
    )
    likelihood: Choice = option("bernoulli", "p(x|z): what a decoder output means.", axis="likelihood")
    posterior: Choice = option("diagonal_gaussian", "q(z|x): how z is drawn.", axis="posterior")
    prior: Choice = option("standard_normal", "p(z): what latents look like.", axis="prior")
    objective: Choice = option("elbo", "What is optimised.", axis="objective")
    condition: Choice = option("none", "What encoder and decoder are given beside x and z.", axis="condition")
    upper_latent_dims: Sizes = option(
        (), "hierarchical_vae: latent dimensions of the stochastic layers above the first."
    )
    upper_hidden: Sizes = option(
        (100, 100), "hierarchical_vae: units of the hidden layers between two stochastic ones."
    )
    corruption: Choice = option(
        "none", "autoencoder: damage to the input that the network learns to undo.", axis="corruption"
    )
    code_activation: Activation = option("linear", "autoencoder: activation of the code.")
    activity_penalty: NonNegativeFloat = option(
        0.0, "autoencoder: weight, in nats, of the sum of absolute code values."
    )

    def __init__(self, **values: Any) -> None:
        owners = flag_owners()
        options: dict[str, dict[str, Any]] = {}
        for flag in [name for name in values if name in owners]:
            axis, name = owners[flag]
            options.setdefault(axis, {})[name] = values.pop(flag)
        for field in dataclasses.fields(self):
            value = values.pop(field.name, field.default)
            axis = field.metadata["axis"]
            if axis:
                if isinstance(value, dict):
                    value = Choice(axis, value.get("name"), {k: v for k, v in value.items() if k != "name"})
                elif not isinstance(value, Choice):
                    value = Choice(axis, value)
                value = value.with_options(options[axis]) if axis in options else value
            object.__setattr__(self, field.name, value)
        if values:
            name, fields = sorted(values)[0], [field.name for field in dataclasses.fields(self)]
            owner = field_owners().get(name)
            where = f": it belongs to the {owner}" if owner else ""
            raise InputError(f"The model has no {name!r}{where}. Expected one of: {', '.join([*fields, *owners])}.")
        _check(self)

    def replace(self, **values: Any) -> "ModelConfig":
        """A copy with fields and options replaced. Another member of an axis starts with its own defaults."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for name, value in values.items():
            if name in fields and isinstance(fields[name], Choice) and value == str(fields[name]):
                values = {other: given for other, given in values.items() if other != name}
        return ModelConfig(**{**fields, **values})

    def __getattr__(self, name: str) -> Any:
        if name in (owners := flag_owners()):
            axis, option = owners[name]
            chosen = object.__getattribute__(self, axis)
            if option in chosen.options:
                return chosen.options[option]
            raise AttributeError(f"{axis} {chosen} has no {name}")
        raise AttributeError(name)


def flag_owners() -> dict[str, tuple[str, str]]:
    """Name of each option of a member, as on the command line -> (axis, name of the argument)."""
    return {flag: (axis, option) for axis in registry.AXES for flag, option in registry.flags(axis).items()}


@dataclass(frozen=True)
class DataConfig:
    """The data: which examples, and how they become batches."""

    dataset: str = option(
        "auto",
        "auto, digits, mnist or another image set of tensorflow-datasets, or the path of a folder of images, "
        "an .npy or an .npz file of vectors, sequences or images. auto is mnist, or digits where mnist cannot be had.",
    )
    mnist_dir: str | None = option(
        None, "Folder with the four official MNIST files; the environment variable KERAS_VAE_MNIST_DIR also sets it."
    )
    data_dir: str | None = option(None, "Folder in which tensorflow-datasets keeps prepared data.")
    binarization: Binarization = option("none", "How pixels become 0 or 1.")
    image_size: PositiveInt | None = option(None, "Resize images to this height and width.")
    test_fraction: Annotated[float, Range(above=0, maximum=0.9)] = option(
        0.1, "Held-out share of a data set that has no test split of its own."
    )

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True)
class TrainingConfig:
    """The training: optimizer, length and seed."""

    epochs: PositiveInt = option(15, "Passes over the training examples.")
    batch_size: PositiveInt = option(128, "Examples in a batch.")
    optimizer: Literal["adam", "adamw", "rmsprop", "sgd"] = option("adam", "Optimizer.")
    learning_rate: PositiveFloat = option(1e-3, "Learning rate.")
    schedule: Literal["constant", "cosine"] = option("constant", "Course of the learning rate.")
    start_from: str | None = option(
        None, "Run directory with whose weights to start, of a model of the same sizes; its objective may be another."
    )
    seed: Annotated[int, Range(minimum=0, maximum=2**31 - 1)] = option(
        0, "Seed of weights, shuffling, binarisation and noise."
    )
    sample_every: NonNegativeInt = option(0, "Write a picture of samples every this many steps; 0 for once an epoch.")
    nll_samples: NonNegativeInt = option(
        100, "Importance samples per test example for the NLL at the end of training; 0 to skip it."
    )
    nll_images: PositiveInt = option(1000, "Test examples for the NLL at the end of training.")
    audit: bool = option(True, "Audit the trained model for its report, in at most about 10 seconds.")
    strategy: Literal["auto", "none", "mirrored", "multiworker"] = option(
        "auto",
        "Devices: one (none), all of this machine (mirrored), or those of several machines (multiworker). auto is "
        "several machines where TF_CONFIG names them, else all GPUs.",
    )
    mixed_precision: Literal["none", "bfloat16", "float16"] = option(
        "none", "Compute in this type and keep the weights in float32."
    )
    jit_compile: Literal["auto", "on", "off"] = option(
        "auto", "Let XLA compile the training steps; auto does so where it pays."
    )
    checkpoint_every: NonNegativeInt = option(
        0, "Save the state of the run every this many steps; 0 for the end of each epoch alone."
    )
    checkpoint_minutes: NonNegativeFloat = option(0.0, "Save it also when this many minutes have passed; 0 for never.")

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True)
class Config:
    """Everything needed to repeat a run.

    Example:

    >>> from keras_vae.config import Config
    >>> config = Config().replace(latent_dim=2, epochs=1)
    >>> config.model.latent_dim, config.training.epochs
    (2, 1)
    >>> Config.from_json(config.to_json()) == config
    True
    """

    preset: str = "custom"
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    training: TrainingConfig = TrainingConfig()

    def replace(self, **values: Any) -> "Config":
        """Returns a copy with fields replaced by name, whatever section they are in.

        Raises:
            InputError: for an unknown name or a value that its field does not accept.
        """
        owners = {**dict.fromkeys(flag_owners(), "model"), **field_owners()}
        unknown = sorted(set(values) - set(owners))
        if unknown:
            raise InputError(f"Unknown config key {unknown[0]!r}. Expected one of: {', '.join(sorted(owners))}.")
        changed = {}
        for section_name, section in sections(self).items():
            own = {name: value for name, value in values.items() if owners[name] == section_name}
            replace = section.replace if section_name == "model" else functools.partial(dataclasses.replace, section)
            changed[section_name] = replace(**own)
        return dataclasses.replace(self, **changed)

    def to_dict(self) -> dict[str, Any]:
        plain = {name: dict(vars(section)) for name, section in sections(self).items()}
        chosen = {name: value.to_dict() for name, value in plain["model"].items() if isinstance(value, Choice)}
        return {"preset": self.preset, **plain, "model": {**plain["model"], **chosen}}

    @classmethod
    def from_dict(cls, values: Any) -> "Config":
        """Builds a config from `to_dict`'s form. Missing keys take their defaults; an unknown key is an error."""
        if not isinstance(values, dict):
            raise InputError(f"A config must be a JSON object. Received: {values!r}")
        flat = {}
        names = sections(cls())
        for key, value in values.items():
            if key == "preset":
                continue
            if key not in names:
                raise InputError(f"Unknown config key {key!r}. Expected one of: preset, {', '.join(names)}.")
            if not isinstance(value, dict):
                raise InputError(f"Config key {key!r} must be a JSON object. Received: {value!r}")
            for name in value:
                is_option = key == "model" and name in flag_owners()
                if not is_option and (name not in field_owners() or field_owners()[name] != key):
                    known = ", ".join(field.name for field in dataclasses.fields(names[key]))
                    raise InputError(f"Unknown config key '{key}.{name}'. Expected one of: {known}.")
            flat.update(value)
        flat = {name: tuple(value) if isinstance(value, list) else value for name, value in flat.items()}
        return dataclasses.replace(cls(), preset=values.get("preset", "custom")).replace(**flat)

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_json(cls, text: str) -> "Config":
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise InputError(f"Not a config: invalid JSON ({error}).") from None
        return cls.from_dict(values)


def sections(config: Config) -> dict[str, Any]:
    """The config's sections by name."""
    return {"model": config.model, "data": config.data, "training": config.training}


def field_owners() -> dict[str, str]:
    """Field name -> name of the section that it is in. Field names are unique across sections."""
    classes = {"model": ModelConfig, "data": DataConfig, "training": TrainingConfig}
    return {field.name: section for section, cls in classes.items() for field in dataclasses.fields(cls)}
