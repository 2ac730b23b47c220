"""The configuration of a run: frozen dataclasses with a JSON round trip.

Every field carries its help text and its choices, and the command line is derived from them, so that a
name, a default and an explanation are written down once. Standard library only.
"""

import dataclasses
import functools
import json
import math
from dataclasses import dataclass
from typing import Any

from keras_vae import registry


class InputError(ValueError):
    """Bad input by the user: the message names what was expected, what was received and the way out.

    The command line prints it as one line and exits with code 2.
    """


class RunStopped(RuntimeError):
    """A run that did not come to its end: the message says why, and how to go on.

    The command line prints it as one line and exits with `exit_code`.
    """

    def __init__(self, message, exit_code=1):
        super().__init__(message)
        self.exit_code = exit_code


def option(default, help, choices=None, minimum=None, above=None, maximum=None):
    """A dataclass field with its help text and the values that it accepts."""
    metadata = {"help": help, "choices": choices, "minimum": minimum, "above": above, "maximum": maximum}
    return dataclasses.field(default=default, metadata=metadata)


MODELS = ("vae", "hierarchical_vae", "autoencoder")
ACTIVATIONS = ("relu", "tanh", "elu", "gelu", "silu", "softplus", "sigmoid", "linear")
BINARIZATIONS = ("none", "threshold", "dynamic", "fixed")
OUTPUT_BIASES = ("zeros", "data_mean")
OPTIMIZERS = ("adam", "adamw", "rmsprop", "sgd")
EXPORT_FORMATS = ("saved_model", "onnx", "litert")
SCHEDULES = ("constant", "cosine")
COMPILATION = ("auto", "on", "off")
STRATEGIES = ("auto", "none", "mirrored", "multiworker")
PRECISIONS = ("none", "bfloat16", "float16")


class Choice(str):
    """A member of an axis: its name, and the values of its options.

    It is the name, as a string. In JSON it is {"name": ..., option: value, ...}.
    """

    axis: str
    options: dict[str, Any]

    def __new__(cls, axis: str, name: str, options: dict[str, Any] | None = None) -> "Choice":
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
            choice.options[option] = _checked(known[name].options[option], axis, value)
        return choice

    def to_dict(self) -> dict[str, Any]:
        """{"name": ..., option: value, ...}, as `get` of the module of the axis takes it."""
        return {"name": str(self), **self.options}

    def with_options(self, options: dict[str, Any]) -> "Choice":
        """The same member with some options changed."""
        return Choice(self.axis, str(self), {**self.options, **options})

    def __eq__(self, other):
        if isinstance(other, Choice):
            return self.to_dict() == other.to_dict()
        return str(self) == other

    def __ne__(self, other):
        return not self == other

    __hash__ = str.__hash__


