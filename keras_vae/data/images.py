"""Images in memory or read when indexed, the splits and sets they form, and how they are resized and held out."""

import math
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

BLOCK = 1000  # images handled at once where a whole data set is converted


class LazyImages:
    """Images that are read when indexed: `images[positions]` is an array [b, h, w, c] of `dtype`, as of an ndarray."""

    def __init__(self, read, index, event_shape, dtype):
        self._read, self._index = read, index
        self.shape, self.dtype = (len(index), *event_shape), np.dtype(dtype)

    def __len__(self):
        return len(self._index)

    def __getitem__(self, positions):
        return self._read(self._index[positions])

    def subset(self, index):
        return LazyImages(self._read, self._index[index], self.shape[1:], self.dtype)


@dataclass(frozen=True, eq=False)
class Split:
    """The images of one split.

    Attributes:
        images: [n, h, w, c], c 1 or 3; uint8 in 0..255 or float32 in [0, 1]. An ndarray, or `LazyImages` where the
            pixels do not fit in memory; both are read with `images[positions]`.
        labels: int64 [n], or None.
        name: "train" or "test"; part of the seed of binarisation, so that the splits never share their draws.

    Example:

    >>> from keras_vae.data import open_dataset
    >>> test = open_dataset("digits").test
    >>> len(test), test.images.shape, test.images.dtype.name, test.labels.dtype.name
    (297, (297, 28, 28, 1), 'uint8', 'int64')
    """

    images: np.ndarray | LazyImages
    labels: np.ndarray | None = None
    name: str = "train"

    def __len__(self):
        return len(self.images)


@dataclass(frozen=True, eq=False)
class ImageSet:
    """A data set: two disjoint splits, and where they came from.

    Attributes:
        name: "mnist", "digits", ..., or the path's last part.
        source: one line for people: where the images came from.
        train, test: the splits.
        class_names: the meaning of the labels, or None.
        fallback: one line saying why `auto` ended at digits, else None.

    Example:

    >>> from keras_vae.data import open_dataset
    >>> digits = open_dataset("digits")
    >>> digits.event_shape, len(digits.train), digits.class_names[:3]
    ((28, 28, 1), 1500, ('0', '1', '2'))
    """

    name: str
    source: str
    train: Split
    test: Split
    class_names: tuple[str, ...] | None = None
    fallback: str | None = None

    @property
    def event_shape(self) -> tuple[int, ...]:
        """Shape of one example, (n,), (t, n) or (height, width, channels)."""
        return tuple(int(size) for size in self.train.images.shape[1:])


def value_range(split):
    """(lowest, highest) value of a split as its batches have them; (0, 1) of values that are all in [0, 1].

    Example:

    >>> from keras_vae.data import open_dataset, value_range
    >>> value_range(open_dataset("digits").train)
    (0.0, 1.0)
    """
    if split.images.dtype == np.uint8:
        return 0.0, 1.0
    blocks = (split.images[start : start + BLOCK] for start in range(0, len(split), BLOCK))
    limits = np.array([(block.min(), block.max()) for block in blocks])
    low, high = float(limits[:, 0].min()), float(limits[:, 1].max())
    return (0.0, 1.0) if low >= 0 and high <= 1 else (low, high)


def in_memory(images, memory_limit):
    """Lazy images as an ndarray, or as they are where that takes more than `memory_limit` bytes."""
    if math.prod(images.shape) * images.dtype.itemsize > memory_limit:
        return images
    array = np.empty(images.shape, images.dtype)
    for start in range(0, len(images), BLOCK):
        array[start : start + BLOCK] = images[start : start + BLOCK]
    return array


def resize(images, size):
    """[n, h, w, c] or [h, w, c] of uint8 or float32 in [0, 1] to a uint8 tensor [..., size, size, c]."""
    scale = 1.0 if images.dtype == np.uint8 else 255.0
    resized = tf.image.resize(images, (size, size), antialias=True) * scale
    return tf.cast(tf.clip_by_value(tf.round(resized), 0.0, 255.0), tf.uint8)


def take(split, index, name):
    """The images of `split` at the positions `index`, as a split called `name`."""
    images = split.images.subset(index) if isinstance(split.images, LazyImages) else split.images[index]
    return Split(images, None if split.labels is None else split.labels[index], name)


def hold_out(split, fraction, seed):
    """(train, test) by a seeded permutation, at least one image in each. RandomState: the same in any numpy version."""
    order = np.random.RandomState(seed).permutation(len(split))
    count = min(max(1, round(len(split) * fraction)), len(split) - 1)
    return take(split, np.sort(order[count:]), "train"), take(split, np.sort(order[:count]), "test")
