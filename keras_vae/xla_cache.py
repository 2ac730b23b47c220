"""What XLA compiled for the command line is kept: the next run of the same program starts without compiling it.

A folder of the user's cache holds it, one for each TensorFlow and processor. The environment variable
KERAS_VAE_XLA_CACHE names another folder, or, empty, turns it off.
"""

import contextlib
import hashlib
import os
import platform
import stat
import time
from importlib import metadata
from pathlib import Path

VARIABLE = "KERAS_VAE_XLA_CACHE"
FLAGS = "TF_XLA_FLAGS"
NAMES = ("tensorflow", "tensorflow-cpu", "tf-nightly", "tf-nightly-cpu")
TRIED = (2, 21)  # before it was not tried
MONTH = 30 * 24 * 3600


def use() -> None:
    """Lets TensorFlow keep and find programs, if it is not imported yet. Does nothing where that cannot be done."""
    place = os.environ.get(VARIABLE, os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "keras_vae", "xla"))
    version = _version()
    if not place or FLAGS in os.environ or tuple(map(int, version.split(".")[:2])) < TRIED:
        return
    folder = Path(place).expanduser() / f"{version}-{_processor()}"
    with contextlib.suppress(OSError, RuntimeError):  # no home, or one to read alone
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
        if os.name == "posix" and (found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)):
            return  # what is in it is run
        for file in folder.iterdir():
            about = file.stat()
            if about.st_size == 0 or time.time() - about.st_mtime > MONTH:  # empty after a power cut
                file.unlink()
        if not any(letter.isspace() for letter in str(folder)):  # which would end the flag
            os.environ[FLAGS] = f"--tf_xla_persistent_cache_directory={folder}"


def _version() -> str:
    for name in NAMES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            return metadata.version(name)
    return "0.0"


def _processor() -> str:
    """Letters that are others for a processor with other instructions."""
    about = platform.machine() + platform.processor()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        about += next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return hashlib.sha256(about.encode()).hexdigest()[:12]
