"""Run directories: what a run leaves behind, and how to open it again.

config.json       everything needed to repeat the run, the data that were used, and the versions
model.keras       the trained model
history.csv       losses of each epoch
evaluation.json   what the model is worth on the test split
evaluation.npz    its estimates of the likelihood of each test image, with their protocol
report.html       all of it on one page, with an explorer of the latent space
figures/          pictures; samples/ holds those drawn during training, of which animation.gif is made
tensorboard/      the same for TensorBoard
export/           SavedModels for TensorFlow Serving
checkpoints/      the state of a run that is not finished; gone when it is
"""

import csv
import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from keras_vae import files, installed, records
from keras_vae.config import Config, InputError
from keras_vae.presets import command, options, train_command

CHECKPOINTS = "checkpoints"
REMOVED = f".{CHECKPOINTS}"  # their name while they are removed
FOLDERS = ("figures", "samples", "tensorboard", "export")


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
            files.make_folder(path / CHECKPOINTS)
            files.remove_leftovers(path, everything=True)
            files.write_json(path / "config.json", {"config": config.to_dict(), **facts})
        except OSError as error:
            raise InputError(f"Cannot write the run directory {path}: {error.strerror or error}.") from None
        return cls(path, config, facts)

    @classmethod
    def open(cls, path):
        """Opens an existing run directory, or a published folder.

        Raises:
            InputError: if it is not one.
        """
        path = Path(path)
        if not (path / "config.json").exists():
            raise InputError(f"Not a run directory: {path}. Expected a folder with a config.json, as `train` makes it.")
        for folder in (*FOLDERS, CHECKPOINTS):
            if (path / folder).exists() and not (path / folder).is_dir():
                raise InputError(f"Damaged run directory: {path / folder} is not a folder. Remove it.")
        run = cls(path, *_read(path / "config.json", records.parse_config))
        if not run.checkpoints.exists():
            shutil.rmtree(path / REMOVED, ignore_errors=True)  # of a process that was killed at the very end
            files.remove_leftovers(path)
        return run

    def read_card(self):
        """The content of evaluation.json, or None if there is none: dicts protocol, results, model, units, versions.

        Raises:
            InputError: if it is damaged.
        """
        wayout = f"Write it again with: {command('evaluate', self.path)}"
        return _read(self.path / "evaluation.json", records.parse_card, wayout)

    def read_estimates(self, card):
        """The estimates of log p(x) of each test image, in nats, that belong to a card.

        Args:
            card: What `read_card` returned.

        Returns:
            Dict of `name`, what minus their mean is called in the results, such as "nll", and `log_marginal`,
            float [n]; or None if there are none.

        Raises:
            InputError: if the file is damaged.
        """
        from keras_vae import npz

        path = self.path / "evaluation.npz"
        try:
            found = npz.read(path) if path.is_file() else {}
            if str(found.get("protocol")) != json.dumps(card["protocol"], sort_keys=True):
                return None  # of another evaluation than the card
            name, values = str(found["name"]), found["log_marginal"]
            if values.dtype.kind != "f" or values.shape != (card["protocol"].get("nll_images"),):
                raise ValueError(f"expected log_marginal of {card['protocol'].get('nll_images')} images")
        except (OSError, ValueError, KeyError) as error:
            wayout = f"Write it again with: {command('evaluate', self.path)}"
            raise InputError(f"Cannot read {path}: {_first_line(error)}. {wayout}") from None
        return {"name": name, "log_marginal": values.astype("float64")}

    def read_history(self):
        """The content of history.csv, or None if there is none: name -> list of floats, one for each epoch.

        Epochs count from 1.

        Raises:
            InputError: if it is damaged.
        """
        return _read(self.path / "history.csv", records.parse_history)

    def read_picture(self, name):
        """The bytes of a picture in figures/, a PNG or a GIF, or None if there is none.

        Raises:
            InputError: if it is something else, such as a link to a file outside of the run.
        """
        path = self.path / "figures" / name
        try:
            inside = path.is_relative_to(self.path) and path.resolve().is_relative_to(self.path.resolve())
        except RuntimeError:  # a circle of links
            inside = False
        if not inside:
            raise InputError(f"Damaged run directory: {path} lies outside of it.")
        return _read(path, _check_picture, f"Draw it again with: {command('report', self.path)}")

    def model_file(self):
        """Path of the trained model: model.keras, or weights.npz of a published folder.

        Raises:
            InputError: if there is none.
        """
        for file in (self.path / "model.keras", self.path / "weights.npz"):
            if file.is_file():
                return file
        raise InputError(f"{self.path} has no trained model: model.keras is missing. The run did not finish.")

    def load_model(self):
        """Loads the trained model of a run or of a published folder.

        Raises:
            InputError: if the run has none, or one that cannot be read.
        """
        import keras

        import keras_vae.models  # noqa: F401  registers the classes with Keras

        file = self.model_file()
        if file.suffix == ".npz":
            from keras_vae.models import published

            return published.load(self.path)
        try:
            return keras.saving.load_model(file)
        except Exception as error:  # Keras raises many kinds for a damaged file
            raise InputError(f"Cannot load {file}: {_first_line(error)}") from None

    def add_facts(self, **facts):
        """Writes more facts into config.json. Returns the `Run` with them."""
        facts = {**self.facts, **facts}
        files.write_json(self.path / "config.json", {"config": self.config.to_dict(), **facts})
        return Run(self.path, self.config, facts)

    @property
    def value_range(self):
        """The lowest and the highest value of the training data; [0, 1] of pixels."""
        return tuple(self.facts.get("data", {}).get("value_range", (0.0, 1.0)))

    @property
    def checkpoints(self):
        """Folder of the checkpoints. It is there as long as the run is not finished."""
        return self.path / CHECKPOINTS

    def finish(self):
        """Removes the checkpoints, which makes this a finished run. The rest is on the disk by then."""
        files.flush_tree(self.path)
        leftover = self.path / REMOVED
        files.rename(self.checkpoints, leftover)  # at once: a run with some of its checkpoints would look unfinished
        shutil.rmtree(leftover)

    def open_data(self):
        """Opens the data that the run was trained on; see `keras_vae.data.open_dataset`.

        Raises:
            InputError: if they are other data by now.
        """
        images = open_data(self.config)
        self.check_data(data_facts(images))
        return images

    def check_data(self, facts):
        """Refuses other data than those that the run was started with.

        Args:
            facts: What `data_facts` says of the data that were found.

        Raises:
            InputError: if they are others. It names what differs.
        """
        before = self.facts.get("data", {})
        for name in ("name", "event_shape", "train_images", "test_images", "train_sha256", "test_sha256"):
            if name in before and before[name] != facts[name]:
                raise InputError(
                    f"{self.path} was trained on other data than those in {facts['source']}: its {name} was "
                    f"{before[name]} and is {facts[name]}. Which images are held out for testing depends on them, and "
                    "so does every result. Bring the data back as they were, or train another run."
                )


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


