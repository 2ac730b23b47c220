"""KL(q(z|x) || p(z)) of a posterior and a prior: in closed form where there is one, by the drawn z elsewhere.

The KL comes in parts, as fine as the pair allows: free bits act on each, and the report shows each.
"""

from collections.abc import Callable, Sequence
from typing import Any

from keras import ops

from keras_vae import gaussian
from keras_vae.posteriors import DiagonalGaussian, FullCovariance, Posterior
from keras_vae.priors import Prior, StandardNormal

Tensor = Any
CLOSED_FORMS: dict[tuple[type, type], tuple[Callable[..., Tensor], Callable[..., tuple[int, ...]]]] = {}


def closed_form(posterior: type, prior: type, dims: Callable[..., tuple[int, ...]] | None = None) -> Callable[..., Any]:
    """Decorator: the function gives the KL of this pair of classes. Subclasses do not inherit it.

    The function takes (posterior, prior, heads, z, log_q) and returns the parts, float [b, g], nats. `dims` takes
    (posterior, prior) and returns the number of latent dimensions in each part; by default each part is one.

    Example:

    >>> from keras_vae import kl, posteriors, priors
    >>> (posteriors.DiagonalGaussian, priors.StandardNormal) in kl.CLOSED_FORMS
    True
    """

    def register(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        CLOSED_FORMS[posterior, prior] = function, dims or (lambda q, p: (1,) * p.latent_dim)
        return function

    return register


def groups(posterior: Posterior, prior: Prior, heads: Sequence[Tensor], z: Tensor, log_q: Tensor) -> Tensor:
    """The parts that KL(q(z|x) || p(z)) is the sum of.

    Args:
        posterior, prior: The pair.
        heads: What the encoder returned.
        z: Float [s, b, d], draws from q(z|x).
        log_q: Float [s, b], log q(z|x) of the draws, nats.

    Returns:
        Float [b, g], nats; an estimate by the draws may be negative.
    """
    function, _ = CLOSED_FORMS.get((type(posterior), type(prior)), (by_draws, None))
    return function(posterior, prior, heads, z, log_q)


def group_dims(posterior: Posterior, prior: Prior) -> tuple[int, ...]:
    """Number of latent dimensions in each part of `groups`."""
    pair = type(posterior), type(prior)
    return CLOSED_FORMS[pair][1](posterior, prior) if pair in CLOSED_FORMS else (prior.latent_dim,)


def by_draws(posterior: Posterior, prior: Prior, heads: Sequence[Tensor], z: Tensor, log_q: Tensor) -> Tensor:
    """The mean of log q(z|x) - log p(z) over the draws: one part, float [b, 1]."""
    return ops.mean(log_q - prior.log_prob(z), axis=0)[:, None]


@closed_form(DiagonalGaussian, StandardNormal)
def _diagonal_to_standard(
    posterior: Posterior, prior: Prior, heads: Sequence[Tensor], z: Tensor, log_q: Tensor
) -> Tensor:
    z_mean, z_log_var = posterior.parameters(heads)
    return gaussian.kl_per_dimension(z_mean=z_mean, z_log_var=z_log_var)


@closed_form(FullCovariance, StandardNormal)
def _full_to_standard(posterior: Posterior, prior: Prior, heads: Sequence[Tensor], z: Tensor, log_q: Tensor) -> Tensor:
    # By the chain rule the part of dimension i is the mean KL of q(z_i | z_1, ..., z_{i-1}, x), whose mean is
    # z_mean_i + sum_{j<i} L_ij eps_j and whose variance is L_ii^2.
    z_mean, factor, log_squares = posterior.parameters(heads)
    shifts = ops.sum(ops.square(ops.tril(factor, -1)), axis=-1)
    return gaussian.kl_per_dimension(z_mean=z_mean, z_log_var=log_squares) + 0.5 * shifts
