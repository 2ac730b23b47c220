"""The image sets of tensorflow-datasets, and MNIST from its four official files where there is no network."""

import contextlib
import hashlib
import importlib
import io
import math
import os
import sys
import threading
from importlib import metadata
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_vae import installed
from keras_vae.config import InputError
from keras_vae.data.errors import Unavailable, first_line
from keras_vae.data.images import BLOCK, ImageSet, Split, resize


def known_names():
    tfds = _tensorflow_datasets()
    return tfds.list_builders(with_community_datasets=False)


def _tensorflow_datasets():
    """The module tensorflow_datasets.

    Raises:
        Unsupported: if it is not installed, or cannot be loaded. It then leaves out parts of itself without a word, so
            that what fails would be another thing.
    """
    installed.need("tensorflow_datasets")
    try:
        importlib.import_module("tensorflow_metadata.proto.v0.schema_pb2")  # what it fails on
        import tensorflow_datasets as tfds
    except Exception as error:  # protobuf raises its own
        found = ", ".join(f"{name} {metadata.version(name)}" for name in ("tensorflow-metadata", "protobuf"))
        raise installed.Unsupported(
            f"tensorflow-datasets cannot be loaded ({first_line(error)}). Installed are {found}. Where protobuf is "
            'older than 6, tensorflow-metadata has to be, too: pip install "tensorflow-metadata<1.18"'
        ) from error
    return tfds


def open_prepared(name, mnist_dir, data_dir, image_size, memory_limit):
    """An `ImageSet`, prepared first where it is not yet; its test is None where it has no test split."""
    with _quiet():
        builder = _builder(name, data_dir)
        shape = _image_shape(builder, image_size)  # known before a set is prepared, so that none is downloaded in vain
        if not builder.is_prepared():
            _prepare(builder, name, mnist_dir, data_dir)
            builder = _builder(name, data_dir)
    splits = builder.info.splits
    if "train" not in splits:
        raise InputError(f"Invalid value for dataset: {name} has no train split. Its splits: {', '.join(splits)}")
    held_out = next((split for split in ("test", "validation") if split in splits), None)
    train = _read(builder, "train", shape, image_size, memory_limit)
    test = None if held_out is None else _read(builder, held_out, shape, image_size, memory_limit)
    source = f"tensorflow-datasets {builder.info.full_name} from {builder.data_path}"
    class_names = None if train.labels is None else tuple(builder.info.features["label"].names)
    return ImageSet(name.split(":")[0], source, train, test, class_names)


def _builder(name, data_dir):
    tfds = _tensorflow_datasets()
    try:
        return tfds.builder(name, data_dir=None if data_dir is None else os.path.expanduser(data_dir))
    except Exception as error:  # an unknown config or version, a missing package: tfds has no common class
        raise InputError(f"tensorflow-datasets cannot open {name!r}: {first_line(error)}") from error


def _image_shape(builder, image_size):
    """(h, w, c) of a set's images."""
    tfds = _tensorflow_datasets()
    features = builder.info.features
    if not isinstance(features, tfds.features.FeaturesDict) or "image" not in features:
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


def _prepare(builder, name, mnist_dir, data_dir):
    """Prepares a set. tensorflow-datasets does it in a folder that it renames at the end: half a set is never used."""
    tfds = _tensorflow_datasets()
    ways_out = f"Ways out: a copy prepared by tensorflow-datasets in data_dir ({builder.data_path})"
    files = None
    if builder.name == "mnist":
        ways_out += "; the four official files in a folder named by --mnist-dir or KERAS_VAE_MNIST_DIR"
        files = mnist_dir or os.environ.get("KERAS_VAE_MNIST_DIR")
    ways_out += "; a network connection."
    if files:
        files = Path(files).expanduser()
        _check_mnist_files(builder, files)
    parent = next(folder for folder in Path(builder.data_path).parents if folder.exists())
    if not (parent.is_dir() and os.access(parent, os.W_OK)):
        failure = InputError if files or data_dir else Unavailable
        raise failure(f"Cannot prepare {name}: {parent} (data_dir) is no folder to write in. {ways_out}")
    reason = None if files else _unreachable(next(iter(builder.url_infos or {}), ""))
    if reason:
        raise Unavailable(f"{name} is not prepared and cannot be downloaded ({reason}). {ways_out}")
    print(f"Preparing {name} (mnist takes about half a minute, once) ...", file=sys.stderr, flush=True)
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    config = tfds.download.DownloadConfig(manual_dir=files, try_download_gcs=False)
    try:
        builder.download_and_prepare(download_config=config)
    except Exception as error:  # whatever the builder's own code raises
        if not builder.is_prepared():  # else another process was quicker: its rename made ours fail
            failure = InputError if files else Unavailable
            raise failure(f"{name} could not be prepared: {first_line(error)}. {ways_out}") from error


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


def _read(builder, split, shape, image_size, memory_limit):
    """One split of a prepared set; what is not its train is a test."""
    tfds = _tensorflow_datasets()
    features, n = builder.info.features, builder.info.splits[split].num_examples
    size = n * math.prod(shape)
    if size > memory_limit:
        raise InputError(
            f"{builder.name} takes {size:,} bytes in memory, over the limit of {memory_limit:,}. "
            "Give a smaller image_size (--image-size), or write the images into a folder, which is streamed."
        )
    has_labels = "label" in features and isinstance(features["label"], tfds.features.ClassLabel)

    def convert(example):
        image = example["image"]
        image = image if image_size is None else tf.ensure_shape(resize(image, image_size), shape)
        return image, example["label"] if has_labels else tf.constant(0, tf.int64)

    images, labels, count = np.empty((n, *shape), np.uint8), np.empty(n, np.int64), 0
    try:
        examples = builder.as_dataset(split=split).map(convert, num_parallel_calls=tf.data.AUTOTUNE)
        for image, label in examples.batch(BLOCK).as_numpy_iterator():
            images[count : count + len(image)], labels[count : count + len(image)] = image, label
            count += len(image)
    except (tf.errors.OpError, ValueError) as error:
        raise InputError(f"Damaged: {builder.data_path} ({first_line(error)}). Delete that folder.") from error
    if count != n:
        raise InputError(f"Damaged: {builder.data_path} has {count} {split} images, not {n}. Delete that folder.")
    return Split(images, labels if has_labels else None, "train" if split == "train" else "test")