def data_facts(images):
    """What a run remembers of its data, an `ImageSet`: a dict for JSON."""
    from keras_vae import data

    return {
        "name": images.name,
        "source": images.source,
        "fallback": images.fallback,
        "event_shape": list(images.event_shape),
        "value_range": list(data.value_range(images.train)),
        "train_images": len(images.train),
        "test_images": len(images.test),
        "train_sha256": data.fingerprint(images.train),
        "test_sha256": data.fingerprint(images.test),
    }


def default_path(config):
    """Where a run goes that was not told: `runs/<preset>-<time>`."""
    return Path("runs") / f"{config.preset}-{time.strftime('%Y%m%d-%H%M%S')}"


def continue_command(path, config):
    """The command that goes on with the training of a config in a run directory, wherever it was stopped.

    Before there is a run it repeats all that was asked for; later the run knows that, but for what may change.

    Example:

    >>> from keras_vae.presets import get_preset
    >>> from keras_vae.runs import continue_command
    >>> continue_command("runs/my run", get_preset("conv").config.replace(latent_dim=3))
    "keras-vae train conv --latent-dim 3 --run-dir 'runs/my run'"
    """
    if not is_unfinished(path):
        return train_command(config, path)
    return command("train", *options(config, Run.open(path).config), "--run-dir", path)


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
    if path.exists() and (not path.is_dir() or any(not _is_beginning(item) for item in path.iterdir())):
        raise InputError(f"{path} exists already and is not overwritten. Choose another --run-dir, or remove it.")
    return path


def _is_beginning(path):
    """Whether a file is what is left of a process that was killed before there was a config.json."""
    return path.name.startswith(files.TEMPORARY) or (
        path.name == CHECKPOINTS and path.is_dir() and not any(path.iterdir())
    )


def _read(path, parse, wayout="It is damaged."):
    """What `parse` makes of the bytes of a file, or None if there is none."""
    try:
        return parse(files.read_bytes(path, records.LIMIT))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, csv.Error) as error:
        reason = (error.strerror or error) if isinstance(error, OSError) else error
        raise InputError(f"Cannot read {path}: {_first_line(reason)}. {wayout}") from None


def _check_picture(content):
    if not content.startswith((b"\x89PNG\r\n\x1a\n", b"GIF8")):
        raise ValueError("it is no PNG or GIF")
    return content


def _first_line(error):
    return str(error).strip().split("\n")[0][:200]
