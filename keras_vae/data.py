"""Images from tensorflow-datasets, folders, .npy and .npz files or scikit-learn, and the batches drawn from them.

`open_dataset` finds the images and keeps train and test apart; `batches` turns one split into a `tf.data.Dataset`.
Every batch is a pure function of (seed, step), so a resumed run sees what an uninterrupted one would have seen.
This module knows no model.
"""

import contextlib
import dataclasses
import difflib
import hashlib
import io
import itertools
import os
import re
import sys
import threading
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_vae.config import BINARIZATIONS, InputError

MEMORY_LIMIT = 4 * 2**30  # bytes of pixels in a data set; beyond it, files are read batch by batch
SUFFIXES = (".png", ".jpg", ".jpeg")
BLOCK = 1000  # images handled at once where a whole data set is converted


class LazyImages:
    """Images that are read when indexed: `images[positions]` is an array [b, h, w, c] of `dtype`, as of an ndarray."""

    def __init__(self, read, index, image_shape, dtype):
        self._read, self._index = read, index
        self.shape, self.dtype = (len(index), *image_shape), np.dtype(dtype)

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
    >>> digits.image_shape, len(digits.train), digits.class_names[:3]
    ((28, 28, 1), 1500, ('0', '1', '2'))
    """

    name: str
    source: str
    train: Split
    test: Split
    class_names: tuple[str, ...] | None = None
    fallback: str | None = None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        return tuple(int(size) for size in self.train.images.shape[1:])


def open_dataset(
    dataset="auto", *, mnist_dir=None, data_dir=None, image_size=None, test_fraction=0.1, seed=0,
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
    >>> open_dataset("digits", image_size=16).image_shape
    (16, 16, 1)
    """
    dataset = os.fspath(dataset)
    _check_int("seed", seed, 0)
    if image_size is not None:
        _check_int("image_size", image_size, 1)
    if not 0 < test_fraction < 1:
        raise InputError(f"Invalid value for test_fraction: expected a number in (0, 1). Received: {test_fraction!r}")
    if dataset == "digits":
        return _open_digits(image_size)
    hold_out = (test_fraction, seed)
    mnist_dir = mnist_dir or os.environ.get("KERAS_VAE_MNIST_DIR") or None
    if dataset == "auto":
        try:
            return _open_tfds("mnist", mnist_dir, data_dir, image_size, hold_out, memory_limit)
        except _Unavailable as error:
            return dataclasses.replace(_open_digits(image_size), fallback=str(error))
    path = Path(dataset).expanduser()
    looks_like_path = "/" in dataset or os.sep in dataset or path.suffix in (".npy", ".npz")
    if not (looks_like_path and path.exists()):
        import tensorflow_datasets as tfds

        known = tfds.list_builders(with_community_datasets=False)
        if re.split("[/:]", dataset)[0] in known:
            return _open_tfds(dataset, mnist_dir, data_dir, image_size, hold_out, memory_limit)
        if looks_like_path and not path.exists():
            raise InputError(f"Invalid value for dataset: there is no file or folder {dataset!r}.")
        if not path.exists():
            close = difflib.get_close_matches(dataset.lower(), ["auto", "digits", *known], n=3)
            hint = f" Close matches: {', '.join(close)}." if close else ""
            raise InputError(
                f"Invalid value for dataset: expected auto, digits, mnist or another image set of tensorflow-datasets, "
                f"or the path of a folder of images, an .npy or an .npz file. Received: {dataset!r}.{hint}"
            )
    if path.is_dir():
        return _open_folder(path, image_size, hold_out, memory_limit)
    if path.suffix in (".npy", ".npz"):
        return _open_array(path, image_size, hold_out, memory_limit)
    raise InputError(f"Invalid value for dataset: expected a folder, an .npy or an .npz file. Received: {dataset!r}")


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
    _check_int("batch_size", batch_size, 1)
    _check_int("seed", seed, 0)
    if first_step is not None:
        _check_int("first_step", first_step, 0)
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
            index = tf.random.experimental.index_shuffle(index, tf.stack([tf.cast(seed, tf.int64), epoch]), n - 1)
        if resident is None:
            x = tf.numpy_function(lambda positions: images[positions], [index], images.dtype, stateful=False)
            x.set_shape((None, *images.shape[1:]))
        else:
            x = tf.gather(resident, index)
        x = binarize(_to_pixels(x, tf.cast), binarization, tf.stack([tf.cast(draw_seed, tf.int64), step]))
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
    return numbers.map(batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(tf.data.AUTOTUNE)


def load(
    dataset="auto", batch_size=128, *, binarization="none", labels=False, seed=0, mnist_dir=None, data_dir=None,
    image_size=None, test_fraction=0.1, memory_limit=MEMORY_LIMIT,
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
        dataset, mnist_dir=mnist_dir, data_dir=data_dir, image_size=image_size, test_fraction=test_fraction, seed=seed,
        memory_limit=memory_limit,
    )
    options = {"seed": seed, "binarization": binarization, "labels": labels}
    return batches(images.train, batch_size, shuffle=True, **options), batches(images.test, batch_size, **options)


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
    seed = tf.stack([seed, tf.zeros_like(seed)]) if seed.shape.rank == 0 else seed
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


def _resize(images, size):
    """[n, h, w, c] of uint8 or float32 in [0, 1] to uint8 [n, size, size, c]; an ndarray or a tensor to a tensor."""
    scale = 1.0 if images.dtype == np.uint8 else 255.0
    resized = tf.image.resize(images, (size, size), antialias=True) * scale
    return tf.cast(tf.clip_by_value(tf.round(resized), 0.0, 255.0), tf.uint8)


def _hold_out(images, labels, test_fraction, seed):
    """(train, test) by a seeded permutation, at least one image in each. RandomState: the same in any numpy version."""
    order = np.random.RandomState(seed).permutation(len(images))
    count = min(max(1, round(len(images) * test_fraction)), len(images) - 1)
    return (
        _subset(images, labels, np.sort(order[count:]), "train"),
        _subset(images, labels, np.sort(order[:count]), "test"),
    )


def _subset(images, labels, index, name):
    part = images.subset(index) if isinstance(images, LazyImages) else images[index]
    return Split(part, None if labels is None else labels[index], name)


def _check_int(name, value, minimum):
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not minimum <= value < 2**31:
        raise InputError(f"Invalid value for {name}: expected an int from {minimum} to 2**31 - 1. Received: {value!r}")


def _check_binarization(binarization):
    if binarization not in BINARIZATIONS:
        expected = ", ".join(BINARIZATIONS)
        raise InputError(f"Invalid value for binarization: expected one of: {expected}. Received: {binarization!r}")


def _open_digits(image_size):
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = _resize((digits.images[..., None] / 16).astype(np.float32), 20)  # 20 in 28 pixels, as the digits of MNIST
    images = np.pad(images, ((0, 0), (4, 4), (4, 4), (0, 0)))
    if image_size not in (None, 28):
        images = _resize(images, image_size).numpy()
    # 297 test images, whatever the run's seed and test_fraction are, so that numbers compare.
    train, test = _hold_out(images, digits.target.astype(np.int64), 297 / 1797, 0)
    source = "scikit-learn digits, 8x8 enlarged to 20x20 in a margin of 4"
    return ImageSet("digits", source, train, test, tuple(str(digit) for digit in range(10)))


class _Unavailable(InputError):
    """A data set that is neither prepared nor to be had from elsewhere."""


def _open_tfds(name, mnist_dir, data_dir, image_size, hold_out, memory_limit):
    builder = _prepared(name, mnist_dir, data_dir, image_size)
    splits = builder.info.splits
    if "train" not in splits:
        raise InputError(f"Invalid value for dataset: {name} has no train split. Its splits: {', '.join(splits)}")
    train, class_names = _read_tfds(builder, "train", image_size, memory_limit)
    held_out = next((split for split in ("test", "validation") if split in splits), None)
    if held_out is None:
        train, test = _hold_out(train.images, train.labels, *hold_out)
    else:
        test, _ = _read_tfds(builder, held_out, image_size, memory_limit)
    source = f"tensorflow-datasets {builder.info.full_name} from {builder.data_path}"
    return ImageSet(name.split(":")[0], source, train, test, class_names)


def _prepared(name, mnist_dir, data_dir, image_size):
    """The builder of a prepared set. Preparing is staged by tensorflow-datasets, so that half a set is never used."""
    import tensorflow_datasets as tfds

    def new_builder():
        return tfds.builder(name, data_dir=None if data_dir is None else os.path.expanduser(data_dir))

    with _quiet():
        try:
            builder = new_builder()
        except Exception as error:  # an unknown config or version, a missing package: tfds has no common class
            raise InputError(f"tensorflow-datasets cannot open {name!r}: {_first_line(error)}") from error
        _tfds_shape(builder, image_size)
        if builder.is_prepared():
            return builder
        ways_out = f"Ways out: a copy prepared by tensorflow-datasets in data_dir ({builder.data_path})"
        if builder.name == "mnist":
            ways_out += "; the four official files in a folder named by --mnist-dir or KERAS_VAE_MNIST_DIR"
        ways_out += "; a network connection."
        from_files = builder.name == "mnist" and mnist_dir is not None
        if from_files:
            _check_mnist_files(builder, Path(mnist_dir).expanduser())
        unavailable = InputError if from_files or data_dir else _Unavailable
        parent = next(folder for folder in Path(builder.data_path).parents if folder.exists())
        if not (parent.is_dir() and os.access(parent, os.W_OK)):
            raise unavailable(f"Cannot prepare {name}: {parent} (data_dir) is no folder to write in. {ways_out}")
        reason = None if from_files else _unreachable(next(iter(builder.url_infos or {}), ""))
        if reason:
            raise _Unavailable(f"{name} is not prepared and cannot be downloaded ({reason}). {ways_out}")
        print(f"Preparing {name} (mnist takes about half a minute, once) ...", file=sys.stderr, flush=True)
        if not sys.stderr.isatty():
            tfds.disable_progress_bar()
        config = tfds.download.DownloadConfig(manual_dir=mnist_dir if from_files else None, try_download_gcs=False)
        try:
            builder.download_and_prepare(download_config=config)
        except Exception as error:  # whatever the builder's own code raises
            builder = new_builder()
            if not builder.is_prepared():  # else another process was quicker: its rename made ours fail
                failure = InputError if from_files else _Unavailable
                raise failure(f"{name} could not be prepared: {_first_line(error)}. {ways_out}") from error
        return builder


def _check_mnist_files(builder, folder):
    expected = {info.filename: info for info in builder.url_infos.values()}
    missing = sorted(name for name in expected if not (folder / name).is_file())
    if missing:
        raise InputError(f"Invalid value for mnist_dir: {folder} lacks {', '.join(missing)}. Expected four files.")
    for name, info in sorted(expected.items()):
        content = (folder / name).read_bytes()
        if hashlib.sha256(content).hexdigest() != info.checksum:
            raise InputError(
                f"Invalid value for mnist_dir: {folder / name} is not the official file: expected {int(info.size)} "
                f"bytes with SHA-256 {info.checksum}. Received: {len(content)} bytes, perhaps damaged. Copy it again."
            )


def _unreachable(url):
    """Why `url` cannot be reached, or None. tensorflow-datasets itself would retry for minutes."""
    import requests

    if not url.startswith("http"):
        return None
    answers = []

    def ask():
        try:
            status = requests.head(url, timeout=5).status_code
            answers.append(f"the server answers {status}" if status >= 500 else None)
        except requests.RequestException as error:
            answers.append(type(error).__name__)

    thread = threading.Thread(target=ask, daemon=True)  # a thread, for the look-up of a name has no time limit
    thread.start()
    thread.join(10)
    return answers[0] if answers else "no answer within 10 seconds"


@contextlib.contextmanager
def _quiet():
    """No log messages and announcements of tensorflow-datasets; progress bars and errors stay."""
    from absl import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.FATAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(verbosity)


def _first_line(error):
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:300]}"


