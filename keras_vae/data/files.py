"""Folders of PNG and JPEG files, .npy and .npz files."""

import contextlib
import math

import numpy as np

from keras_vae import npz
from keras_vae.config import InputError
from keras_vae.data.errors import first_line
from keras_vae.data.images import BLOCK, ImageSet, LazyImages, Split, in_memory, resize, take

SUFFIXES = (".png", ".jpg", ".jpeg")
FORMATS = ("PNG", "JPEG")  # whatever the name says: Pillow would run other programs for some
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
        raise InputError(f"Expected at least 2 images. Found in {path}: {len(train)}")
    return ImageSet(path.stem, f"file {path}", train, test)


def _read_npy(path):
    """The array of an .npy file, on the disk."""
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(array, np.ndarray):
        raise ValueError("this is an .npz file: give it that ending")
    return array


def _read_npz(path, memory_limit):
    """(images, labels, test images, test labels) of an .npz file, None where there are none."""
    names = npz.names(path)
    images = next((name for name in ("images", "x_train") if name in names), names[0] if len(names) == 1 else None)
    if images is None:
        raise InputError(f"{path}: expected an array images or x_train, or one array only. Found: {', '.join(names)}")
    keys = ("x_train", "y_train", "x_test", "y_test") if images == "x_train" else (images, "labels", None, None)
    held = [key for key in keys if key in names]
    size = sum(math.prod(shape) * dtype.itemsize for shape, dtype in npz.headers(path, held).values())
    if size > memory_limit:
        raise InputError(
            f"{path} takes {size:,} bytes in memory, over the limit of {memory_limit:,}. Use .npy, which is streamed."
        )
    return tuple(npz.read(path, held).get(key) for key in keys)


def _to_split(array, labels, name, path, image_size, memory_limit):
    """An array of images [n, h, w] or [n, h, w, c] and its labels, checked, in memory where they fit."""
    array = array[..., None] if array.ndim == 3 else array
    _check_images(array, path)
    dtype = np.uint8 if array.dtype == np.uint8 or image_size else np.float32
    shape = array.shape[1:] if image_size is None else (image_size, image_size, array.shape[3])

    def read(index):
        block = np.asarray(array[index])
        block = block if block.dtype == np.uint8 else block.astype(np.float32)
        return block if image_size is None else resize(block, image_size).numpy()

    images = in_memory(LazyImages(read, np.arange(len(array)), shape, dtype), memory_limit)
    if labels is None:
        return Split(images, None, name)
    if labels.size != len(images) or labels.dtype.kind not in "iu":
        raise InputError(f"{path}: expected {len(images)} integer labels. Received: {labels.dtype} {labels.shape}")
    return Split(images, labels.reshape(-1).astype(np.int64), name)


def _check_images(array, path):
    if array.ndim != 4 or array.shape[3] not in (1, 3) or 0 in array.shape:
        raise InputError(f"{path}: expected images [n, h, w] or [n, h, w, c], c 1 or 3. Received shape: {array.shape}")
    is_uint8 = array.dtype == np.uint8
    if not is_uint8 and array.dtype not in (np.float16, np.float32, np.float64):
        raise InputError(
            f"{path}: expected uint8 in 0..255 or float16, float32 or float64 in [0, 1]. Received: {array.dtype}"
        )
    largest = 0
    for start in range(0, len(array), BLOCK):
        block = array[start : start + BLOCK]
        low, high = block.min(), block.max()  # NaN where there is one
        largest = max(largest, high)
        if not is_uint8 and not 0 <= low <= high <= 1:
            raise InputError(
                f"{path}: expected floating-point pixels in [0, 1] (or uint8 in 0..255). Received: images {start} to "
                f"{start + len(block) - 1} range from {low} to {high}"
            )
    if is_uint8 and largest == 1:
        raise InputError(f"{path}: expected uint8 pixels in 0..255. Received: 0 and 1 only. Multiply them by 255.")
