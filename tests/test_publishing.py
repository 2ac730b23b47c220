"""Models that are passed on: the same numbers wherever they are read, nothing executed, nothing half-written."""

import gzip
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from cases import CASES, Case, build, config, images

import keras_vae
from keras_vae import presets, training
from keras_vae.config import InputError
from keras_vae.files import write_json
from keras_vae.models import published
from keras_vae.publishing import publish
from keras_vae.runs import Run

KINDS = ("resnet", "gaussian-learned", "vampprior", "hierarchical", "conditional", "denoising-gaussian")
SHIPPED = [(name, weights) for name in presets.PRESETS for weights in presets.weights_of(name)]


def make_run(folder, case):
    """A run directory with a model that was never trained, whose weights are all different."""
    data = {"name": "digits", "source": str(folder), "event_shape": list(case.shape)}
    data |= {"train_images": 5, "test_images": 5}
    run = Run.create(folder / "run", config(case).replace(data_dir=str(folder)), {"data": data})
    model = build(case)
    generator = np.random.default_rng(4)
    model.set_weights([weight + generator.normal(scale=0.1, size=weight.shape) for weight in model.get_weights()])
    model.compile(optimizer="adam")
    training.save_model(model, run)
    write_json(run.path / "evaluation.json", {"protocol": {"dataset": "digits"}, "results": {"loss": 104.5}})
    return run, model


@pytest.mark.parametrize("case", [case for case in CASES if case.name in KINDS], ids=str)
def test_a_published_model_computes_what_the_run_computes(case, tmp_path):
    published.save(build(case, seed=1), tmp_path)
    data = {"name": "digits", "event_shape": case.shape, "train_images": 5, "test_images": 5}
    write_json(tmp_path / "config.json", {"config": config(case).to_dict(), "data": data})
    keras.utils.set_random_seed(99)
    model, again, x = build(case, seed=1), published.load(tmp_path), images(case)
    assert type(again) is type(model)
    for ours, theirs in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    if not model.takes_labels:
        np.testing.assert_array_equal(again.reconstruct(x), model.reconstruct(x))


def test_a_published_folder_is_complete_and_says_nothing_of_this_machine(tmp_path):
    run, model = make_run(tmp_path, Case("mlp"))
    folder = publish(run, tmp_path / "out" / "folder")
    names = {path.name for path in folder.iterdir()}
    assert names == {"README.md", "config.json", "weights.npz", "evaluation.json", "export"}
    for name in ("README.md", "config.json", "evaluation.json"):
        assert str(tmp_path) not in (folder / name).read_text(), name
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: keras_vae\n") and "104.50" in card
    assert "keras-vae train mlp --latent-dim 3 --output-bias zeros --hidden 12 --dataset digits" in card
    assert [path.name for path in folder.parent.iterdir()] == ["folder"]  # nothing temporary is left
    x = images(Case("mlp"))
    for again in (keras_vae.VAE.from_preset(str(folder)), Run.open(folder).load_model()):
        np.testing.assert_array_equal(again.encode(x)[1], model.encode(x)[1])
    assert not (tmp_path / "out" / "folder" / "model.keras").exists()


def test_an_existing_folder_is_never_overwritten_and_nothing_is_left_of_a_failure(tmp_path, monkeypatch):
    run, _ = make_run(tmp_path, Case("mlp"))
    (tmp_path / "there").mkdir()
    with pytest.raises(InputError, match="exists already"):
        publish(run, tmp_path / "there")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(published, "save", full)
    with pytest.raises(InputError, match="No space left"):
        publish(run, tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "there"]


