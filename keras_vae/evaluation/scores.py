"""What a trained model is worth on test images, in numbers that say what they are."""

import hashlib
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_vae import installed, keras_private, kl, objectives, posteriors
from keras_vae.config import InputError
from keras_vae.evaluation import latents, marginal

ESTIMATORS = ("importance", "prior")
PRIOR_DRAWS = 20_000  # for the moments of the prior


def evaluate(
    model: Any,
    images: Any,
    *,
    labels: Any = None,
    train: Any = None,
    nll_samples: int = 0,
    nll_images: int | None = None,
    estimator: str = "importance",
    seed: int = 0,
    done: dict[str, Any] | None = None,
    on_batch: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Scores a model on test images. The same arguments give the same numbers.

    Args:
        model: A model of this package, or one with the same methods.
        images: Float32 [n, ...], pixels in [0, 1], binarised as the model was trained.
        labels: Int [n], classes of the images, for the probes and for a model that takes them; or None.
        train: Pair (images, labels) of the training split for the probes, or None for no probes.
        nll_samples: Int, samples of z for each image; 0 for no estimate of the likelihood.
        nll_images: Int, on how many of the images, from the first on; None for all.
        estimator: "importance" for samples from q(z|x), "prior" for samples from p(z).
        seed: Int seed of all noise.
        done: What `on_batch` was called with last, to go on from there; None for the beginning.
        on_batch: Callable, called with the results of `marginal.estimate` so far after each of its batches, or None.

    Returns:
        Dict: loss, reconstruction_loss, kl_loss and elbo in nats per image, mse per pixel, and so on; `cards.MEANINGS`
        says what each is. `elbo` is minus (reconstruction_loss + kl_loss), whatever the objective. What importance
        sampling estimates is called `nll` only where p(x|z) is a likelihood of these pixels: grey pixels under a
        Bernoulli likelihood have none, and there `elbo` is called `score`. A model of images given their labels has
        `conditional_nll` and `conditional_elbo`, which are about log p(x|y). For an autoencoder: the share of code
        values that are 0, and for a denoising one the mse of corrupted images before and after.

    Raises:
        InputError: for an unknown estimator.

    Example:

    >>> import keras_vae, numpy as np
    >>> from keras_vae import evaluation
    >>> vae = keras_vae.VAE.from_preset("mlp")
    >>> results = evaluation.evaluate(vae, np.zeros((4, 28, 28, 1), "float32"), nll_samples=10)
    >>> results["nll"] <= -results["elbo"] + 1
    True
    """
    if estimator not in ESTIMATORS:
        raise InputError(f"Unknown estimator. Expected one of: {', '.join(ESTIMATORS)}. Received: {estimator!r}")
    if labels is not None and train is not None:
        installed.need("sklearn")  # now, and not after the sampling
    inputs = inputs_of(model, images, labels)
    with fixed_noise(model, seed):
        losses = batched(lambda *x: model.loss_terms(*x, training=False), *inputs, batch_size=loss_batch(model))
        results = {name: float(np.mean(values, dtype="float64")) for name, values in losses.items()}
        results["mse"] = mean_squared_error(images, batched(model.reconstruct, *inputs))
        results |= model.likelihood.statistics()
        results |= _of_vae(model, inputs, seed) if "kl_loss" in losses else _of_autoencoder(model, images)
    if "kl_loss" in losses:
        results[bound_name(model, images)] = -(results["reconstruction_loss"] + results["kl_loss"])
    if labels is not None and train is not None:
        train_codes, codes = batched(model.code, *inputs_of(model, *train)), batched(model.code, *inputs)
        results |= latents.probe_accuracies(train_codes, train[1], codes, labels)
    if "kl_loss" in losses and nll_samples:
        scored = as_one([array[:nll_images] for array in inputs])
        options = {"seed": seed, "done": done, "on_batch": on_batch}
        estimates = marginal_likelihood(model, scored, nll_samples, estimator, **options)
        name = likelihood_name(model, images, estimator)
        results |= _named(estimates, name, nll_samples)
        if name in ("nll", "conditional_nll") and hasattr(model.likelihood, "bits_per_dimension"):
            bits = model.likelihood.bits_per_dimension(results[name], images.shape[1:])
            results[f"{name}_bits_per_dimension"] = bits
    return results


def marginal_likelihood(
    model: Any, images: Any, num_samples: int, estimator: str = "importance", **options: Any
) -> marginal.Arrays:
    """`marginal.estimate` of a model: what it estimates of log p(x) of each image.

    Args:
        model: A VAE of this package, or a model with the same methods.
        images: Float32 [n, ...], pixels in [0, 1]; a pair of images and labels for a model that takes labels.
        num_samples: Int, samples of z for each image.
        estimator: "importance" for samples from q(z|x), "prior" for samples from p(z).
        **options: Everything else that `marginal.estimate` takes.

    Returns:
        The dict of `marginal.estimate`.
    """
    if estimator == "importance":
        encode = lambda x: model.encode(*as_list(x))  # noqa: E731
        propose = marginal.posterior_proposal(encode, model.prior.log_prob, model.posterior)
    else:
        propose = marginal.prior_proposal(model.prior.sample)

    def log_likelihood(x: Any, z: Any) -> Any:
        x, *condition = as_list(x)
        return model.log_likelihood(x, z, *condition)

    return marginal.estimate(images, propose=propose, log_likelihood=log_likelihood, num_samples=num_samples, **options)


def loss_batch(model: Any) -> int:
    """Images in a batch when the loss is evaluated. That of beta_tc depends on it; elsewhere fewer take less memory."""
    return 500 if isinstance(getattr(model, "objective", None), objectives.BetaTC) else 100


def bound_name(model: Any, images: Any) -> str:
    """The name that -(reconstruction_loss + kl_loss) deserves."""
    if not has_likelihood(model, images):
        return "score"
    return "conditional_elbo" if given(model) else "elbo"


def likelihood_name(model: Any, images: Any, estimator: str = "importance") -> str:
    """The name that the estimate of -log p(x) deserves."""
    of_prior = estimator != "importance"
    if not has_likelihood(model, images):
        return "prior_sampled_loss" if of_prior else "importance_weighted_loss"
    name = "conditional_nll" if given(model) else "nll"
    return f"prior_sampled_{name}" if of_prior else name


def _named(estimates: dict[str, Any], name: str, num_samples: int) -> dict[str, Any]:
    """The results of `marginal.estimate`, averaged over the images and named."""
    log_marginal, effective = estimates["log_marginal"], estimates["effective_samples"]
    sizes = marginal.bound_sizes(num_samples)
    return {
        name: -float(log_marginal.mean()),
        f"{name}_standard_error": standard_error(log_marginal),
        f"{name}_samples": num_samples,
        f"{name}_images": len(log_marginal),
        f"{name}_ess": float(effective.mean()),
        f"{name}_ess_median": float(np.median(effective)),
        f"{name}_by_samples": {
            str(k): -float(value) for k, value in zip(sizes, estimates["bound"].mean(axis=0), strict=True)
        },
    }


def _of_vae(model: Any, inputs: Any, seed: int) -> dict[str, Any]:
    """What there is to say of the latents of a VAE."""
    codes, centres, log_vars, groups = batched(lambda *x: _latents(model, *x), *inputs)
    results = {"active_units": int(latents.active_units(codes).sum()), "latent_dim": codes.shape[1]}
    dims = kl.group_dims(model.posterior, model.prior)
    if len(dims) > 1:
        name = "kl_per_dimension" if set(dims) == {1} and len(dims) == codes.shape[1] else "kl_per_part"
        results[name] = groups.mean(axis=0).tolist()
    prior_samples = np.asarray(model.lowest(model.prior.sample(PRIOR_DRAWS, seed)))
    return results | latents.aggregate_posterior(centres, log_vars, prior_samples)


def inputs_of(model: Any, images: Any, labels: Any = None) -> list[Any]:
    """What a model takes: a list of the images, and of the labels if it asks for them."""
    return [images] if given(model) is None else [images, labels]


def as_list(x: Any) -> list[Any]:
    """What `as_one` was made of."""
    return list(x) if isinstance(x, (tuple, list)) else [x]


def given(model: Any) -> str | None:
    """What a model is given beside noise, in words: "the label", "the condition" or None."""
    if getattr(model, "condition", None) is None:
        return None
    return "the label" if model.takes_labels else "the condition"


def as_one(inputs: Any) -> Any:
    """The images alone, or the pair of images and labels."""
    return inputs[0] if len(inputs) == 1 else tuple(inputs)


def latent_statistics(
    model: Any, images: Any, labels: Any = None, seed: int = 0
) -> tuple[marginal.Array, marginal.Array]:
    """Which latent dimensions are active, and the KL of each dimension or part.

    Args:
        model: A VAE of this package, or a model with the same methods.
        images: Float32 [n, ...], pixels in [0, 1].
        labels: Int [n], for a model that takes them.
        seed: Int seed of the noise.

    Returns:
        Pair (bool [d], float [g]): see `active_units`; nats, averaged over the images.
    """
    with fixed_noise(model, seed):
        inputs = inputs_of(model, images, labels)
        codes, _, _, groups = batched(lambda *x: _latents(model, *x), *inputs, compiled=False)  # for few images
    return latents.active_units(codes), groups.mean(axis=0)


def _latents(model: Any, *x: Any) -> tuple[Any, ...]:
    """(mean of q(z|x), Gaussians whose mixture is q(z): their means and log-variances; the parts of the KL)."""
    heads = model.encode(*x)
    draws = model.sampling.draw(heads)
    if isinstance(model.posterior, posteriors.DiagonalGaussian):
        centre, log_var = model.posterior.parameters(heads)
    else:  # a point for each image: a draw
        centre = model.lowest(draws.z[0])
        log_var = tf.fill(tf.shape(centre), -np.inf)
    return model.posterior.mean(heads), centre, log_var, draws.kl_groups


def _of_autoencoder(model: Any, images: Any) -> dict[str, Any]:
    results = {"zero_codes": float(np.mean(batched(model.encode, images) == 0))}
    if model.corruption is not None:
        corrupted = batched(model.corrupt, images)
        results["corrupted_mse"] = mean_squared_error(images, corrupted)
        results["restored_mse"] = mean_squared_error(images, batched(model.reconstruct, corrupted))
    return results


def has_likelihood(model: Any, images: Any) -> bool:
    """Whether p(x|z) is a likelihood of these values: a Bernoulli one has none for grey pixels."""
    return bool(model.likelihood.is_likelihood_of(images))


@contextmanager
def fixed_noise(model: Any, seed: int) -> Iterator[None]:
    """While it is entered, the layers of a model draw what `seed` says; afterwards they go on as if nothing was."""
    states = _noise_states(model)
    before = [state.numpy() for state in states]
    for index, state in enumerate(states):
        state.assign(np.array([seed, index], state.dtype))
    try:
        yield
    finally:
        for state, value in zip(states, before, strict=True):
            state.assign(value)


def _noise_states(model: Any) -> list[Any]:
    """The variables in which the layers of a model, however deep, hold where their noise is."""
    found = []
    for layer in (model, *keras_private.layers_of(model)):
        for value in vars(layer).values():
            parts = (
                value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else [value]
            )
            found += [part for part in parts if isinstance(part, keras.random.SeedGenerator)]
    return [variable for variable in model.variables if any(variable is generator.state for generator in found)]


def standard_error(values: Any) -> float:
    """Standard error of the mean of [n] values; 0 for one value."""
    return float(np.std(values, ddof=1, dtype="float64") / math.sqrt(len(values))) if len(values) > 1 else 0.0


def mean_squared_error(images: Any, reconstructions: Any) -> float:
    """Mean squared error of a pixel; arrays [n, ...] of pixels in [0, 1]."""
    return float(np.mean(np.square(np.asarray(images, "float64") - reconstructions)))


def pixel_hash(images: Any) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of an array's bytes and shape: which images these are."""
    digest = hashlib.sha256(repr((images.shape, str(images.dtype))).encode())
    digest.update(np.ascontiguousarray(images).data)
    return digest.hexdigest()[:16]


def batched(function: Callable[..., Any], *arrays: Any, batch_size: int = 500, compiled: bool = True) -> Any:
    """Applies `function` to batches of arrays [n, ...] and joins its results, an array or a tuple of arrays."""
    function = tf.function(function, reduce_retracing=True, autograph=False) if compiled else function
    parts = []
    for first in range(0, len(arrays[0]), batch_size):
        parts.append(function(*(tf.convert_to_tensor(array[first : first + batch_size]) for array in arrays)))
    joined = tf.nest.map_structure(lambda *values: np.concatenate([np.asarray(value) for value in values]), *parts)
    return joined
