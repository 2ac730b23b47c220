"""How models are trained: the one step, and the runners of it."""

from keras_vae.train.step import NON_FINITE, NonFiniteLossError, only
from keras_vae.train.trainer import Trainer

__all__ = ["NON_FINITE", "NonFiniteLossError", "Trainer", "only"]
