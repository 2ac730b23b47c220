"""Files of a folder that are not what they say, or unpack to more than anybody's memory."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

import keras_vae
from keras_vae.data import open_dataset


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def folder_with(folder, name, contents):
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / "a.png")
    (folder / name).write_bytes(contents)
    return str(folder)


def test_a_small_file_of_a_huge_image_is_refused_by_its_header(tmp_path):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 9_000, 9_000, 1, 0, 0, 0, 0))
    rows = chunk(b"IDAT", zlib.compress(bytes(9_000 * 1_126)))
    folder = folder_with(tmp_path, "b.png", b"\x89PNG\r\n\x1a\n" + header + rows + chunk(b"IEND", b""))
    with pytest.raises(keras_vae.InputError, match=r"b\.png: .*9000x9000 pixels are more than 67,108,864"):
        open_dataset(folder, image_size=8)


def test_a_file_of_another_format_is_refused_whatever_its_name(tmp_path):
    """Pillow would hand PostScript to Ghostscript."""
    contents = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"
    with pytest.raises(keras_vae.InputError, match=r"Cannot read the image .*b\.png"):
        open_dataset(folder_with(tmp_path, "b.png", contents), image_size=8)
