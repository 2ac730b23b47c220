"""Pictures into files: a file already there is replaced whole or not at all."""

import io
import pathlib
import warnings

import numpy as np
from PIL import Image

from keras_vae.plotting.style import DPI, invalid


def save_png(array, path):
    """Writes a uint8 array, [H, W] or [H, W, 3], as a PNG; a file already there is replaced whole or not at all."""
    array = np.asarray(array)
    if array.dtype != np.uint8 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)) or not array.size:
        raise invalid("array", "uint8 [H, W] or [H, W, 3]", f"{array.dtype} {list(array.shape)}")
    _write(path, lambda file: Image.fromarray(array).save(file, format="PNG"))


def save_animation(frames, path, milliseconds=250, at_most=60):
    """Writes PNG files of one size as an animated GIF that repeats; the last frame stays longer.

    Args:
        frames: Paths of the PNG files, in order. Where there are more than `at_most`, they are thinned out evenly.
            One that cannot be read, or has another size, is left out with a warning.
        path: A name that ends in .gif; a file already there is replaced whole or not at all.
        milliseconds: How long a frame is shown.
    """
    chosen = np.linspace(0, len(frames) - 1, min(len(frames), at_most)).round().astype(int)
    pictures = [picture for index in chosen if (picture := _opened(frames[index])) is not None]
    pictures = [picture for picture in pictures if picture.size == pictures[-1].size]
    if not pictures:
        raise invalid("frames", "PNG files", [str(frame) for frame in frames])
    first, *others = pictures
    durations = [milliseconds] * len(others) + [6 * milliseconds]
    options = {"save_all": True, "append_images": others, "duration": durations, "loop": 0}
    _write(path, lambda file: first.save(file, format="GIF", **options), suffix=".gif")


def save(figure, path, dpi=DPI):
    """Writes a figure as a transparent PNG; a file already there is replaced whole or not at all.

    >>> import os, tempfile
    >>> from keras_vae.plotting import samples
    >>> save(samples(np.zeros([4, 8, 8, 1])), os.path.join(tempfile.mkdtemp(), "samples.png"))
    """
    _write(path, lambda file: figure.savefig(file, format="png", dpi=dpi, transparent=True))


def _opened(path):
    """A picture of a file, or None with a warning."""
    from keras_vae import files

    try:
        picture = Image.open(io.BytesIO(files.read_bytes(path)), formats=["PNG"])
        picture.load()
        return picture
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        warnings.warn(f"The picture {path} is damaged and left out: {error}", stacklevel=3)
        return None


def _write(path, write, suffix=".png"):
    """Calls `write(file)`; the file appears whole or not at all."""
    path = pathlib.Path(path)
    if path.suffix.lower() != suffix:
        raise invalid("path", f"a name that ends in {suffix}", path)
    from keras_vae import files  # here, so that figures can be drawn without TensorFlow

    with files.writing(path) as file:
        write(file)
