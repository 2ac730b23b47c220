"""Puts finished versions where a server looks for them, so that it never sees a half-written one.

A server polls `DIR/<model>/` and takes any child whose name is an integer. An export is therefore written into
`DIR/.staging-*`, flushed to the disk, renamed to `DIR/.ready-<version>`, and only then moved, one rename for each
model, to `DIR/<model>/<version>`; contract.json, which says what the current version is, is replaced last. An export
that was killed before it was ready leaves nothing but a folder that the next one deletes; one that was killed later is
finished by the next.
"""

import contextlib
import os
import shutil
import tempfile

from keras_vae.files import flush, flush_tree, make_folder, rename

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]

STAGING, READY = ".staging-", ".ready-"


@contextlib.contextmanager
def locked(directory):
    """Holds the lock of an export directory, made if need be; waits for another process that has it."""
    make_folder(directory)
    with open(os.path.join(directory, ".lock"), "w") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def staged(directory):
    """A new folder beside the versions; gone at the end, unless it was made ready."""
    path = tempfile.mkdtemp(prefix=STAGING, dir=directory)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def recover(directory):
    """Finishes or removes what killed exports left. The lock must be held."""
    for entry in sorted(os.listdir(directory)):
        if entry.startswith(STAGING):
            shutil.rmtree(os.path.join(directory, entry))
        elif entry.startswith(READY):
            publish(directory, os.path.join(directory, entry))


def next_version(directory):
    """One more than the highest version of any model in the directory."""
    versions = [0]
    for entry in os.listdir(directory):
        path = os.path.join(directory, entry)
        if os.path.isdir(path):
            versions += [int(child) for child in os.listdir(path) if child.isdigit()]
    return 1 + max(versions)


def make_ready(directory, staging, version):
    """Flushes a staged export and marks it as whole. Returns its new path."""
    flush_tree(staging)
    ready = os.path.join(directory, f"{READY}{version}")
    rename(staging, ready)
    return ready


def publish(directory, ready):
    """Moves a whole export into place; does the rest if a part was moved before.

    Folders become `DIR/<folder>/<version>`. Of the files, contract.json replaces the present one, and the others,
    which people edit, are left alone where they exist.
    """
    version = ready.rpartition(READY)[2]
    entries = sorted(os.listdir(ready))
    for name in (entry for entry in entries if os.path.isdir(os.path.join(ready, entry))):
        base = os.path.join(directory, name)
        make_folder(base)
        os.rename(os.path.join(ready, name), os.path.join(base, version))
        flush(base)
    files = [entry for entry in entries if os.path.isfile(os.path.join(ready, entry))]
    for name in sorted(files, key=lambda name: name == "contract.json"):
        source, target = os.path.join(ready, name), os.path.join(directory, name)
        if name == "contract.json" or not os.path.exists(target):
            os.replace(source, target)
        else:
            os.remove(source)
    flush(directory)
    os.rmdir(ready)
