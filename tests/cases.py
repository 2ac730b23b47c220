"""THE list of cases: one row for each variant. A new variant is one new row, and the conformance tests run over it."""

from dataclasses import dataclass, field

import keras
import numpy as np
import pytest

from keras_vae import registry
from keras_vae.config import Config
from keras_vae.models import build_model


@dataclass(frozen=True)
class Case:
    name: str
    values: dict = field(default_factory=dict)
    shape: tuple[int, ...] = (8, 8, 1)

    def __str__(self):
        return self.name


SMALL = {"hidden": (12,), "latent_dim": 3}
CONV = {"network": "conv", "hidden": (4, 6), "decoder_channels": 5}
AUTOENCODER = {"model": "autoencoder", "code_activation": "relu"}
HIERARCHICAL = {"model": "hierarchical_vae", "upper_hidden": (5,)}

CASES = (
    Case("linear", {"network": "linear"}),
    Case("mlp"),
    Case("mlp-two-layers-tanh", {"hidden": (12, 8), "activation": "tanh"}),
    Case("conv", {**CONV, "dense": 7}),
    Case("conv-valid-padding", {**CONV, "padding": "valid"}),
    Case("conv-not-square", {**CONV, "dense": 7}, shape=(8, 12, 1)),
    Case("conv-colour", {**CONV, "likelihood": "gaussian"}, shape=(8, 8, 3)),
    Case("mlp-colour-not-square", shape=(5, 7, 3)),
    Case("gated", {"network": "gated"}),
    Case("resnet", {**CONV, "network": "resnet", "likelihood": "discretized_logistic"}, shape=(8, 8, 3)),
    Case("gaussian", {"likelihood": "gaussian"}),
    Case("gaussian-narrow", {"likelihood": "gaussian", "scale": 0.3}),
    Case("gaussian-learned", {"likelihood": "gaussian", "scale": 0.5, "learn_scale": True}),
    Case("continuous-bernoulli", {"likelihood": "continuous_bernoulli"}),
    Case("discretized-logistic", {"likelihood": "discretized_logistic"}),
    Case("beta", {"beta": 4.0}),
    Case("warm-up", {"beta": 2.0, "warmup_steps": 4}),
    Case("free-bits", {"free_bits": 0.05}),
    Case("iwae", {"objective": "iwae", "importance_samples": 3}),
    Case("dreg", {"objective": "dreg", "importance_samples": 3}),
    Case("miwae", {"objective": "miwae", "importance_samples": 3, "importance_groups": 2}),
    Case("beta-tc", {"objective": "beta_tc", "beta": 4.0}),
    Case("gaussian-mixture", {"prior": "gaussian_mixture", "prior_components": 3}),
    Case("vampprior", {"prior": "vampprior", "prior_components": 4}),
    Case("full-covariance", {"posterior": "full_covariance"}),
    Case(
        "full-covariance-iwae",
        {
            "posterior": "full_covariance",
            "prior": "vampprior",
            "prior_components": 4,
            "objective": "dreg",
            "importance_samples": 3,
        },
    ),
    Case("hierarchical", {**HIERARCHICAL, "upper_latent_dims": (2,)}),
    Case(
        "hierarchical-three-layers",
        {
            **HIERARCHICAL,
            "upper_latent_dims": (3, 2),
            "prior": "vampprior",
            "prior_components": 4,
            "objective": "dreg",
        },
    ),
    Case("vector", {"likelihood": "gaussian"}, shape=(7,)),
    Case("vector-unit-interval", {"likelihood": "continuous_bernoulli", "network": "gated"}, shape=(7,)),
    Case("sequence", {"likelihood": "gaussian", "learn_scale": True}, shape=(6, 2)),
    Case("image-four-channels", {"likelihood": "gaussian"}, shape=(4, 6, 4)),
    Case("conditional", {"condition": "label", "num_classes": 3}),
    Case("conditional-conv", {**CONV, "condition": "label", "num_classes": 3, "objective": "iwae"}),
    Case("autoencoder", AUTOENCODER),
    Case("autoencoder-gaussian", {**AUTOENCODER, "likelihood": "gaussian"}),
    Case("sparse-autoencoder", {**AUTOENCODER, "activity_penalty": 0.3}),
    Case("denoising-gaussian", {**AUTOENCODER, "corruption": "gaussian", "corruption_rate": 0.4}),
    Case("denoising-masking", {**AUTOENCODER, **CONV, "corruption": "masking"}),
)

# The rows that the default run takes: between them they have every value of every axis (tests/test_cases.py). The
# others are run by `pytest -m slow`.
QUICK = {
    "linear", "mlp", "mlp-two-layers-tanh", "conv-valid-padding", "conv-not-square", "gated", "resnet",
    "gaussian-learned", "continuous-bernoulli", "warm-up", "free-bits", "miwae", "beta-tc", "gaussian-mixture",
    "full-covariance-iwae", "hierarchical-three-layers", "conditional-conv", "sparse-autoencoder", "denoising-gaussian",
    "denoising-masking", "vector", "sequence", "image-four-channels",
}  # fmt: skip


def over(cases, quick=QUICK):
    """Runs a test over cases; those whose names are not in `quick` are marked slow."""
    rows = [case if case.name in quick else pytest.param(case, marks=pytest.mark.slow) for case in cases]
    return pytest.mark.parametrize("case", rows, ids=str)


all_cases = over(CASES)


def config(case):
    """The `Config` of a case."""
    network = registry.members("network")[case.values.get("network", "mlp")]
    small = {name: value for name, value in SMALL.items() if name != "hidden" or "hidden" in network.options}
    return Config().replace(**{**small, **case.values})


def build(case, seed=1):
    """The untrained model of a case. The same seed gives the same weights and the same noise."""
    keras.utils.set_random_seed(seed)
    return build_model(config(case).model, case.shape, seed=seed)


def labels(case, count=8):
    """What the model of a case takes beside images or z: a list of labels, or of nothing."""
    settings = config(case).model
    return [np.arange(count) % settings.num_classes] if settings.condition == "label" else []


def inputs(case, x):
    """Images, or the pair of images and labels that the model of a case takes."""
    pair = [x, *labels(case, len(x))]
    return [keras.ops.convert_to_tensor(part) for part in pair] if labels(case) else x


def images(case, count=8, seed=0):
    """Examples of a case: values in [0, 1], or any real ones for data that are no grey or colour images."""
    if config(case).model.likelihood == "gaussian" and (len(case.shape) < 3 or case.shape[-1] > 3):
        return np.random.default_rng(seed).normal(size=(count, *case.shape)).astype("float32")
    return np.random.default_rng(seed).uniform(size=(count, *case.shape)).astype("float32")