def _tfds_shape(builder, image_size):
    """(h, w, c) of a set's images; known before a set is prepared, so that none is downloaded in vain."""
    import tensorflow_datasets as tfds

    features = builder.info.features
    if not isinstance(features, tfds.features.FeaturesDict) or "image" not in features.keys():
        raise InputError(f"Invalid value for dataset: {builder.name} is not a set of single images.")
    shape, dtype = features["image"].shape, features["image"].dtype
    if len(shape) != 3 or shape[2] not in (1, 3) or dtype != np.uint8:
        raise InputError(
            f"Invalid value for dataset: expected uint8 images of 1 or 3 channels. {builder.name} has {shape}, {dtype}."
        )
    shape = shape if image_size is None else (image_size, image_size, shape[2])
    if None in shape:
        raise InputError(f"The images of {builder.name} differ in size. Give image_size (--image-size).")
    return shape


def _read_tfds(builder, split, image_size, memory_limit):
    """(Split, class names) of a prepared set."""
    import tensorflow_datasets as tfds

    features, n = builder.info.features, builder.info.splits[split].num_examples
    shape = _tfds_shape(builder, image_size)
    if n * np.prod(shape) > memory_limit:
        raise InputError(
            f"{builder.name} takes {n * np.prod(shape):,} bytes in memory, over the limit of {memory_limit:,}. "
            "Give a smaller image_size (--image-size), or write the images into a folder, which is streamed."
        )
    label = features["label"] if "label" in features.keys() else None
    label = label if isinstance(label, tfds.features.ClassLabel) else None

    def convert(example):
        image = example["image"]
        image = image if image_size is None else tf.ensure_shape(_resize(image, image_size), shape)
        return image, example["label"] if label else tf.constant(0, tf.int64)

    images, labels, count = np.empty((n, *shape), np.uint8), np.empty(n, np.int64), 0
    try:
        examples = builder.as_dataset(split=split).map(convert, num_parallel_calls=tf.data.AUTOTUNE)
        for image, number in examples.batch(BLOCK).as_numpy_iterator():
            images[count : count + len(image)], labels[count : count + len(image)] = image, number
            count += len(image)
    except (tf.errors.OpError, ValueError) as error:
        raise InputError(f"Damaged: {builder.data_path} ({_first_line(error)}). Delete that folder.") from error
    if count != n:
        raise InputError(f"Damaged: {builder.data_path} has {count} {split} images, not {n}. Delete that folder.")
    name = "train" if split == "train" else "test"
    return Split(images, labels if label else None, name), tuple(label.names) if label else None


