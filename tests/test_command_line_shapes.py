"""Vectors, sequences and images of any channels from an array file to an answer of a server, by every command."""

import contextlib
import io
import json
import re
import runpy

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import REPOSITORY, only_trained
from PIL import Image
from sklearn.datasets import load_breast_cancer

from keras_vae import cli, data, serving
from keras_vae.models import build_model
from keras_vae.runs import Run
from keras_vae.serving import verify

SERIES = REPOSITORY.parent / "shared" / "data" / "series"
SMALL = ["--likelihood", "gaussian", "--hidden", "16", "--latent-dim", "3", "--epochs", "2", "--nll-samples", "3"]


def keras_vae(*arguments, code=0):
    """Runs the command line; returns what it wrote to the standard output."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert cli.main([str(argument) for argument in arguments]) == code
    return out.getvalue()


def standardised():
    x = load_breast_cancer().data
    return ((x - x.mean(0)) / x.std(0)).astype("float32")


def power():
    """ItalyPowerDemand, [1096, 24, 1], where it is at hand; else waves."""
    files = [SERIES / f"ItalyPowerDemand_{split}.ts" for split in ("TRAIN", "TEST")]
    if not all(file.exists() for file in files):
        waves = np.sin(np.linspace(0, 6, 24) + np.random.default_rng(0).uniform(0, 6, (300, 1)))
        return waves[..., None].astype("float32")
    lines = [line for file in files for line in file.read_text().splitlines() if line[:1] not in ("#", "@", "")]
    return np.array([line.split(":")[0].split(",") for line in lines], "float32")[..., None]


def four_channels():
    rng = np.random.default_rng(0)
    ramp = np.linspace(-1, 1, 64)[:, None, None] * np.ones((1, 48, 4))
    return (ramp * rng.normal(size=(40, 1, 1, 4)) + 0.1 * rng.normal(size=(40, 64, 48, 4))).astype("float32")


@pytest.mark.slow
def test_columns_train_alike_from_an_array_a_dataset_and_a_file(tmp_path):
    np.save(tmp_path / "cancer.npy", standardised())
    with only_trained():
        short = [*SMALL, "--epochs", "1", "--batch-size", "32"]
        keras_vae("train", "--dataset", tmp_path / "cancer.npy", *short, "--run-dir", tmp_path / "run")
    split = data.open_dataset(tmp_path / "cancer.npy")
    x = np.concatenate(list(data.batches(split.train, 32, shuffle=True).as_numpy_iterator()))  # in the order of the run
    config = Run.open(tmp_path / "run").config
    trained = {"file": keras.saving.load_model(tmp_path / "run" / "model.keras")}
    for name, container in (("array", x), ("dataset", tf.data.Dataset.from_tensor_slices(x).batch(32))):
        keras.utils.set_random_seed(0)
        model = build_model(config.model, (30,), seed=0)
        model.start_at_mean(data.to_pixels(split.train.images).mean(axis=0))
        model.compile(keras.optimizers.Adam(1e-3))
        model.fit(container, shuffle=False, verbose=0, **({"batch_size": 32} if name == "array" else {}))
        trained[name] = model
    test = data.to_pixels(split.test.images)
    expected = np.asarray(trained["array"].reconstruct(test))
    for model in trained.values():
        for left, right in zip(trained["array"].get_weights(), model.get_weights(), strict=True):
            np.testing.assert_allclose(left, right, atol=1e-6)
        np.testing.assert_allclose(model.reconstruct(test), expected, atol=1e-5)
    written = serving.export_saved_models(trained["file"], tmp_path / "export")
    with verify.Model(written.paths["vae"]) as served:
        np.testing.assert_allclose(served.run("reconstruct", {"x": test})["x"], expected, atol=1e-5)
    keras_vae("reconstruct", tmp_path / "run", "--count", len(test), "--to", tmp_path / "reconstructed.npy")
    np.testing.assert_allclose(np.load(tmp_path / "reconstructed.npy"), expected, atol=1e-5)


SETS = {"vectors": standardised, "sequences": power, "four channels": four_channels}


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_every_command_takes_a_run_of_any_event_shape(name, tmp_path, capsys):
    x = SETS[name]()
    np.save(tmp_path / "data.npy", x)
    run = tmp_path / "run"
    keras_vae("train", "--dataset", tmp_path / "data.npy", *SMALL, "--run-dir", run)
    figures = {path.stem for path in (run / "figures").glob("*.png")}
    drawn = {"reconstructions", "interpolations", "samples", "traversals", "latent_space", "kl_per_dimension"}
    assert figures == drawn | {"training_curves"}
    card = json.loads((run / "evaluation.json").read_text())
    assert np.isfinite(card["results"]["nll"])
    keras_vae("evaluate", run, "--samples", 3)
    assert json.loads((run / "evaluation.json").read_text())["results"] == card["results"]
    assert "0 errors" in keras_vae("audit", run)
    for command in ("generate", "reconstruct"):
        keras_vae(command, run, "--count", 4, "--to", tmp_path / f"{command}.npy")
        made = np.load(tmp_path / f"{command}.npy")
        assert made.shape == (4, *x.shape[1:]) and made.min() < 0  # not clipped
        keras_vae(command, run, "--count", 4, "--to", tmp_path / f"{command}.png")
        assert np.ptp(np.asarray(Image.open(tmp_path / f"{command}.png"))) > 20
    keras_vae("encode", run, "--to", tmp_path / "codes.npz")
    assert np.load(tmp_path / "codes.npz")["z_mean"].shape[1] == 3
    assert "0 failed" in keras_vae("verify-export", run / "export")
    keras_vae("export", run, "--to", tmp_path / "again")
    keras_vae("report", run)
    keras_vae("fit-prior", run, "--run-dir", tmp_path / "fitted", "--components", 2, "--samples", 2)
    table = keras_vae("compare", run, tmp_path / "fitted", "--allow-mixed", "--html", tmp_path / "compared.html")
    assert "nll" in table
    keras_vae("publish", run, "--to", tmp_path / "published", "--no-export")
    keras_vae("generate", tmp_path / "published", "--count", 4, "--to", tmp_path / "same.npy")
    np.testing.assert_allclose(np.load(tmp_path / "same.npy"), np.load(tmp_path / "generate.npy"), atol=1e-5)


@pytest.mark.parametrize(
    "arguments, named",
    [
        ([], "under --likelihood gaussian"),
        (["conv", "--likelihood", "gaussian"], "linear, mlp, gated"),
        (["--binarization", "dynamic"], "Leave out --binarization"),
        (["conditional", "--likelihood", "gaussian"], "has none"),
    ],
)
def test_what_does_not_go_with_vectors_is_refused_with_what_does(arguments, named, tmp_path, capsys):
    np.save(tmp_path / "x.npy", standardised()[:50])
    code = cli.main(["train", *arguments, "--dataset", str(tmp_path / "x.npy"), "--run-dir", str(tmp_path / "run")])
    error = capsys.readouterr().err
    assert code == 2 and named in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_example_learns_vectors_and_sequences(capsys):
    runpy.run_path(str(REPOSITORY / "examples" / "vectors_and_sequences.py"))["main"]()
    lines = [line for line in capsys.readouterr().out.splitlines() if "error" in line]
    assert len(lines) == 2
    for line in lines:
        error, variance = (float(re.search(rf"{name} ([\d.]+)", line)[1]) for name in ("error", "variance"))
        assert error < variance / 2
