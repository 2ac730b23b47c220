"""What all tests share: quiet TensorFlow, float32 after each test, and MNIST where it can be had."""

import os
import pathlib

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


@pytest.fixture(scope="session")
def mnist_data_dir(mnist_dir, tmp_path_factory):
    """Folder in which tensorflow-datasets has prepared MNIST: TFDS_DATA_DIR, or one for all tests."""
    from keras_vae.data import open_dataset

    folder = pathlib.Path(os.environ.get("TFDS_DATA_DIR") or tmp_path_factory.mktemp("tensorflow_datasets"))
    open_dataset("mnist", mnist_dir=mnist_dir, data_dir=folder)
    return folder