def _open_folder(folder, image_size, hold_out, memory_limit):
    from PIL import Image

    files = [path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")]
    files = sorted((path for path in files if path.is_file()), key=lambda path: path.relative_to(folder).parts)
    if len(files) < 2:
        raise InputError(f"Expected a folder of at least 2 PNG or JPEG files. Found in {folder}: {len(files)}")
    parts = [path.relative_to(folder).parts for path in files]
    has_splits = {part[0] for part in parts} == {"train", "test"}
    in_train = np.array([part[0] == "train" for part in parts])
    classes = [part[1:-1] if has_splits else part[:-1] for part in parts]
    class_names, labels = None, None
    if all(classes) and len({each[0] for each in classes}) > 1:  # a single sub-folder says nothing about its images
        class_names = tuple(sorted({each[0] for each in classes}))
        labels = np.array([class_names.index(each[0]) for each in classes], np.int64)

    grey, first_size = True, None
    for path in files:  # headers only
        with _image_errors(path), Image.open(path) as image:
            size, grey = image.size, grey and image.mode in ("1", "L", "LA", "I", "I;16", "I;16B")
        first_size = first_size or size
        if image_size is None and size != first_size:
            (w, h), (other_w, other_h) = first_size, size
            raise InputError(
                f"Images of different sizes: {files[0]} is {w}x{h}, {path} is {other_w}x{other_h}. "
                "Give image_size (--image-size) to resize them all."
            )
    shape = (image_size or first_size[1], image_size or first_size[0], 1 if grey else 3)

    def read(index):
        decoded = np.empty((len(index), *shape), np.uint8)
        for row, number in enumerate(index):
            image = _decode(files[number], grey)
            decoded[row] = image if image.shape == shape else _resize(image[None], image_size)[0]
        return decoded

    images = LazyImages(read, np.arange(len(files)), shape, np.uint8)
    if len(files) * np.prod(shape) <= memory_limit:
        images = images[:]
    if has_splits:
        train, test = (_subset(images, labels, np.flatnonzero(in_train == side), name)
                       for side, name in ((True, "train"), (False, "test")))
    else:
        train, test = _hold_out(images, labels, *hold_out)
    return ImageSet(folder.resolve().name, f"folder {folder}, {len(files)} images", train, test, class_names)


def _decode(path, grey):
    """One file as uint8 [h, w, 1 or 3]; transparency is dropped, 16 bits become 8."""
    from PIL import Image

    with _image_errors(path), Image.open(path) as image:
        if image.mode.startswith("I"):
            image = Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8))
        if image.mode == "P":
            image = image.convert("RGBA")  # a palette may hold transparency
        array = np.asarray(image.convert("L" if grey else "RGB"))
    return array[..., None] if grey else array


