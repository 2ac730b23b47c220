"""Folders of PNG and JPEG files, .npy and .npz files."""

import contextlib
import math

import numpy as np

from keras_vae import npz
from keras_vae.config import InputError
from keras_vae.data.errors import first_line
from keras_vae.data.images import BLOCK, ImageSet, LazyImages, Split, in_memory, resize, take
from keras_vae.event_shapes import kind_of

SUFFIXES = (".png", ".jpg", ".jpeg")
FORMATS = ("PNG", "JPEG")  # whatever the name says: Pillow would run other programs for some
# Arrays of an .npz file: those of the training split, or of all examples, then labels, and the same of the test split.
NAMES = {
    "x_train": ("x_train", "y_train", "x_test", "y_test"),
    "images": ("images", "labels", None, None),
    "x": ("x", "y", None, None),
}
FLOAT32_MAX = float(np.finfo(np.float32).max)
MAX_PIXELS = 2**26  # of one image: some hundred bytes of PNG can hold one that fills the memory


def open_folder(folder, image_size, memory_limit):
    """An `ImageSet`; its test is None unless the folder holds the folders train and test alone."""
    files = [path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")]
    files = sorted((path for path in files if path.is_file()), key=lambda path: path.relative_to(folder).parts)
    if len(files) < 2:
        raise InputError(f"Expected a folder of at least 2 PNG or JPEG files. Found in {folder}: {len(files)}")
    parts = [path.relative_to(folder).parts for path in files]
    has_splits = {part[0] for part in parts} == {"train", "test"}
    classes = [part[1:-1] if has_splits else part[:-1] for part in parts]
    class_names, labels = None, None
    if all(classes) and len({each[0] for each in classes}) > 1:  # a single sub-folder says nothing about its images
        class_names = tuple(sorted({each[0] for each in classes}))
        labels = np.array([class_names.index(each[0]) for each in classes], np.int64)
    shape = _shape_of_all(files, image_size)

    def read(index):
        decoded = np.empty((len(index), *shape), np.uint8)
        for row, number in enumerate(index):
            image = _decode(files[number], channels=shape[2])
            decoded[row] = image if image.shape == shape else resize(image, image_size)
        return decoded

    images = in_memory(LazyImages(read, np.arange(len(files)), shape, np.uint8), memory_limit)
    train, test = Split(images, labels), None
    if has_splits:
        in_train = np.array([part[0] == "train" for part in parts])
        train, test = take(train, np.flatnonzero(in_train), "train"), take(train, np.flatnonzero(~in_train), "test")
    return ImageSet(folder.resolve().name, f"folder {folder}, {len(files)} images", train, test, class_names)


def _shape_of_all(files, image_size):
    """(h, w, c) that the files are read with, from their headers: grey only where all of them are."""
    from PIL import Image

    grey, first_size = True, None
    for path in files:
        with _image_errors(path), Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width}x{image.height} pixels are more than {MAX_PIXELS:,}")
            size, grey = image.size, grey and image.mode in ("1", "L", "LA", "I", "I;16", "I;16B")
        first_size = first_size or size
        if image_size is None and size != first_size:
            (w, h), (other_w, other_h) = first_size, size
            raise InputError(
                f"Images of different sizes: {files[0]} is {w}x{h}, {path} is {other_w}x{other_h}. "
                "Give image_size (--image-size) to resize them all."
            )
    return image_size or first_size[1], image_size or first_size[0], 1 if grey else 3


def _decode(path, channels):
    """One file as uint8 [h, w, channels]; transparency is dropped, 16 bits become 8."""
    from PIL import Image

    with _image_errors(path), Image.open(path, formats=FORMATS) as image:
        if image.mode.startswith("I"):
            image = Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8))
        if image.mode == "P":
            image = image.convert("RGBA")  # a palette may hold transparency
        array = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    return array.reshape(*array.shape[:2], channels)


@contextlib.contextmanager
def _image_errors(path):
    from PIL import Image

    try:
        yield
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"Cannot read the image {path}: {first_line(error)}. Replace or remove it.") from error


def open_array(path, image_size, memory_limit):
    """An `ImageSet`; its test is None unless the file is an .npz with x_test."""
    try:
        content = _read_npz(path, memory_limit) if path.suffix == ".npz" else (_read_npy(path), None, None, None)
    except InputError:
        raise
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"Cannot read {path} (damaged?): {first_line(error)}. Expected arrays of numbers.") from error
    images, labels, test_images, test_labels = content
    train, test = _to_split(images, labels, "train", path, image_size, memory_limit), None
    if test_images is not None:
        test = _to_split(test_images, test_labels, "test", path, image_size, memory_limit)
        if train.images.shape[1:] != test.images.shape[1:]:
            raise InputError(f"{path}: x_train and x_test differ: {train.images.shape[1:]}, {test.images.shape[1:]}")
    elif len(train) < 2:
        raise InputError(f"Expected at least 2 examples. Found in {path}: {len(train)}")
    return ImageSet(path.stem, f"file {path}", train, test)


