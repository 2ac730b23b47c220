"""Evaluation: what a trained model is worth, in numbers that say what they are.

The functions take arrays, callables and models by their methods; they know no model class and no trainer.
"""

from keras_vae.evaluation.audit import Finding, audit
from keras_vae.evaluation.cards import card, loss_meaning
from keras_vae.evaluation.latents import active_units, aggregate_posterior, probe_accuracies
from keras_vae.evaluation.marginal import estimate, log_marginal, posterior_proposal, prior_proposal
from keras_vae.evaluation.scores import (
    ESTIMATORS,
    batched,
    evaluate,
    fixed_noise,
    has_likelihood,
    latent_statistics,
    likelihood_name,
    marginal_likelihood,
    mean_squared_error,
    pixel_hash,
)

__all__ = [
    "ESTIMATORS",
    "Finding",
    "active_units",
    "aggregate_posterior",
    "audit",
    "batched",
    "card",
    "estimate",
    "evaluate",
    "fixed_noise",
    "has_likelihood",
    "latent_statistics",
    "likelihood_name",
    "log_marginal",
    "loss_meaning",
    "marginal_likelihood",
    "mean_squared_error",
    "pixel_hash",
    "posterior_proposal",
    "prior_proposal",
    "probe_accuracies",
]
