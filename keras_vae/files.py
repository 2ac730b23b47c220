"""How files are written: whole or not at all, and on the disk when the call returns. Standard library only.

A file is written beside its place, flushed, renamed, and its folder is flushed. Whatever kills the process or the
machine, there is then the old content or the new one. Everything that a run leaves behind is written here.
"""

import contextlib
import errno
import json
import os
import secrets
import shutil
import stat
import time
from pathlib import Path

TEMPORARY = ".tmp-"  # how the names of files begin that are not yet in their place
OLD = 3600  # seconds after which a temporary file is taken for that of a process that was killed


@contextlib.contextmanager
def replacing(path):
    """A context that gives the name of a new file to write, which then takes the place of `path`.

    After an error `path` is as it was, and the new file is gone.

    Args:
        path: A path. The given name ends in the same suffix.

    Raises:
        OSError: if the disk is full, for example.

    Example:

    >>> from keras_vae import files
    >>> with files.replacing("numbers.txt") as temporary:
    ...     size = temporary.write_text("1 2 3")
    >>> open("numbers.txt").read()
    '1 2 3'
    """
    path = Path(path)
    temporary = _beside(path)
    try:
        yield temporary
        flush(temporary)
        os.replace(temporary, path)
        flush(path.parent)
    except OSError as error:
        if error.filename in (None, str(temporary)):  # `write` names no file
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(path):
    """A context that gives a binary file to write to, which then takes the place of `path`; see `replacing`."""
    with replacing(path) as temporary, open(temporary, "xb") as file:
        yield file


def write_bytes(path, *parts):
    """Writes a file; see `replacing`.

    Args:
        path: A path.
        *parts: Bytes, written one after the other.
    """
    with writing(path) as file:
        for part in parts:
            file.write(part)


def write_json(path, content):
    """Writes JSON; see `replacing`."""
    write_bytes(path, (json.dumps(content, indent=2) + "\n").encode())


@contextlib.contextmanager
def new_folder(path):
    """A context that gives an empty folder to fill, which then becomes `path`: whole or not at all.

    Raises:
        OSError: if there is something at `path` by then, or it cannot be written.
    """
    path = Path(os.path.abspath(path))
    make_folder(path.parent)
    temporary = _beside(path)
    temporary.mkdir()
    try:
        yield temporary
        flush_tree(temporary)
        if path.exists():  # a rename would replace an empty folder
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        rename(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def make_folder(path):
    """Makes a folder, with those above it, which is there after a power cut too."""
    path = Path(os.path.abspath(path))
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in reversed(missing):
        flush(folder.parent)


def rename(source, target):
    """Renames a file or a folder, which has the new name after a power cut too."""
    os.rename(source, target)
    for folder in {Path(source).parent, Path(target).parent}:
        flush(folder)


def flush(path):
    """Flushes a file or a folder to the disk."""
    is_folder, posix = os.path.isdir(path), os.name == "posix"
    if is_folder and not posix:  # elsewhere a folder cannot be opened, and a file only to be written
        return
    descriptor = os.open(path, os.O_RDONLY if posix else os.O_RDWR)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not is_folder or error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):  # some network file systems
            raise
    finally:
        os.close(descriptor)


def flush_tree(path):
    """Flushes all files and folders under `path`, and the folder itself, to the disk."""
    for folder, _, names in os.walk(path):
        for name in names:
            file = os.path.join(folder, name)
            if stat.S_ISREG(os.lstat(file).st_mode):
                flush(file)
        flush(folder)


def remove_leftovers(path, everything=False):
    """Removes what killed processes left in a folder and under it: temporary files that nobody writes any more.

    Args:
        path: The folder.
        everything: Bool, whether nobody else can be writing there; otherwise what is younger than an hour stays.
    """
    for found in list(Path(path).rglob(f"{TEMPORARY}*")):
        with contextlib.suppress(OSError):  # it is gone, or this is a folder to read alone
            if everything or time.time() - found.lstat().st_mtime > OLD:
                shutil.rmtree(found) if found.is_dir() and not found.is_symlink() else found.unlink()


def read_bytes(path, limit=None):
    """Reads a regular file. A pipe, a folder or a device is refused at once.

    Args:
        path: A path.
        limit: Int, the most bytes that it may have; None for any number.

    Raises:
        OSError: if it is not such a file, cannot be read, or is larger.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with open(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        if limit is not None and found.st_size > limit:
            raise OSError(errno.EFBIG, f"larger than {limit:,} bytes", str(path))
        return file.read()


def _beside(path):
    return path.with_name(f"{TEMPORARY}{secrets.token_hex(4)}-{path.name}")
