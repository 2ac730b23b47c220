"""From the name of a data set, or the path of one, to its images."""

import dataclasses
import difflib
import os
import re
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_vae import installed
from keras_vae.config import InputError
from keras_vae.data.errors import Unavailable, check_int
from keras_vae.data.files import open_array, open_folder
from keras_vae.data.images import ImageSet, Split, hold_out, resize
from keras_vae.data.pipeline import batches
from keras_vae.data.prepared import known_names, open_prepared

MEMORY_LIMIT = 4 * 2**30  # bytes of pixels in a data set; beyond it, files are read batch by batch


def open_dataset(
    dataset="auto",
    *,
    mnist_dir=None,
    data_dir=None,
    image_size=None,
    test_fraction=0.1,
    seed=0,
    memory_limit=MEMORY_LIMIT,
) -> ImageSet:
    """Finds a data set and reads its images.

    Args:
        dataset: `auto` (mnist, or digits where mnist cannot be had), `digits`, `mnist` or another image set of
            tensorflow-datasets, or the path of a folder of PNG and JPEG files, an .npy or an .npz file. A folder's
            sub-folders are its classes, unless they are called train and test: then they are its splits. Write
            `./mnist` for a folder that has the name of a data set.
        mnist_dir: folder with the four official MNIST files, only read while mnist is not yet prepared. The
            environment variable KERAS_VAE_MNIST_DIR also sets it.
        data_dir: folder in which tensorflow-datasets keeps prepared data; by default that package's own.
        image_size: resize images to this height and width in pixels (the aspect ratio is not kept); makes them uint8.
        test_fraction: share of the images, in (0, 1), that is held out where the data set has no test split.
        seed: int that decides which images are held out.
        memory_limit: bytes of pixels that may be held in memory; folders and .npy files beyond it are streamed.

    Returns:
        An `ImageSet`.

    Raises:
        InputError: for an unknown name, for files that are missing, damaged or not images, and for mnist where there
            is no prepared copy, no mnist_dir and no network.

    Example:

    >>> from keras_vae.data import open_dataset
    >>> open_dataset("digits", image_size=16).event_shape
    (16, 16, 1)
    """
    check_int("seed", seed, 0)
    if image_size is not None:
        check_int("image_size", image_size, 1)
    if not 0 < test_fraction < 1:
        raise InputError(f"Invalid value for test_fraction: expected a number in (0, 1). Received: {test_fraction!r}")
    opened = _open(os.fspath(dataset), mnist_dir, data_dir, image_size, memory_limit)
    if opened.test is None:
        train, test = hold_out(opened.train, test_fraction, seed)
        opened = dataclasses.replace(opened, train=train, test=test)
    return opened


def _open(dataset, mnist_dir, data_dir, image_size, memory_limit):
    """The data set; test is None where it has no test split."""
    if dataset == "digits":
        return _open_digits(image_size)
    if dataset == "auto":
        try:
            return open_prepared("mnist", mnist_dir, data_dir, image_size, memory_limit)
        except Unavailable as error:
            return dataclasses.replace(_open_digits(image_size), fallback=str(error))
    path = Path(dataset).expanduser()
    is_array = path.suffix in (".npy", ".npz")
    looks_like_path = is_array or "/" in dataset or os.sep in dataset
    if not (looks_like_path and path.exists()) and re.split("[/:]", dataset)[0] in known_names():
        return open_prepared(dataset, mnist_dir, data_dir, image_size, memory_limit)
    if path.is_dir():
        return open_folder(path, image_size, memory_limit)
    if path.is_file() and is_array:
        return open_array(path, image_size, memory_limit)
    if path.exists():
        raise InputError(
            f"Invalid value for dataset: expected a folder, an .npy or an .npz file. Received: {dataset!r}"
        )
    if looks_like_path:
        raise InputError(f"Invalid value for dataset: there is no file or folder {dataset!r}.")
    close = difflib.get_close_matches(dataset.lower(), ["auto", "digits", *known_names()], n=3)
    hint = f" Close matches: {', '.join(close)}." if close else ""
    raise InputError(
        f"Invalid value for dataset: expected auto, digits, mnist or another image set of tensorflow-datasets, "
        f"or the path of a folder of images, an .npy or an .npz file. Received: {dataset!r}.{hint}"
    )


def _open_digits(image_size):
    installed.need("sklearn")
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = resize((digits.images[..., None] / 16).astype(np.float32), 20)  # 20 in 28 pixels, as the digits of MNIST
    images = np.pad(images, ((0, 0), (4, 4), (4, 4), (0, 0)))
    if image_size not in (None, 28):
        images = resize(images, image_size).numpy()
    # 297 test images, whatever the run's seed and test_fraction are, so that numbers compare.
    train, test = hold_out(Split(images, digits.target.astype(np.int64)), 297 / 1797, seed=0)
    source = "scikit-learn digits, 8x8 enlarged to 20x20 in a margin of 4"
    return ImageSet("digits", source, train, test, tuple(str(digit) for digit in range(10)))


def load(
    dataset="auto",
    batch_size=128,
    *,
    binarization="none",
    labels=False,
    seed=0,
    mnist_dir=None,
    data_dir=None,
    image_size=None,
    test_fraction=0.1,
    memory_limit=MEMORY_LIMIT,
) -> tuple[tf.data.Dataset, tf.data.Dataset]:
    """`open_dataset` and `batches` in one call, for `model.fit`: (train, shuffled; test, in order).

    Args, elements and errors are those of `open_dataset` and `batches`: float32 images [b, h, w, c] in [0, 1], with
    labels=True (images, labels int64 [b]).

    Raises:
        InputError: as `open_dataset` and `batches`.

    Example:

    >>> from keras_vae.data import load
    >>> train, test = load("digits", batch_size=100, binarization="dynamic")
    >>> len(train), len(test), train.element_spec.shape
    (15, 3, TensorShape([None, 28, 28, 1]))
    """
    images = open_dataset(
        dataset,
        mnist_dir=mnist_dir,
        data_dir=data_dir,
        image_size=image_size,
        test_fraction=test_fraction,
        seed=seed,
        memory_limit=memory_limit,
    )
    options = {"seed": seed, "binarization": binarization, "labels": labels}
    return batches(images.train, batch_size, shuffle=True, **options), batches(images.test, batch_size, **options)
