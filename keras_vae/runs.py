"""Run directories: what a run leaves behind, and how to open it again.

config.json       everything needed to repeat the run, the data that were used, and the versions
model.keras       the trained model
history.csv       losses of each epoch
evaluation.json   what the model is worth on the test split
report.html       all of it on one page, with an explorer of the latent space
figures/          pictures; samples/ holds those drawn during training, of which animation.gif is made
tensorboard/      the same for TensorBoard
export/           SavedModels for TensorFlow Serving
checkpoints/      the state of a run that is not finished; gone when it is
"""

import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from keras_vae import installed
from keras_vae.config import Config, InputError

CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class Run:
    """A run directory, its config, and the facts that were written down with it."""

    path: Path
    config: Config
    facts: dict

    @classmethod
    def create(cls, path, config, facts, required_bytes=0):
        """Makes a new run directory with its config.json.

        Args:
            path: Where, or None for `runs/<preset>-<time>`.
            config: The `Config` of the run.
            facts: Dict for JSON: what the data turned out to be.
            required_bytes: Int, the free disk space that the run needs.

        Raises:
            InputError: if there is something at `path` already, it cannot be written, or the disk is too full.
        """
        path = check_new(path or default_path(config))
        existing = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
        free = shutil.disk_usage(existing).free
        if free < required_bytes:
            raise InputError(
                f"The disk of {existing} is too full for this run: it needs {required_bytes / 1e6:,.0f} MB, and "
                f"{free / 1e6:,.0f} MB are free. Make room, or choose another --run-dir."
            )
        facts = {
            **facts,
            "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "versions": installed.versions(),
        }
        try:
            (path / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
            write_json(path / "config.json", {"config": config.to_dict(), **facts})
        except OSError as error:
            raise InputError(f"Cannot write the run directory {path}: {error.strerror or error}.") from None
        return cls(path, config, facts)

    @classmethod
    def open(cls, path):
        """Opens an existing run directory.

        Raises:
            InputError: if it is not one.
        """
        path = Path(path)
        config_file = path / "config.json"
        if not config_file.is_file():
            raise InputError(f"Not a run directory: {path}. Expected a folder with a config.json, as `train` makes it.")
        try:
            content = json.loads(config_file.read_text())
            config = Config.from_dict(content.pop("config"))
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, AttributeError, TypeError) as error:
            raise InputError(f"Damaged run directory: {config_file} is not the config of a run ({error!r}).") from None
        return cls(path, config, content)

    def load_model(self):
        """Loads the trained model of a run or of a published folder.

        Raises:
            InputError: if the run has none, or one that cannot be read.
        """
        import keras

        import keras_vae.models  # noqa: F401  registers the classes with Keras

        file = self.path / "model.keras"
        if not file.exists() and (self.path / "weights.npz").is_file():
            from keras_vae.models import published

            return published.load(self.path)
        if not file.is_file():
            raise InputError(f"{self.path} has no trained model: {file.name} is missing. The run did not finish.")
        try:
            return keras.saving.load_model(file)
        except Exception as error:  # Keras raises many kinds for a damaged file
            raise InputError(f"Cannot load {file}: {_first_line(error)}") from None

    def add_facts(self, **facts):
        """Writes more facts into config.json. Returns the `Run` with them."""
        facts = {**self.facts, **facts}
        write_json(self.path / "config.json", {"config": self.config.to_dict(), **facts})
        return Run(self.path, self.config, facts)

    @property
    def checkpoints(self):
        """Folder of the checkpoints. It is there as long as the run is not finished."""
        return self.path / CHECKPOINTS

    def finish(self):
        """Removes the checkpoints, which makes this a finished run."""
        leftover = self.path / f".{CHECKPOINTS}"
        self.checkpoints.rename(leftover)  # at once: a run with some of its checkpoints would look unfinished
        shutil.rmtree(leftover)

    def open_data(self):
        """Opens the data that the run was trained on; see `keras_vae.data.open_dataset`."""
        return open_data(self.config)


def open_data(config):
    """Opens the data of a config; see `keras_vae.data.open_dataset`."""
    from keras_vae import data

    options = config.data
    return data.open_dataset(
        options.dataset,
        mnist_dir=options.mnist_dir,
        data_dir=options.data_dir,
        image_size=options.image_size,
        test_fraction=options.test_fraction,
        seed=config.training.seed,
    )


def default_path(config):
    """Where a run goes that was not told: `runs/<preset>-<time>`."""
    return Path("runs") / f"{config.preset}-{time.strftime('%Y%m%d-%H%M%S')}"


def is_unfinished(path):
    """Whether `path` is the directory of a run that can be continued."""
    return (Path(path) / "config.json").is_file() and (Path(path) / CHECKPOINTS).is_dir()


def check_new(path):
    """Returns `path` as a Path.

    Raises:
        InputError: if there is something there already.
    """
    path = Path(path)
    if (path / "config.json").is_file() and not is_unfinished(path):
        raise InputError(
            f"{path} exists already: a finished run, which is not overwritten. Choose another --run-dir, or remove it."
        )
    if path.exists() and (not path.is_dir() or any(item.name != CHECKPOINTS for item in path.iterdir())):
        raise InputError(f"{path} exists already and is not overwritten. Choose another --run-dir, or remove it.")
    return path


def write_json(path, content):
    """Writes JSON so that `path` holds either the old content or the new."""
    write_bytes(path, (json.dumps(content, indent=2) + "\n").encode())


def write_bytes(path, *parts):
    """Writes a file so that `path` holds either the old content or the new, after a power cut too.

    Args:
        path: A `Path`.
        *parts: Bytes, written one after the other.

    Raises:
        OSError: if the disk is full, for example; the old content is then still there.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    if os.name == "posix":  # elsewhere a folder cannot be opened
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _first_line(error):
    return str(error).strip().split("\n")[0][:200]
