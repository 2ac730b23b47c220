"""Which data these are: a hash of the images, the labels and the order of a split."""

import hashlib
import math

import numpy as np

from keras_vae.data.images import BLOCK

WHOLE = 2**28  # bytes of pixels up to which all of them are hashed; of more, images evenly spaced over the split


def fingerprint(split, limit=WHOLE):
    """SHA-256 of a split in hexadecimal digits: the same for the same images and labels in the same order.

    Of a split with more than `limit` bytes of pixels it covers as many images as fit in the limit, the first and the
    last among them, and always the number of images and all labels.

    Args:
        split: A `Split`.
        limit: Int, bytes of pixels.

    Example:

    >>> from keras_vae.data import fingerprint, open_dataset
    >>> digits = open_dataset("digits")
    >>> fingerprint(digits.train) == fingerprint(digits.test), len(fingerprint(digits.test))
    (False, 64)
    """
    images, n = split.images, len(split)
    digest = hashlib.sha256(repr((tuple(images.shape), str(images.dtype))).encode())
    size = math.prod(images.shape[1:]) * images.dtype.itemsize
    count = min(n, max(2, limit // size))
    index = np.linspace(0, n - 1, count).round().astype(int)
    for start in range(0, count, BLOCK):
        digest.update(images[index[start : start + BLOCK]].tobytes())
    if split.labels is not None:
        digest.update(np.asarray(split.labels).tobytes())
    return digest.hexdigest()
