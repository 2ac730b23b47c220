"""Diagonal Gaussians: log-densities and divergences in nats, one float per example.

In all functions the last axis is the event axis (the latent dimensions) and is summed over; the leading axes are
kept. Every constant is kept, so that what is called log_prob is a log-density.
"""

import math
from typing import Any

from keras import ops

Tensor = Any
LOG_2PI = math.log(2.0 * math.pi)
# Above this a log-variance is bounded, so that exp(z_log_var) and its gradient stay finite in float32.
MAX_LOG_VAR = 20.0


def bounded(log_var: Tensor) -> Tensor:
    """`log_var` with values above `MAX_LOG_VAR` brought down to it, and the gradient left as it is.

    The gradient of an extreme log-variance still points the way back.
    """
    return log_var + ops.stop_gradient(ops.minimum(log_var, MAX_LOG_VAR) - log_var)


def log_prob(*, x: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
    """Log-density of `x` under N(mean, diag(exp(log_var))).

    Args:
        x, mean, log_var: Float tensors [..., d] that broadcast against each other.

    Returns:
        Tensor [...], nats.

    Example:

    >>> import numpy as np
    >>> from keras_vae import gaussian
    >>> print(f"{float(gaussian.log_prob(x=np.zeros(2), mean=np.zeros(2), log_var=np.zeros(2))):.4f}")
    -1.8379
    """
    return -0.5 * ops.sum(LOG_2PI + log_var + ops.square(x - mean) * ops.exp(-log_var), axis=-1)


def mixture_log_prob(z: Tensor, logits: Tensor, means: Tensor, log_vars: Tensor) -> Tensor:
    """Log-density of `z` under sum_k w_k N(means[k], diag(exp(log_vars[k]))), w = softmax(logits).

    The squares are multiplied out into two matrix products, which loses digits where a variance is small. The square of
    the likeliest component is therefore computed again as it stands: in float32 the result is good to 1e-4 nats where
    one component stands out. Where several share z, errors of 0.1 are left at log-variances of -7 and means of order 3.

    Args:
        z: Float [..., d].
        logits: Float [K].
        means, log_vars: Float [K, d].

    Returns:
        Tensor [...], nats.

    Example:

    >>> import numpy as np
    >>> from keras_vae import gaussian
    >>> one = gaussian.mixture_log_prob(np.zeros((1, 2)), np.zeros(3), np.zeros((3, 2)), np.zeros((3, 2)))
    >>> print(f"{float(one[0]):.4f}")
    -1.8379
    """
    precisions = ops.exp(-log_vars)  # (K, d)
    constants = ops.sum(LOG_2PI + log_vars + ops.square(means) * precisions, axis=-1)  # (K,)
    cross = ops.matmul(z, ops.transpose(means * precisions))
    squares = ops.matmul(ops.square(z), ops.transpose(precisions)) - 2.0 * cross + constants  # (..., K)
    log_joint = ops.log_softmax(logits) - 0.5 * squares
    nearest = ops.argmax(log_joint, axis=-1)  # (...)
    multiplied_out = ops.take_along_axis(squares, nearest[..., None], axis=-1)[..., 0]
    mean, log_var = ops.take(means, nearest, axis=0), ops.take(log_vars, nearest, axis=0)
    return ops.logsumexp(log_joint, axis=-1) + log_prob(x=z, mean=mean, log_var=log_var) + 0.5 * multiplied_out


def kl_per_dimension(*, z_mean: Tensor, z_log_var: Tensor) -> Tensor:
    """KL(N(z_mean, exp(z_log_var)) || N(0, 1)) of each latent dimension.

    Args:
        z_mean, z_log_var: Float tensors [..., d].

    Returns:
        Tensor [..., d], nats, never negative beyond rounding.

    Reference:
        Kingma and Welling, Auto-Encoding Variational Bayes, 2014, appendix B.
    """
    # expm1 keeps the digits where z_log_var is near 0 and exp(z_log_var) - 1 would cancel
    return 0.5 * (ops.square(z_mean) + ops.expm1(z_log_var) - z_log_var)


def kl(*, z_mean: Tensor, z_log_var: Tensor) -> Tensor:
    """KL(N(z_mean, diag(exp(z_log_var))) || N(0, I)), summed over the latent dimensions.

    Args:
        z_mean, z_log_var: Float tensors [..., d].

    Returns:
        Tensor [...], nats.

    Example:

    >>> import numpy as np
    >>> from keras_vae import gaussian
    >>> print(f"{float(gaussian.kl(z_mean=np.ones(3), z_log_var=np.zeros(3))):.4f}")
    1.5000

    Reference:
        Kingma and Welling, Auto-Encoding Variational Bayes, 2014, appendix B.
    """
    return ops.sum(kl_per_dimension(z_mean=z_mean, z_log_var=z_log_var), axis=-1)


def log_mean_exp(values: Tensor, axis: int) -> Tensor:
    """log(mean(exp(values))) along `axis`, without overflow.

    Args:
        values: Float tensor, log-weights in nats.
        axis: Int, the axis of the samples.

    Returns:
        Tensor of one axis less, nats.

    Example:

    >>> import numpy as np
    >>> from keras_vae import gaussian
    >>> print(f"{float(gaussian.log_mean_exp(np.array([-1000.0, -1000.0]), axis=0)):.4f}")
    -1000.0000
    """
    values = ops.convert_to_tensor(values)
    return ops.logsumexp(values, axis=axis) - math.log(values.shape[axis])
