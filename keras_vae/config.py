"""The configuration of a run: frozen dataclasses with a JSON round trip.

Every field carries its help text and its choices, and the command line is derived from them, so that a
name, a default and an explanation are written down once. Standard library only.
"""

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any


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


MODELS = ("vae", "conditional_vae", "hierarchical_vae", "autoencoder")
NETWORKS = ("linear", "mlp", "gated", "conv", "resnet")
LIKELIHOODS = ("bernoulli", "continuous_bernoulli", "gaussian", "discretized_logistic")
POSTERIORS = ("diagonal_gaussian", "full_covariance")
PRIORS = ("standard_normal", "gaussian_mixture", "vampprior")
OBJECTIVES = ("elbo", "iwae", "dreg", "miwae", "beta_tc")
ACTIVATIONS = ("relu", "tanh", "elu", "gelu", "silu", "softplus", "sigmoid", "linear")
CORRUPTIONS = ("none", "gaussian", "masking")
BINARIZATIONS = ("none", "threshold", "dynamic", "fixed")
INITIALIZERS = ("fan_in_uniform", "glorot_uniform")
OUTPUT_BIASES = ("zeros", "data_mean")
OPTIMIZERS = ("adam", "adamw", "rmsprop", "sgd")
EXPORT_FORMATS = ("saved_model", "onnx", "litert")
SCHEDULES = ("constant", "cosine")
COMPILATION = ("auto", "on", "off")
STRATEGIES = ("auto", "none", "mirrored", "multiworker")
PRECISIONS = ("none", "bfloat16", "float16")


@dataclass(frozen=True)
class ModelConfig:
    """The model: a choice on the axes network, likelihood, prior and objective."""

    model: str = option("vae", "Model class.", choices=MODELS)
    network: str = option("mlp", "Encoder and decoder networks.", choices=NETWORKS)
    hidden: tuple[int, ...] = option(
        (400,),
        "Units (mlp, gated) or channels (conv, resnet) of the encoder's hidden layers; the decoder mirrors them.",
        minimum=1,
    )
    activation: str = option("relu", "Activation of the hidden layers.", choices=ACTIVATIONS)
    dense: int = option(0, "conv, resnet: units of a dense layer before the latent one; 0 for none.", minimum=0)
    decoder_channels: int = option(64, "conv, resnet: channels of the decoder's first feature map.", minimum=1)
    padding: str = option(
        "same", "conv, resnet: padding of the encoder's strided convolutions.", choices=("same", "valid")
    )
    latent_dim: int = option(20, "Number of latent dimensions.", minimum=1)
    initializer: str = option(
        "fan_in_uniform",
        "Weights of dense layers at the start: uniform within 1/sqrt(inputs), or Keras's default.",
        choices=INITIALIZERS,
    )
    output_bias: str = option(
        "zeros", "Where the decoder starts: at zeros, or at the mean training image.", choices=OUTPUT_BIASES
    )
    likelihood: str = option("bernoulli", "p(x|z): what a decoder output means.", choices=LIKELIHOODS)
    scale: float = option(1.0, "gaussian: standard deviation of a pixel.", above=0)
    learn_scale: bool = option(False, "gaussian: learn the standard deviation, starting from the given scale.")
    posterior: str = option("diagonal_gaussian", "q(z|x).", choices=POSTERIORS)
    prior: str = option("standard_normal", "p(z).", choices=PRIORS)
    prior_components: int = option(500, "gaussian_mixture, vampprior: number of components.", minimum=1)
    upper_latent_dims: tuple[int, ...] = option(
        (), "hierarchical_vae: latent dimensions of the stochastic layers above the first.", minimum=1
    )
    upper_hidden: tuple[int, ...] = option(
        (100, 100), "hierarchical_vae: units of the hidden layers between two stochastic ones.", minimum=1
    )
    num_classes: int = option(10, "conditional_vae: number of classes; labels are from 0 to one less.", minimum=1)
    objective: str = option("elbo", "What is optimised.", choices=OBJECTIVES)
    beta: float = option(
        1.0,
        "elbo: weight of the KL term; 1 makes the loss the negative ELBO. beta_tc: weight of the total correlation.",
        minimum=0,
    )
    warmup_steps: int = option(0, "elbo: steps over which the weight of the KL term rises linearly from 0.", minimum=0)
    cycle_steps: int = option(0, "elbo: steps after which the warm-up starts again; 0 for never.", minimum=0)
    free_bits: float = option(0.0, "elbo: nats of KL for each latent dimension that are free.", minimum=0)
    importance_samples: int = option(50, "iwae, dreg, miwae: draws of z in a bound, k.", minimum=1)
    importance_groups: int = option(1, "miwae: bounds that are averaged, m.", minimum=1)
    corruption: str = option(
        "none", "autoencoder: damage to the input that the network learns to undo.", choices=CORRUPTIONS
    )
    corruption_rate: float = option(
        0.5, "autoencoder: standard deviation (gaussian) or fraction of pixels set to 0 (masking).", minimum=0
    )
    code_activation: str = option("linear", "autoencoder: activation of the code.", choices=ACTIVATIONS)
    activity_penalty: float = option(
        0.0, "autoencoder: weight, in nats, of the sum of absolute code values.", minimum=0
    )


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
        owners = field_owners()
        unknown = sorted(set(values) - set(owners))
        if unknown:
            raise InputError(f"Unknown config key {unknown[0]!r}. Expected one of: {', '.join(sorted(owners))}.")
        changed = {}
        for section_name, section in sections(self).items():
            own = {name: value for name, value in values.items() if owners[name] == section_name}
            changed[section_name] = dataclasses.replace(section, **own)
        return dataclasses.replace(self, **changed)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

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
                if name not in field_owners() or field_owners()[name] != key:
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
