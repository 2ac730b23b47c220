"""What all tests share: quiet TensorFlow, float32 after each test, a run, exports, and MNIST where it can be had.

What takes seconds to make is made once for all tests that only read it.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import shutil

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def float32_after_each_test():
    yield
    import keras

    if keras.config.dtype_policy().name != "float32":
        keras.config.set_dtype_policy("float32")


@pytest.fixture(scope="session")
def mnist_dir():
    """Folder with the four official MNIST files."""
    folders = [os.environ.get("KERAS_VAE_MNIST_DIR"), REPOSITORY.parent / "shared" / "data" / "mnist"]
    for folder in folders:
        if folder and (pathlib.Path(folder) / "train-images-idx3-ubyte.gz").exists():
            return str(folder)
    pytest.skip(
        "MNIST is not here. Set KERAS_VAE_MNIST_DIR to a folder with the four official files "
        "(train-images-idx3-ubyte.gz, ...)."
    )


def once(tmp_path_factory, name, make):
    """The folder `name` that `make` has filled, once for all workers of pytest-xdist: the first to ask for it does."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, done = base / name, base / f".{name}.done"
    with open(base / f".{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            done.touch()
    return folder


@contextlib.contextmanager
def only_trained():
    """In it a training run evaluates and saves; it draws, exports and reports nothing, which takes most of the time."""
    from keras_vae import training

    with pytest.MonkeyPatch.context() as patch:
        for module, name in (
            (training, "draw"),
            (training, "write_report"),
            (training.serving, "export_saved_models"),
            (training.plotting, "save_animation"),
        ):
            patch.setattr(module, name, lambda *_, **__: None)
        yield


# Arguments of `keras-vae train` for a small run on the bundled digits, and those by which it is evaluated again.
DIGITS = ["mlp", "--dataset", "digits", "--epochs", "2", "--hidden", "16", "--latent-dim", "2"]
SAMPLES = ["--nll-samples", "3", "--nll-images", "20"]


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A finished run on the bundled digits, and what `train --json` said of it. What changes the run takes a copy."""
    from keras_vae import cli

    def make(folder):
        with open(folder / "told.json", "w") as told, contextlib.redirect_stdout(told):
            assert cli.main(["train", *DIGITS, *SAMPLES, "--run-dir", str(folder / "digits"), "--json"]) == 0

    folder = once(tmp_path_factory, "trained", make)
    return folder / "digits", json.loads((folder / "told.json").read_text())


@pytest.fixture
def run(trained):
    """The folder of `trained`, which must be left as it is."""
    path = trained[0]
    before = {file: file.stat().st_mtime_ns for file in path.rglob("*")}
    yield path
    assert {file: file.stat().st_mtime_ns for file in path.rglob("*")} == before, "a test changed the run of all tests"


@pytest.fixture
def run_copy(trained, tmp_path):
    """A copy of `trained` to change."""
    return shutil.copytree(trained[0], tmp_path / "digits")


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """(model, `Export`, contract) of a small convolutional VAE: the tests of serving read it, and none changes it."""
    from serving_exports import export

    return export(tmp_path_factory.mktemp("exported"))


@pytest.fixture(scope="session")
def small_export(tmp_path_factory):
    """Folder with the export of the smallest VAE; what changes it takes a copy."""
    from cases import CASES
    from serving_exports import export

    return pathlib.Path(export(tmp_path_factory.mktemp("small"), CASES[0])[1].directory)


@pytest.fixture(scope="session")
def mnist_data_dir(mnist_dir, tmp_path_factory):
    """Folder in which tensorflow-datasets has prepared MNIST: TFDS_DATA_DIR, or one for all tests."""
    from keras_vae.data import open_dataset

    def make(folder):
        open_dataset("mnist", mnist_dir=mnist_dir, data_dir=folder)

    if "TFDS_DATA_DIR" in os.environ:
        make(os.environ["TFDS_DATA_DIR"])
        return pathlib.Path(os.environ["TFDS_DATA_DIR"])
    return once(tmp_path_factory, "tensorflow_datasets", make)