@contextlib.contextmanager
def _image_errors(path):
    from PIL import Image

    try:
        yield
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"Cannot read the image {path}: {_first_line(error)}. Replace or remove it.") from error


def _open_array(path, image_size, hold_out, memory_limit):
    test, test_labels = None, None
    try:
        content = np.load(path, mmap_mode="r", allow_pickle=False)
        if isinstance(content, np.lib.npyio.NpzFile):
            with content:
                images, labels, test, test_labels = _read_npz(content, path, memory_limit)
        else:
            images, labels = content, None
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"Cannot read {path} (damaged?): {_first_line(error)}. Expected arrays of numbers.") from error
    images = _check_array(images, path, image_size, memory_limit)
    labels = _check_labels(labels, images, path)
    if test is None:
        if len(images) < 2:
            raise InputError(f"Expected at least 2 images. Found in {path}: {len(images)}")
        train, test = _hold_out(images, labels, *hold_out)
    else:
        test = _check_array(test, path, image_size, memory_limit)
        train, test = Split(images, labels, "train"), Split(test, _check_labels(test_labels, test, path), "test")
        if train.images.shape[1:] != test.images.shape[1:]:
            raise InputError(f"{path}: x_train and x_test differ: {train.images.shape[1:]}, {test.images.shape[1:]}")
    return ImageSet(path.stem, f"file {path}", train, test)


