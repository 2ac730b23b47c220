"""Likelihoods p(x|z): what a decoder output means.

A decoder emits parameters of the shape `param_shape(event_shape)`; the likelihood turns them into a true
log-probability, a mean and samples. x has any event shape: images, vectors, sequences. A new likelihood is one class
and one row of `LIKELIHOODS` below.
"""

from typing import Any

from keras_vae import named
from keras_vae.likelihoods.base import Likelihood, Tensor
from keras_vae.likelihoods.bernoulli import Bernoulli, ContinuousBernoulli
from keras_vae.likelihoods.discretized_logistic import DiscretizedLogistic
from keras_vae.likelihoods.gaussian import Gaussian

__all__ = [
    "LIKELIHOODS",
    "Bernoulli",
    "ContinuousBernoulli",
    "DiscretizedLogistic",
    "Gaussian",
    "Likelihood",
    "Tensor",
    "get",
]

LIKELIHOODS = {
    "bernoulli": Bernoulli,
    "continuous_bernoulli": ContinuousBernoulli,
    "gaussian": Gaussian,
    "discretized_logistic": DiscretizedLogistic,
}


def get(identifier: Any, **options: Any) -> Likelihood:
    """Returns a likelihood by name, made with `options`, or the likelihood itself.

    Raises:
        InputError: for an unknown name.
    """
    if isinstance(identifier, Likelihood):
        return identifier
    made: Likelihood = named.make("likelihood", identifier, LIKELIHOODS, options)
    return made
