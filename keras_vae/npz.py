"""Reading .npz files that others wrote: what a header claims is checked before memory is taken for it."""

import math
import zipfile
import zlib

import numpy as np

DEFLATE_RATIO = 1100  # no deflated file grows by more (it is 1,032)
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    KeyError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    SyntaxError,
)


def names(path):
    """Names of the arrays in an .npz file.

    Raises:
        ValueError: if it is no such file.
        OSError: if it cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as file:
            return [name.removesuffix(".npy") for name in file.namelist()]
    except ERRORS as error:
        raise ValueError(f"no .npz file: {error}") from None


def headers(path, chosen=None):
    """What an .npz file says of its arrays: name -> (shape, dtype).

    Args:
        path: Path of the file.
        chosen: Names of arrays, or None for all.

    Raises:
        ValueError: if it is no such file, or if an array claims to be larger than it can be, or holds Python objects.
        OSError: if it cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as file:
            members = {member.filename.removesuffix(".npy"): member for member in file.infolist()}
            return {name: _header(file, members[name]) for name in (members if chosen is None else chosen)}
    except ERRORS as error:
        raise ValueError(f"no .npz file: {error}") from None


def read(path, chosen=None):
    """The arrays in an .npz file: name -> array. Nothing in it is executed. Args and errors are those of `headers`."""
    checked = headers(path, chosen)
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in checked}
    except ERRORS as error:
        raise ValueError(f"damaged: {error}") from None


def _header(file, member):
    """Shape and dtype in a member's header, if the member can be as large as that."""
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{member.filename} is compressed in an unknown way")
    with file.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        if version not in HEADERS:
            raise ValueError(f"{member.filename} has a header of an unknown version")
        shape, _, dtype = HEADERS[version](stream)
        held, claimed = member.file_size - stream.tell(), math.prod(shape) * dtype.itemsize
    if dtype.hasobject:
        raise ValueError(f"{member.filename} holds Python objects, which are not read")
    if held != claimed or member.file_size > DEFLATE_RATIO * (member.compress_size + 1):
        raise ValueError(f"{member.filename} claims an array of {claimed:,} bytes, which it does not hold")
    return shape, dtype