def _read_npz(content, path, memory_limit):
    """(images, labels, test images, test labels) of an .npz file, None where there are none."""
    size = sum(member.file_size for member in content.zip.infolist())
    if size > memory_limit:
        raise InputError(
            f"{path} takes {size:,} bytes in memory, over the limit of {memory_limit:,}. Use .npy, which is streamed."
        )
    names = content.files
    images = next((name for name in ("images", "x_train") if name in names), names[0] if len(names) == 1 else None)
    if images is None:
        raise InputError(f"{path}: expected an array images or x_train, or one array only. Found: {', '.join(names)}")
    keys = ("x_train", "y_train", "x_test", "y_test") if images == "x_train" else (images, "labels", None, None)
    return tuple(content[key] if key in names else None for key in keys)


def _check_labels(labels, images, path):
    if labels is None:
        return None
    if labels.size != len(images) or labels.dtype.kind not in "iu":
        raise InputError(f"{path}: expected {len(images)} integer labels. Received: {labels.dtype} {labels.shape}")
    return labels.reshape(-1).astype(np.int64)


def _check_array(array, path, image_size, memory_limit):
    """The images of an array [n, h, w] or [n, h, w, c], checked, in memory where they fit."""
    array = array[..., None] if array.ndim == 3 else array
    if array.ndim != 4 or array.shape[3] not in (1, 3) or 0 in array.shape:
        raise InputError(f"{path}: expected images [n, h, w] or [n, h, w, c], c 1 or 3. Received shape: {array.shape}")
    if array.dtype != np.uint8 and array.dtype not in (np.float16, np.float32, np.float64):
        raise InputError(
            f"{path}: expected uint8 in 0..255 or float16, float32 or float64 in [0, 1]. Received: {array.dtype}"
        )
    dtype = np.uint8 if array.dtype == np.uint8 or image_size else np.float32
    shape = array.shape[1:] if image_size is None else (image_size, image_size, array.shape[3])
    in_memory = len(array) * np.prod(shape) * np.dtype(dtype).itemsize <= memory_limit
    images = np.empty((len(array), *shape), dtype) if in_memory else None

    def read(index):
        block = np.asarray(array[index])
        block = block if block.dtype == np.uint8 else block.astype(np.float32)
        return block if image_size is None else _resize(block, image_size).numpy()

    largest = 0
    for start in range(0, len(array), BLOCK):
        rows = slice(start, start + BLOCK)
        block = array[rows]
        low, high = block.min(), block.max()  # NaN where there is one
        largest = max(largest, high)
        if array.dtype != np.uint8 and not (low >= 0 and high <= 1):
            raise InputError(
                f"{path}: expected floating-point pixels in [0, 1] (or uint8 in 0..255). Received: images {start} to "
                f"{start + len(block) - 1} range from {low} to {high}"
            )
        if in_memory:
            images[rows] = read(rows)
    if array.dtype == np.uint8 and largest == 1:
        raise InputError(f"{path}: expected uint8 pixels in 0..255. Received: 0 and 1 only. Multiply them by 255.")
    return images if in_memory else LazyImages(read, np.arange(len(array)), shape, dtype)
