"""The marginal likelihood of images by Monte Carlo: one compiled function over images and samples.

A proposal is a callable, x [b, ...] -> draw, and draw(num_samples, seed) gives z [s, b, d] and the log-ratio
log p(z) - log r(z|x) [s, b] of the distribution r that z was drawn from. With it p(x) is the mean of
p(x|z) p(z) / r(z|x), whatever r: `posterior_proposal` takes r = q(z|x), `prior_proposal` r = p(z).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_vae import posteriors
from keras_vae.noise import SeedNoise
from keras_vae.posteriors import Posterior

Tensor = Any
Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]

ROWS = 1000  # images times samples decoded at a time: their activations stay in the processor's cache
CHUNKS_AT_ONCE = 4  # so that no core waits for another at the end of each operation
ROWS_IN_A_CALL = 100_000  # about a second's work; between two calls it can be stopped
BOUND_SIZES = (1, 10, 100, 1000, 5000)


def posterior_proposal(
    encode: Callable[..., Any], log_prior: Callable[..., Any], posterior: Posterior | str = "diagonal_gaussian"
) -> Callable[[Any], Callable[[int, Any], tuple[Tensor, Tensor]]]:
    """Proposes z ~ q(z|x): importance sampling.

    Args:
        encode: Callable, x [b, ...] -> the heads of q(z|x): (z_mean, z_log_var), each [b, d], of a diagonal Gaussian.
        log_prior: Callable, z [s, b, d] -> log p(z), [s, b], nats.
        posterior: Name of a posterior or a posterior layer: q(z|x).

    Returns:
        A proposal.

    Reference:
        Burda et al., Importance Weighted Autoencoders, 2016, equation 8; Rezende et al., Stochastic Backpropagation,
        2014, appendix E.
    """

    posterior = posteriors.get(posterior)

    def propose(x: Tensor) -> Callable[[int, Any], tuple[Tensor, Tensor]]:
        heads = encode(x)

        def draw(num_samples: int, seed: Any) -> tuple[Tensor, Tensor]:
            z, log_posterior = posterior.sample(heads, num_samples, SeedNoise(seed))
            return z, log_prior(z) - log_posterior

        return draw

    return propose


def prior_proposal(sample_prior: Any) -> Callable[[Any], Callable[[int, Any], tuple[Tensor, Tensor]]]:
    """Proposes z ~ p(z), whatever the image: direct Monte Carlo, which needs far more samples.

    Args:
        sample_prior: Callable, (num_samples, noise) -> z [num_samples, d]; the noise is a `keras_vae.noise.Noise`.

    Returns:
        A proposal.

    Reference:
        Doersch, Tutorial on Variational Autoencoders, 2016, equation 3 and below.
    """

    def propose(x: Tensor) -> Callable[[int, Any], tuple[Tensor, Tensor]]:
        def draw(num_samples: int, seed: Any) -> tuple[Tensor, Tensor]:
            batch_size = tf.nest.flatten(x)[0].shape[0]
            z = sample_prior(num_samples * batch_size, SeedNoise(seed))
            z = tf.reshape(z, (num_samples, batch_size, z.shape[-1]))
            return z, tf.zeros(tf.shape(z)[:2])

        return draw

    return propose


def estimate(
    images: Any,
    *,
    propose: Any,
    log_likelihood: Tensor,
    num_samples: int,
    seed: Any = 0,
    batch_size: int | None = None,
    chunk: Any = None,
    done: dict[str, Any] | None = None,
    on_batch: Callable[[dict[str, Any]], None] | None = None,
) -> Arrays:
    """Estimates log p(x) of each image: a lower bound in expectation, tighter with more samples.

    Memory does not grow with the number of images, and with the number of samples only by the weights of one batch.

    Args:
        images: Float32 [n, ...], pixels in [0, 1]; or a pair of images and labels [n], and then x is such a pair, too.
        propose: A proposal; see above.
        log_likelihood: Callable, (x [b, ...], z [s, b, d]) -> log p(x|z), [s, b], nats.
        num_samples: Int, k.
        seed: Int seed of the samples.
        batch_size: Int, images at a time; None for as many as suit the samples. The draws depend on it.
        chunk: Int, samples at a time; None for as many as suit the cache. The draws depend on it.
        done: What `on_batch` was called with last, to go on from there; None for the beginning.
        on_batch: Callable, called after each batch with the results so far, or None.

    Returns:
        Dict of float64 arrays: `log_marginal` [n], nats; `effective_samples` [n], the number of equally weighted
        samples that the weights are worth; `bound` [n, m], nats, the estimates by the first m of 1, 10, 100, 1000 and
        5000 samples that are no more than `num_samples`: means over disjoint groups of the same samples.

    Reference:
        Burda et al., Importance Weighted Autoencoders, 2016, equation 8 and theorem 1; Kong, A Note on Importance
        Sampling using Standardized Weights, 1992, for the effective sample size.
    """
    batch_size = batch_size or min(max(ROWS_IN_A_CALL // num_samples, 20), 500)
    chunk = min(chunk or max(ROWS // batch_size, 1), num_samples)
    num_chunks = -(-num_samples // chunk)

    @tf.function(autograph=False)
    def batch_log_weights(x: Tensor, first_image: Any) -> Tensor:
        draw = propose(x)

        def chunk_log_weights(index: Any) -> Tensor:
            z, log_ratio = draw(chunk, tf.random.fold_in(tf.random.fold_in([seed, 0], first_image), index))
            return log_likelihood(x, z) + log_ratio  # (s, b)

        log_weights = tf.map_fn(
            chunk_log_weights, tf.range(num_chunks), fn_output_signature=tf.float32, parallel_iterations=CHUNKS_AT_ONCE
        )
        return tf.reshape(log_weights, (-1, log_weights.shape[-1]))[:num_samples]

    results = done or {}
    count = len(tf.nest.flatten(images)[0])
    for first in range(len(results.get("log_marginal", ())), count, batch_size):
        x = tf.nest.map_structure(lambda array: tf.convert_to_tensor(array[first : first + batch_size]), images)  # noqa: B023
        batch = summarise(batch_log_weights(x, tf.constant(first)).numpy())
        results = {name: np.concatenate([results[name], new]) if results else new for name, new in batch.items()}
        if on_batch is not None:
            on_batch(results)
    return results


def summarise(log_weights: Array) -> Arrays:
    """What the log-weights [k, b] of b images say: the dict of `estimate`."""
    num_samples = len(log_weights)
    highest = log_weights.max(axis=0)
    weights = np.exp(log_weights - highest, dtype="float64")  # (k, b)
    return {
        "log_marginal": _log_mean_exp(log_weights, axis=0),
        "effective_samples": weights.sum(axis=0) ** 2 / np.square(weights).sum(axis=0),
        "bound": np.stack([_grouped_bound(log_weights, size) for size in bound_sizes(num_samples)], axis=-1),
    }


def bound_sizes(num_samples: int) -> list[int]:
    """The numbers of samples for which `estimate` gives a bound."""
    return [size for size in BOUND_SIZES if size <= num_samples]


def _grouped_bound(log_weights: Array, size: int) -> Array:
    groups = len(log_weights) // size
    grouped = log_weights[: groups * size].reshape(groups, size, -1)
    return np.asarray(_log_mean_exp(grouped, axis=1).mean(axis=0))


def _log_mean_exp(log_weights: Array, axis: int) -> Array:
    highest = np.maximum(log_weights.max(axis=axis, keepdims=True), np.finfo("float32").min)  # all may be -inf
    mean = np.exp(log_weights - highest, dtype="float64").mean(axis=axis, keepdims=True)
    with np.errstate(divide="ignore"):
        return np.asarray((np.log(mean) + highest).squeeze(axis))


def log_marginal(
    images: Any,
    *,
    encode: Callable[..., Any],
    log_likelihood: Tensor,
    log_prior: Callable[..., Any],
    num_samples: int,
    posterior: Posterior | str = "diagonal_gaussian",
    **options: Any,
) -> Array:
    """Importance-sampled estimate of log p(x) of each image: a lower bound in expectation, tighter with more samples.

    log p(x) is estimated by log(1/k sum_i p(x|z_i) p(z_i) / q(z_i|x)), z_i ~ q(z|x), k = num_samples.

    Args:
        images: Float32 [n, ...], pixels in [0, 1].
        encode, log_prior, posterior: As in `posterior_proposal`.
        log_likelihood, num_samples: As in `estimate`.
        **options: Everything else that `estimate` takes.

    Returns:
        Float64 [n], nats.

    Example:

    >>> import numpy as np, tensorflow as tf
    >>> from keras_vae import evaluation, gaussian
    >>> zeros = lambda x: tf.zeros((x.shape[0], 1))  # x does not depend on z, and q is the prior
    >>> estimates = evaluation.log_marginal(
    ...     np.zeros((2, 3), "float32"),
    ...     encode=lambda x: (zeros(x), zeros(x)),
    ...     log_likelihood=lambda x, z: tf.fill(tf.shape(z)[:-1], -7.0),
    ...     log_prior=lambda z: gaussian.log_prob(x=z, mean=0.0, log_var=tf.zeros_like(z)),
    ...     num_samples=10,
    ... )
    >>> estimates.tolist()
    [-7.0, -7.0]

    Reference:
        Burda et al., Importance Weighted Autoencoders, 2016, equation 8.
    """
    propose = posterior_proposal(encode, log_prior, posterior)
    return estimate(images, propose=propose, log_likelihood=log_likelihood, num_samples=num_samples, **options)[
        "log_marginal"
    ]
