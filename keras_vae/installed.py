"""What is installed beside the package: a TensorFlow under any of its names, and a Keras that runs on it.

The package requires neither by name, because `tensorflow`, `tensorflow-cpu` and `tf-nightly` hold the same module, and
two of them in one environment overwrite each other. `check` says what is missing, in one line, when it is imported.
"""

import importlib
import importlib.util
import json
import os
import platform
import sys
from pathlib import Path

OLDEST = {"tensorflow": (2, 16), "keras": (3, 8)}
TRAIN = {  # module -> distribution
    "matplotlib": "matplotlib",
    "sklearn": "scikit-learn",
    "tensorboard": "tensorboard",
    "tensorflow_datasets": "tensorflow-datasets",
}
HINT = 'pip install "keras-vae[tensorflow]", or see docs/installing.md for tensorflow-cpu, tf-nightly and GPUs.'


class Unsupported(ImportError):
    """keras_vae cannot run with what is installed, or with how Keras is set up."""


def check() -> None:
    """Imports TensorFlow and Keras.

    Raises:
        Unsupported: with one line, if one is missing or too old, or if Keras runs on another backend.
    """
    for name in OLDEST:
        if name not in sys.modules and importlib.util.find_spec(name) is None:
            raise Unsupported(f"keras_vae needs TensorFlow and Keras, and there is no {name}. Install them: {HINT}")
    backend, source = _backend()  # before TensorFlow is imported, which imports Keras, which imports its backend
    if backend != "tensorflow":
        raise Unsupported(
            f"keras_vae runs on Keras's backend tensorflow, and {source} sets {backend!r}. Set the environment "
            "variable KERAS_BACKEND=tensorflow, before anything imports Keras."
        )
    for name, oldest in OLDEST.items():
        found = version(name)
        if parsed(found) < oldest:
            needed = ".".join(map(str, oldest))
            raise Unsupported(f"keras_vae needs {name} {needed} or later, and {found} is installed. Update it: {HINT}")


def need(*modules: str) -> None:
    """Looks for what only some parts of the package use: the extra `train`.

    Raises:
        Unsupported: with one line, if a module is not installed.
    """
    missing = [TRAIN[name] for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        names = " and ".join(missing)
        raise Unsupported(f'This needs {names}: not installed. Install what is missing: pip install "keras-vae[train]"')


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a result depends on, where they are installed: a dict."""
    from importlib import metadata

    found = {"python": platform.python_version(), **{name: version(name) for name in ("tensorflow", "keras", "numpy")}}
    try:
        found["tensorflow-datasets"] = metadata.version("tensorflow-datasets")
    except metadata.PackageNotFoundError:
        pass
    return found


def version(name: str) -> str:
    """The version that a module says itself: its distribution may have another name, such as tf-nightly."""
    return str(importlib.import_module(name).__version__)


def parsed(version: str) -> tuple[int, ...]:
    """ "2.22.0-rc0" -> (2, 22)."""
    return tuple(int(part) for part in version.split(".")[:2])


def _backend() -> tuple[str, str]:
    """The backend that Keras has or will have, and what says so; as in keras/src/backend/config.py."""
    if "keras" in sys.modules:
        return sys.modules["keras"].backend.backend(), "what imported Keras before"
    if os.environ.get("KERAS_BACKEND"):
        return os.environ["KERAS_BACKEND"], "the environment variable KERAS_BACKEND"
    home = Path.home() if os.access(Path.home(), os.W_OK) else Path("/tmp")  # noqa: S108  as Keras
    file = Path(os.environ.get("KERAS_HOME") or home / ".keras").expanduser() / "keras.json"
    try:
        return json.loads(file.read_text()).get("backend", "tensorflow"), str(file)
    except (OSError, ValueError, AttributeError):  # Keras takes its defaults then
        return "tensorflow", "Keras"