def _checked(option, axis, value):
    """The value of an option, or InputError."""
    flag = registry.SPELLINGS.get((axis, option.name), option.name)
    if option.choices and value not in option.choices:
        raise InputError(f"Invalid value for {flag}: expected one of: {', '.join(option.choices)}. Received: {value!r}")
    if option.kind is tuple:
        items = tuple(value) if isinstance(value, (list, tuple)) else (None,)
        if not all(isinstance(item, int) and not isinstance(item, bool) for item in items):
            raise InputError(f"Invalid value for {flag}: expected ints. Received: {value!r}")
        if any(item < 1 for item in items):
            raise InputError(f"Invalid value for {flag}: expected at least 1. Received: {value!r}")
        return items
    kinds = {int: (int,), float: (int, float), bool: (bool,)}.get(option.kind, (str,))
    if not isinstance(value, kinds) or (isinstance(value, bool) and option.kind is not bool):
        expected = " or ".join(kind.__name__ for kind in kinds)
        raise InputError(f"Invalid value for {flag}: expected {expected}. Received: {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"Invalid value for {flag}: expected a finite number. Received: {value!r}")
    return value


def member(axis, default, help):
    """A dataclass field whose value is a `Choice` of an axis."""
    metadata = {"help": help, "choices": None, "minimum": None, "above": None, "maximum": None, "axis": axis}
    return dataclasses.field(default=default, metadata=metadata)


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

    model: str = option("vae", "Model class.", choices=MODELS)
    network: Choice = member("network", "mlp", "Encoder and decoder networks.")  # noqa: RUF009
    latent_dim: int = option(20, "Number of latent dimensions.", minimum=1)
    output_bias: str = option(
        "zeros", "Where the decoder starts: at zeros, or at the mean training example.", choices=OUTPUT_BIASES
    )
    likelihood: Choice = member("likelihood", "bernoulli", "p(x|z): what a decoder output means.")  # noqa: RUF009
    posterior: Choice = member("posterior", "diagonal_gaussian", "q(z|x): how z is drawn.")  # noqa: RUF009
    prior: Choice = member("prior", "standard_normal", "p(z): what latents look like.")  # noqa: RUF009
    objective: Choice = member("objective", "elbo", "What is optimised.")  # noqa: RUF009
    condition: Choice = member("condition", "none", "What encoder and decoder are given beside x and z.")  # noqa: RUF009
    upper_latent_dims: tuple[int, ...] = option(
        (), "hierarchical_vae: latent dimensions of the stochastic layers above the first.", minimum=1
    )
    upper_hidden: tuple[int, ...] = option(
        (100, 100), "hierarchical_vae: units of the hidden layers between two stochastic ones.", minimum=1
    )
    corruption: Choice = member(  # noqa: RUF009
        "corruption", "none", "autoencoder: damage to the input that the network learns to undo."
    )
    code_activation: str = option("linear", "autoencoder: activation of the code.", choices=ACTIVATIONS)
    activity_penalty: float = option(
        0.0, "autoencoder: weight, in nats, of the sum of absolute code values.", minimum=0
    )

    def __init__(self, **values):
        owners = flag_owners()
        options: dict[str, dict[str, Any]] = {}
        for flag in [name for name in values if name in owners]:
            axis, name = owners[flag]
            options.setdefault(axis, {})[name] = values.pop(flag)
        for field in dataclasses.fields(self):
            value = values.pop(field.name, field.default)
            axis = field.metadata.get("axis")
            if axis:
                if isinstance(value, dict):
                    value = Choice(axis, value.get("name"), {k: v for k, v in value.items() if k != "name"})
                elif not isinstance(value, Choice):
                    value = Choice(axis, value)
                value = value.with_options(options[axis]) if axis in options else value
            object.__setattr__(self, field.name, value)
        if values:
            raise InputError(f"Unknown config key {sorted(values)[0]!r}.")

    def replace(self, **values: Any) -> "ModelConfig":
        """A copy with fields and options replaced. Another member of an axis starts with its own defaults."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for name, value in values.items():
            if name in fields and isinstance(fields[name], Choice) and value == str(fields[name]):
                values = {other: given for other, given in values.items() if other != name}
        return ModelConfig(**{**fields, **values})

    def __getattr__(self, name):
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
    """The data: which images, and how they become batches."""

    dataset: str = option(
        "auto",
        "auto, digits, mnist or another image set of tensorflow-datasets, or the path of a folder of images, "
        "an .npy or an .npz file. auto is mnist, or digits where mnist cannot be had.",
    )
    mnist_dir: str | None = option(
        None, "Folder with the four official MNIST files; the environment variable KERAS_VAE_MNIST_DIR also sets it."
    )
    data_dir: str | None = option(None, "Folder in which tensorflow-datasets keeps prepared data.")
    binarization: str = option("none", "How pixels become 0 or 1.", choices=BINARIZATIONS)
    image_size: int | None = option(None, "Resize images to this height and width.", minimum=1)
    test_fraction: float = option(
        0.1, "Held-out share of a data set that has no test split of its own.", above=0, maximum=0.9
    )


@dataclass(frozen=True)
class TrainingConfig:
    """The training: optimizer, length and seed."""

    epochs: int = option(15, "Passes over the training images.", minimum=1)
    batch_size: int = option(128, "Images in a batch.", minimum=1)
    optimizer: str = option("adam", "Optimizer.", choices=OPTIMIZERS)
    learning_rate: float = option(1e-3, "Learning rate.", above=0)
    schedule: str = option("constant", "Course of the learning rate.", choices=SCHEDULES)
    start_from: str | None = option(
        None, "Run directory with whose weights to start, of a model of the same sizes; its objective may be another."
    )
    seed: int = option(0, "Seed of weights, shuffling, binarisation and noise.", minimum=0, maximum=2**31 - 1)
    sample_every: int = option(0, "Write a grid of samples every this many steps; 0 for once an epoch.", minimum=0)
    nll_samples: int = option(
        100, "Importance samples per test image for the NLL at the end of training; 0 to skip it.", minimum=0
    )
    nll_images: int = option(1000, "Test images for the NLL at the end of training.", minimum=1)
    audit: bool = option(True, "Audit the trained model for its report, in at most about 10 seconds.")
    strategy: str = option(
        "auto",
        "Devices: one (none), all of this machine (mirrored), or those of several machines (multiworker). auto is "
        "several machines where TF_CONFIG names them, else all GPUs.",
        choices=STRATEGIES,
    )
    mixed_precision: str = option("none", "Compute in this type and keep the weights in float32.", choices=PRECISIONS)
    jit_compile: str = option(
        "auto", "Let XLA compile the training steps; auto does so where it pays.", choices=COMPILATION
    )
    checkpoint_every: int = option(
        0, "Save the state of the run every this many steps; 0 for the end of each epoch alone.", minimum=0
    )
    checkpoint_minutes: float = option(0.0, "Save it also when this many minutes have passed; 0 for never.", minimum=0)


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

    def __post_init__(self):
        for section in sections(self).values():
            for field in dataclasses.fields(section):
                _check(field, getattr(section, field.name))

    def replace(self, **values) -> "Config":
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
    def from_dict(cls, values) -> "Config":
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
    def from_json(cls, text) -> "Config":
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise InputError(f"Not a config: invalid JSON ({error}).") from None
        return cls.from_dict(values)


def sections(config) -> dict[str, Any]:
    """The config's sections by name."""
    return {"model": config.model, "data": config.data, "training": config.training}


def field_owners() -> dict[str, str]:
    """Field name -> name of the section that it is in. Field names are unique across sections."""
    classes = {"model": ModelConfig, "data": DataConfig, "training": TrainingConfig}
    return {field.name: section for section, cls in classes.items() for field in dataclasses.fields(cls)}


_TYPES = {int: (int,), float: (int, float), str: (str,), bool: (bool,)}


def _check(field, value):
    """Raises InputError unless `value` is one that `field` accepts."""
    limits = field.metadata
    if "axis" in limits:  # a Choice has been checked
        return
    optional = getattr(field.type, "__args__", ())
    if value is None and type(None) in optional:
        return
    if getattr(field.type, "__origin__", None) is tuple:
        expected, items = (int,), value if isinstance(value, tuple) else (None,)
    else:
        base = next((kind for kind in (optional or (field.type,)) if kind is not type(None)), field.type)
        expected, items = _TYPES[base], (value,)
    for item in items:
        is_bool = isinstance(item, bool)  # an int to Python, but never to a user
        if not isinstance(item, expected) or (is_bool and bool not in expected):
            _refuse(field, value, f"expected {' or '.join(kind.__name__ for kind in expected)}")
        if limits["choices"] and item not in limits["choices"]:
            _refuse(field, value, f"expected one of: {', '.join(limits['choices'])}")
        if isinstance(item, float) and not math.isfinite(item):
            _refuse(field, value, "expected a finite number")
        if limits["minimum"] is not None and item < limits["minimum"]:
            _refuse(field, value, f"expected at least {limits['minimum']}")
        if limits["above"] is not None and item <= limits["above"]:
            _refuse(field, value, f"expected more than {limits['above']}")
        if limits["maximum"] is not None and item > limits["maximum"]:
            _refuse(field, value, f"expected at most {limits['maximum']}")


def _refuse(field, value, expected):
    raise InputError(f"Invalid value for {field.name}: {expected}. Received: {value!r}")
