"""From a split to batches of pixels in [0, 1], shuffled and binarised as a pure function of (seed, step)."""

import itertools
import math
import os
import zlib

import numpy as np
import tensorflow as tf

from keras_vae.config import BINARIZATIONS, InputError
from keras_vae.data.errors import check_int
from keras_vae.data.images import BLOCK

PARALLEL = os.cpu_count() or 1  # batches that are made at a time
WAITING_BYTES = 2**25  # of batches that are made and wait: enough for one program of `keras_vae.train.compiled`


def batches(
    split, batch_size, *, shuffle=False, seed=0, binarization="none", labels=False, first_step=None
) -> tf.data.Dataset:
    """The batches of one split.

    Without `first_step`: one pass over the images, the last batch being smaller where they do not divide evenly.
    With shuffle=True the e-th iteration over the result has the order and the draws of epoch e; with shuffle=False
    all iterations are identical. With `first_step=k`: an endless stream of such epochs that starts at global step k.
    Batch k depends on (seed, k) alone, bit for bit, however the stream got there.

    Args:
        split: a `Split`.
        batch_size: images in a batch.
        shuffle: whether each epoch has a new random order.
        seed: int of order and draws.
        binarization: `none`; `threshold`, pixel > 0.5; `dynamic`, at each visit a new Bernoulli draw with the pixel
            as its mean; `fixed`, one such draw per image, the same whatever the order and the batch size.
        labels: whether to add labels.
        first_step: the global step at which an endless stream starts, or None for one pass.

    Returns:
        A dataset of images, float32 [b, h, w, c] in [0, 1]; with labels=True of (images, labels int64 [b]).

    Raises:
        InputError: for an invalid argument, for labels=True where there are none, and for `fixed` where the images do
            not fit in memory.

    Example:

    >>> from keras_vae.data import batches, open_dataset
    >>> images, labels = next(iter(batches(open_dataset("digits").train, 32, shuffle=True, labels=True)))
    >>> images.shape, images.dtype.name, labels.shape
    (TensorShape([32, 28, 28, 1]), 'float32', TensorShape([32]))
    """
    batch_size = check_int("batch_size", batch_size, 1)
    seed = check_int("seed", seed, 0)
    if first_step is not None:
        first_step = check_int("first_step", first_step, 0)
    if labels and split.labels is None:
        raise InputError("Invalid value for labels: this data set has no labels. Expected: labels=False")
    images, n = split.images, len(split)
    steps = -(-n // batch_size)  # in an epoch
    draw_seed = seed * 2**32 + zlib.crc32(split.name.encode())
    if binarization == "fixed":
        images, binarization = _draw_once(images, draw_seed), "none"
    _check_binarization(binarization)
    with tf.device("CPU:0"):
        resident = tf.constant(images) if isinstance(images, np.ndarray) else None
        all_labels = tf.constant(split.labels) if labels else None

    def batch(step):
        epoch, start = step // steps, step % steps * batch_size
        index = tf.range(start, tf.minimum(start + batch_size, n))  # int64 [b]
        if shuffle:
            index = tf.random.experimental.index_shuffle(index, tf.stack([seed, epoch]), n - 1)
        if resident is None:
            x = tf.numpy_function(lambda positions: images[positions], [index], images.dtype, stateful=False)
            x.set_shape((None, *images.shape[1:]))
        else:
            x = tf.gather(resident, index)
        x = binarize(_to_pixels(x, tf.cast), binarization, tf.stack([draw_seed, step]))
        return (x, tf.gather(all_labels, index)) if labels else x

    if first_step is not None:
        numbers = tf.data.Dataset.counter(first_step)
    elif shuffle:
        epochs = itertools.count()  # advanced once an iteration; tf's own random ops would follow the global seed
        numbers = tf.data.Dataset.from_tensors(0).map(
            lambda _: tf.ensure_shape(tf.numpy_function(lambda: np.int64(next(epochs)), [], tf.int64), [])
        )
        numbers = numbers.flat_map(lambda epoch: tf.data.Dataset.range(epoch * steps, (epoch + 1) * steps))
        numbers = numbers.apply(tf.data.experimental.assert_cardinality(steps))
    else:
        numbers = tf.data.Dataset.range(steps)
    options = tf.data.Options()
    options.autotune.enabled = False  # its thread makes the end of an epoch wait, for up to seconds
    waiting = max(PARALLEL, min(64, WAITING_BYTES // (4 * batch_size * math.prod(images.shape[1:]))))
    return numbers.map(batch, num_parallel_calls=PARALLEL, deterministic=True).prefetch(waiting).with_options(options)


def to_pixels(images) -> np.ndarray:
    """A `Split`'s images, or some of them, as numbers, with the arithmetic of `batches`.

    Args:
        images: uint8 in 0..255 or float32 in [0, 1], [n, h, w, c]; an ndarray or all of a `LazyImages`.

    Returns:
        float32 [n, h, w, c] in [0, 1].

    Example:

    >>> from keras_vae.data import open_dataset, to_pixels
    >>> x = to_pixels(open_dataset("digits").test.images[:8])
    >>> x.shape, x.dtype.name, float(x.max())
    ((8, 28, 28, 1), 'float32', 1.0)
    """
    return _to_pixels(np.asarray(images[:]), lambda x, dtype: x.astype(dtype))


def binarize(images, binarization, seed=0) -> tf.Tensor:
    """Pixels to 0 and 1; the only place where it is done.

    Args:
        images: float32 [..., h, w, c] in [0, 1].
        binarization: `none`, `threshold` (pixel > 0.5), `dynamic` or `fixed`. The last two are both one Bernoulli draw
            with the pixel as its mean, a pure function of `seed`: the caller makes it fixed by keeping the seed.
        seed: an int or a pair of ints.

    Returns:
        float32, the shape of `images`.

    Raises:
        InputError: for an unknown binarization.

    Example:

    >>> import numpy as np
    >>> from keras_vae.data import binarize
    >>> binarize(np.array([0.0, 0.5, 0.6, 1.0], "float32"), "threshold").numpy().tolist()
    [0.0, 0.0, 1.0, 1.0]
    """
    _check_binarization(binarization)
    images = tf.convert_to_tensor(images, tf.float32)
    if binarization == "none":
        return images
    if binarization == "threshold":
        return tf.cast(images > 0.5, tf.float32)
    seed = tf.cast(seed, tf.int64)
    seed = tf.stack([seed, 0]) if seed.shape.rank == 0 else seed
    return tf.cast(tf.random.stateless_uniform(tf.shape(images), seed, alg="philox") < images, tf.float32)


def _to_pixels(images, cast):
    """uint8 to float32 by a multiplication, which numpy and tf.data's optimiser round alike (255 gives exactly 1)."""
    return cast(images, np.float32) * np.float32(1 / 255) if images.dtype == np.uint8 else images


def _draw_once(images, seed):
    """The data set as uint8 0 and 255, one draw per image: a function of the seed and the image's position alone."""
    if not isinstance(images, np.ndarray):
        raise InputError(
            "Invalid value for binarization: 'fixed' keeps one draw per image and needs images that fit in memory. "
            "Expected here: none, threshold or dynamic (or a smaller image_size)"
        )
    drawn = np.empty(images.shape, np.uint8)
    with tf.device("CPU:0"):
        for start in range(0, len(images), BLOCK):
            block = slice(start, start + BLOCK)
            drawn[block] = 255 * binarize(to_pixels(images[block]), "fixed", (seed, start)).numpy().astype(np.uint8)
    return drawn


def _check_binarization(binarization):
    if binarization not in BINARIZATIONS:
        expected = ", ".join(BINARIZATIONS)
        raise InputError(f"Invalid value for binarization: expected one of: {expected}. Received: {binarization!r}")
