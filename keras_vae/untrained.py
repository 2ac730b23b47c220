"""The model of a config before its first step: its networks, where its weights start, and its optimizer."""

import keras
import numpy as np

from keras_vae import data
from keras_vae.config import InputError
from keras_vae.models import build_model
from keras_vae.priors import VampPrior
from keras_vae.runs import Run


def build(config, images):
    """The built model of a config for a data set.

    Raises:
        InputError: for a config that no model can be built of, or a run to start from that has other sizes.
    """
    try:
        model = build_model(config.model, images.event_shape, seed=config.training.seed)
    except ValueError as error:
        raise InputError(str(error)) from None
    if config.model.output_bias == "data_mean":
        some = images.train.images[np.arange(min(10_000, len(images.train)))]
        model.start_at_mean(data.to_pixels(some).mean(axis=0))
    prior = getattr(model, "prior", None)
    if isinstance(prior, VampPrior) and prior.pseudo_inputs.shape[1:] == images.event_shape:
        chosen = np.random.default_rng(config.training.seed).integers(len(images.train), size=prior.num_components)
        prior.start_at(data.to_pixels(images.train.images[np.sort(chosen)]))
    if config.training.start_from is not None:
        _start_from(model, Run.open(config.training.start_from))
    return model


def _start_from(model, run):
    """Gives a model the weights that were trained in another run."""
    trained = run.load_model().trainable_variables
    own = model.trainable_variables
    shapes, found = ([tuple(variable.shape) for variable in variables] for variables in (own, trained))
    if shapes != found:
        raise InputError(
            f"Cannot start from {run.path}: its model has other sizes. Expected weights {shapes}. Received {found}"
        )
    for variable, value in zip(own, trained, strict=True):
        variable.assign(keras.ops.convert_to_numpy(value))


def build_optimizer(training, steps_per_epoch):
    """The optimizer of a config's section `training`, with its schedule of learning rates."""
    rate = training.learning_rate
    if training.schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(rate, training.epochs * steps_per_epoch)
    optimizers = {
        "adam": keras.optimizers.Adam,
        "adamw": keras.optimizers.AdamW,
        "rmsprop": keras.optimizers.RMSprop,
        "sgd": keras.optimizers.SGD,
    }
    return optimizers[training.optimizer](learning_rate=rate)