class Executed:
    """An object that makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def damaged(folder):
    """What is wrong -> a function that makes a folder like that."""

    def write_config(**changes):
        content = json.loads((folder / "config.json").read_text())
        write_json(folder / "config.json", {**content, **changes})

    return {
        "no weights": lambda: (folder / "weights.npz").unlink(),
        "half of the weights": lambda: os.truncate(folder / "weights.npz", 999),
        "pickled weights": lambda: np.savez(folder / "weights.npz", np.array([Executed(folder / "executed")])),
        "weights of another network": lambda: np.savez(folder / "weights.npz", np.zeros((2, 2))),
        "no JSON": lambda: (folder / "config.json").write_text("{"),
        "unknown keys": lambda: write_config(config={"model": {"class": "os.system"}}),
        "no image shape": lambda: write_config(data={}),
    }


DAMAGES = (
    "no weights", "half of the weights", "pickled weights", "weights of another network", "no JSON", "unknown keys",
    "no image shape",
)  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_folder_is_refused_and_nothing_in_it_is_executed(damage, tmp_path):
    case = Case("mlp")
    published.save(build(case), tmp_path)
    data = {"name": "digits", "event_shape": case.shape, "train_images": 5, "test_images": 5}
    write_json(tmp_path / "config.json", {"config": config(case).to_dict(), "data": data})
    damaged(tmp_path)[damage]()
    with pytest.raises(InputError, match=r"config\.json|weights\.npz"):
        keras_vae.VAE.from_preset(str(tmp_path))
    assert not (tmp_path / "executed").exists()


# What comes with the package


def test_weights_that_are_not_there_are_refused_with_those_that_are():
    with pytest.raises(InputError, match=r"mlp \(mnist\)"):
        keras_vae.VAE.from_preset("mlp", weights="imagenet")
    with pytest.raises(InputError, match=r"Autoencoder\.from_preset"):
        keras_vae.VAE.from_preset("denoising-autoencoder", weights="mnist")


def test_a_folder_of_the_same_name_does_not_hide_the_package(tmp_path):
    (tmp_path / "keras_vae").mkdir()  # as a checkout has, seen from the folder that it is in
    found = "import importlib.util; print(importlib.util.find_spec('keras_vae').origin)"
    origin = subprocess.run([sys.executable, "-c", found], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert origin.stdout.strip().endswith("__init__.py"), "a folder without one was found instead"


def test_the_models_are_few_and_small():
    files = [path for path in presets.WEIGHTS.rglob("*") if path.is_file()]
    assert ("mlp", "mnist") in SHIPPED and sum(path.stat().st_size for path in files) < 6e6
    assert {path.suffix for path in files} == {".md", ".json", ".npz", ".png"}


@pytest.fixture(scope="module")
def mnist_images(mnist_dir):
    """The first 2,000 test images, as they are in the official file: float32 in [0, 1]."""
    with gzip.open(os.path.join(mnist_dir, "t10k-images-idx3-ubyte.gz")) as file:
        pixels = np.frombuffer(file.read(), "uint8", offset=16)
    return pixels.reshape(-1, 28, 28, 1)[:2000].astype("float32") / 255


@pytest.mark.parametrize("name, weights", SHIPPED)
def test_a_model_of_the_package_reaches_what_its_card_says(name, weights, mnist_images):
    run = Run.open(presets.find_weights(name, weights))
    card = json.loads((run.path / "evaluation.json").read_text())
    loss = np.mean(run.load_model().loss_terms(mnist_images, training=False)["loss"])
    assert loss == pytest.approx(card["results"]["loss"], rel=0.05)  # of all 10,000
    assert f"{card['results']['loss']:.2f}" in (run.path / "README.md").read_text()


@pytest.mark.slow
def test_the_command_line_draws_digits_without_data_or_network(tmp_path, mnist_images):
    home, work = tmp_path / "home", tmp_path / "work"
    work.mkdir()
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "TFDS_DATA_DIR": str(home)}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path), "http_proxy": "http://127.0.0.1:9"}
    command = [sys.executable, "-m", "keras_vae", "generate", "mlp", "--count", "50", "--to", "digits.npy"]
    done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in work.iterdir()] == ["digits.npy"]
    digits = np.load(work / "digits.npy").reshape(50, -1)
    other = np.random.default_rng(0).permuted(digits, axis=1)  # the same greys in other places

    def distance(rows):
        """Mean squared distance, summed over pixels, to the nearest test image."""
        return np.mean([np.min(np.sum((mnist_images.reshape(2000, -1) - row) ** 2, axis=1)) for row in rows])

    assert distance(digits) < 45 < 60 < distance(other)
    assert len(np.unique(np.round(digits, 3), axis=0)) == 50