def _read_npy(path):
    """The array of an .npy file, on the disk."""
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(array, np.ndarray):
        raise ValueError("this is an .npz file: give it that ending")
    return array


def _read_npz(path, memory_limit):
    """(x, labels, x of the test split, its labels) of an .npz file, None where there are none."""
    names = npz.names(path)
    x = next((name for name in NAMES if name in names), names[0] if len(names) == 1 else None)
    if x is None:
        raise InputError(
            f"{path}: expected an array called {' or '.join(NAMES)}, or one array only. Found: {', '.join(names)}"
        )
    keys = NAMES.get(x, (x, "labels", None, None))
    held = [key for key in keys if key in names]
    size = sum(math.prod(shape) * dtype.itemsize for shape, dtype in npz.headers(path, held).values())
    if size > memory_limit:
        raise InputError(
            f"{path} takes {size:,} bytes in memory, over the limit of {memory_limit:,}. Use .npy, which is streamed."
        )
    return tuple(npz.read(path, held).get(key) for key in keys)


def _to_split(array, labels, name, path, image_size, memory_limit):
    """An array of examples and its labels, checked, in memory where they fit."""
    array = _with_channels(array, path, image_size)
    _check_numbers(array, path, image_size)
    is_8_bit = _is_8_bit(array)
    shape = array.shape[1:] if image_size is None else (image_size, image_size, array.shape[3])

    def read(index):
        block = np.asarray(array[index])
        block = block if is_8_bit else block.astype(np.float32)
        return block if image_size is None else resize(block, image_size).numpy()

    dtype = np.uint8 if is_8_bit or image_size else np.float32
    x = in_memory(LazyImages(read, np.arange(len(array)), shape, dtype), memory_limit)
    if labels is None:
        return Split(x, None, name)
    if labels.size != len(x) or labels.dtype.kind not in "iu":
        raise InputError(f"{path}: expected {len(x)} integer labels. Received: {labels.dtype} {labels.shape}")
    return Split(x, labels.reshape(-1).astype(np.int64), name)


def _with_channels(array, path, image_size):
    """[n, d], [n, t, f] or [n, h, w, c]; [n, h, w] of 8 bits, or to be resized, are grey images and get an axis."""
    if array.ndim == 3 and (array.dtype == np.uint8 or image_size is not None):
        array = array[..., None]
    if array.ndim not in (2, 3, 4) or 0 in array.shape:
        raise InputError(
            f"{path}: expected vectors [n, d], sequences [n, t, f] or images [n, h, w, c], [n, h, w] if they are "
            f"8-bit. Received shape: {array.shape}"
        )
    if image_size is not None and array.ndim != 4:
        raise InputError(f"{path}: image_size (--image-size) is for images. Received vectors, shape: {array.shape}")
    return array


def _is_8_bit(array):
    """Whether these are pixels in 0..255, which become numbers in [0, 1]; other arrays are numbers as they are."""
    return array.ndim == 4 and array.dtype == np.uint8


def _check_numbers(array, path, image_size):
    """Refuses what no likelihood takes. What the likelihood of a model takes is for `keras_vae.support` to say."""
    if array.dtype.kind not in "uifb":
        raise InputError(f"{path}: expected real numbers: floats, integers or bools. Received: {array.dtype}")
    kind, largest = kind_of(array.shape[1:]), 0
    for start in range(0, len(array), BLOCK):
        block = array[start : start + BLOCK]
        low, high = float(block.min()), float(block.max())  # NaN where there is one
        largest = max(largest, high)
        where = f"{kind}s {start} to {start + len(block) - 1}"
        if not -FLOAT32_MAX <= low <= high <= FLOAT32_MAX:
            raise InputError(
                f"{path}: expected finite numbers within the range of float32. Received: {where} range from {low} to "
                f"{high}. Leave out or fill in what is NaN or infinite."
            )
        if image_size is not None and array.dtype != np.uint8 and not 0 <= low <= high <= 1:
            raise InputError(
                f"{path}: expected pixels in [0, 1], or uint8, to be resized. Received: {where} range from {low} to "
                f"{high}. Leave out image_size (--image-size), or divide 8-bit images by 255."
            )
    if _is_8_bit(array) and largest == 1:
        raise InputError(f"{path}: expected uint8 pixels in 0..255. Received: 0 and 1 only. Multiply them by 255.")
