"""Objectives: from the terms of one example to the number that is minimised.

A new objective is one class and one row of `OBJECTIVES` below.
"""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_vae")
class ELBO:
    """loss = reconstruction_loss + beta * kl_loss.

    With `beta` 1 the loss is the negative evidence lower bound; with any other it is not, and is never called so.

    Args:
        beta: Float, at least 0, the weight of the KL term.
        warmup_steps: Int. Over this many training steps the weight rises linearly from 0 to `beta`. Evaluation
            always uses `beta`.

    Example:

    >>> from keras_vae import objectives
    >>> beta_vae = objectives.ELBO(beta=4.0)
    >>> float(beta_vae(reconstruction_loss=80.0, kl_loss=5.0))
    100.0

    Reference:
        Kingma and Welling, Auto-Encoding Variational Bayes, 2014, equation 7; Higgins et al., beta-VAE, 2017,
        equation 4; the warm-up is that of Bowman et al., Generating Sentences from a Continuous Space, 2016.
    """

    def __init__(self, beta=1.0, warmup_steps=0):
        for name, value in (("beta", beta), ("warmup_steps", warmup_steps)):
            if not value >= 0:
                raise ValueError(f"Invalid value for argument `{name}`. Expected at least 0. Received: {name}={value}")
        self.beta = beta
        self.warmup_steps = warmup_steps

    def __call__(self, *, reconstruction_loss, kl_loss, step=None):
        """Loss of each example.

        Args:
            reconstruction_loss: Float [b], -log p(x|z), nats.
            kl_loss: Float [b], KL(q(z|x) || p(z)), nats.
            step: Int scalar tensor, the number of training steps done so far, or None for evaluation.

        Returns:
            Float [b], nats.
        """
        beta = self.beta
        if self.warmup_steps and step is not None:
            beta = beta * ops.minimum(1.0, ops.cast(step, "float32") / self.warmup_steps)
        return reconstruction_loss + beta * kl_loss

    def get_config(self):
        return {"beta": self.beta, "warmup_steps": self.warmup_steps}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


OBJECTIVES = {"elbo": ELBO}


def get(identifier, **options):
    """Returns an objective by name, made with `options`, or the objective itself.

    Raises:
        ValueError: for an unknown name.
    """
    if callable(identifier):
        return identifier
    if identifier not in OBJECTIVES:
        raise ValueError(
            f"Unknown objective. Expected one of: {', '.join(OBJECTIVES)}. Received: objective={identifier!r}"
        )
    return OBJECTIVES[identifier](**options)
