"""Whether the model of a config can be trained on the values and labels of a data set: asked before any work."""

from collections.abc import Iterator

import numpy as np

from keras_vae import data, likelihoods
from keras_vae.config import Config, InputError

BLOCK = 1000  # examples that are looked at at once


def check_values(config: Config, images: data.ImageSet) -> None:
    """Refuses data that the model of a config cannot be trained on, and names the likelihoods that would do.

    Args:
        config: The `Config`.
        images: The data.

    Raises:
        InputError: for values that the likelihood gives no probability, and for values outside of [0, 1] that are to
            be binarised.
    """
    binarization = config.data.binarization
    likelihood = likelihoods.get(config.model.likelihood.to_dict())
    for x in _blocks(images):
        if binarization == "none":
            try:
                likelihood.check(x)
            except InputError as error:
                raise InputError(f"{images.name}: {error}{_others(images)}") from None
        elif not (x.min() >= 0 and x.max() <= 1):
            raise InputError(
                f"{images.name}: binarization {binarization} takes values in [0, 1]. Received values from {x.min()} to "
                f"{x.max()}. Leave out --binarization.{_others(images)}"
            )


def check_labels(config: Config, images: data.ImageSet) -> None:
    """Refuses data that do not have the labels that the model of a config takes."""
    if config.model.condition != "label":
        return
    for split in (images.train, images.test):
        if split.labels is None:
            raise InputError(f"This model needs labels, and {images.name} has none. Use data that have classes.")
        low, high = int(split.labels.min()), int(split.labels.max())
        if low < 0 or high >= config.model.num_classes:
            raise InputError(
                f"{images.name} has labels from {low} to {high}, and num_classes is {config.model.num_classes}. "
                f"Expected: --num-classes {high + 1}"
            )


def _blocks(images: data.ImageSet) -> Iterator[np.ndarray]:
    """The values of both splits, float32 [b, ...]; of 8-bit images, which are all alike, the first of each split."""
    for split in (images.train, images.test):
        last = 1 if split.images.dtype == np.uint8 else len(split)
        for start in range(0, last, BLOCK):
            yield data.to_pixels(split.images[start : start + BLOCK])


def _others(images: data.ImageSet) -> str:
    """The likelihoods that take all values of a data set, as a sentence."""
    fitting = [name for name in likelihoods.LIKELIHOODS if _takes(likelihoods.get(name), images)]
    return f" These values have a probability under --likelihood {' or '.join(fitting)}." if fitting else ""


def _takes(likelihood: likelihoods.Likelihood, images: data.ImageSet) -> bool:
    try:
        for x in _blocks(images):
            likelihood.check(x)
    except InputError:
        return False
    return True
