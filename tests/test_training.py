"""The main job: that a run directory is complete, right, and says what it is."""

import csv
import functools
import json
import os
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import only_trained
from PIL import Image, ImageSequence
from rich.console import Console

from keras_vae import data, fitting, training, untrained
from keras_vae.callbacks import ImageGrids, ProgressReport
from keras_vae.config import InputError
from keras_vae.files import write_json
from keras_vae.presets import get_preset
from keras_vae.runs import Run, open_data
from keras_vae.serving import verify

# What makes a preset small enough for a test; the choice on the axes stays what it is.
QUICK = {"dataset": "digits", "epochs": 2, "nll_samples": 3, "nll_images": 20}


@pytest.fixture
def run(run):
    return Run.open(run)


def test_a_run_directory_is_complete(run):
    figures = {path.stem for path in (run.path / "figures").glob("*.png")}
    assert figures == {
        "training_curves", "reconstructions", "samples", "latent_space", "manifold", "interpolations", "traversals",
        "kl_per_dimension",
    }  # fmt: skip
    for name in (
        "config.json",
        "model.keras",
        "history.csv",
        "evaluation.json",
        "report.html",
        "export/encoder/1",
        "export/decoder/1",
    ):
        assert (run.path / name).exists(), name
    assert len(list((run.path / "samples").glob("*.png"))) == 2
    assert not [path.name for path in run.path.iterdir() if path.name.startswith(".")]


def test_history_is_what_evaluate_says_of_the_saved_model(run):
    with open(run.path / "history.csv", newline="") as file:
        last = list(csv.DictReader(file))[-1]
    card = json.loads((run.path / "evaluation.json").read_text())
    pixels, _ = training.load_test_images(run.config, run.open_data())
    logs = run.load_model().evaluate(pixels, batch_size=100, verbose=0, return_dict=True)
    for name in ("loss", "reconstruction_loss", "kl_loss"):  # each time with fresh noise
        assert float(last[f"val_{name}"]) == pytest.approx(logs[name], rel=0.02)
        assert card["results"][name] == pytest.approx(logs[name], rel=0.02)


def test_the_card_says_which_images_were_scored(run):
    card = json.loads((run.path / "evaluation.json").read_text())
    protocol = card["protocol"]
    assert protocol["images"] == len(data.open_dataset("digits").test)
    assert protocol["split"] == "test" and protocol["binarization"] == "none" and card["model"]["beta"] == 1.0


def test_the_config_of_a_run_says_how_to_repeat_it(run):
    content = json.loads((run.path / "config.json").read_text())
    assert content["config"]["data"]["dataset"] == "digits"
    assert content["data"]["train_images"] == 1500
    assert content["versions"]["keras"] == keras.__version__
    assert "128 images a batch" in content["devices"] and "training" in content["time"]
    assert Run.open(run.path).config == run.config


def test_tensorboard_holds_every_scalar_and_image_of_each_epoch(run):
    steps = {}
    for file in (run.path / "tensorboard").rglob("events*"):
        if file.parent.name != "validation":
            for record in tf.data.TFRecordDataset(str(file)):
                event = tf.compat.v1.Event.FromString(record.numpy())
                for value in event.summary.value:
                    steps.setdefault(value.tag, set()).add(event.step)
    parts = ("loss", "kl_loss", "reconstruction_loss", "kl_0", "kl_1", "active_units", "beta", "learning_rate")
    expected = {f"epoch_{name}" for name in parts} | {"images_per_second", "reconstructions", "manifold"}
    assert {tag for tag, found in steps.items() if found == {0, 1}} >= expected
    assert steps["images"] == {12, 24} and "_hparams_/session_start_info" in steps


def test_the_embedding_projector_gets_the_codes_of_the_labelled_test_images(run):
    folder = run.path / "tensorboard" / "latent"
    assert "codes.tsv" in (folder / "projector_config.pbtxt").read_text()
    pixels, labels = training.load_test_images(run.config, run.open_data())
    np.testing.assert_allclose(np.loadtxt(folder / "codes.tsv"), run.load_model().code(pixels), rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(np.loadtxt(folder / "labels.tsv"), labels)
    sprite = np.asarray(Image.open(folder / "images.png"))  # 297 images in 18 columns, without gaps
    np.testing.assert_array_equal(sprite[28:56, 56:84], np.round(255 * pixels[20, ..., 0]))


def test_the_animation_has_a_frame_for_each_epoch(run):
    with Image.open(run.path / "figures" / "animation.gif") as animation:
        frames = [np.asarray(frame.convert("L")) for frame in ImageSequence.Iterator(animation)]
    for frame, file in zip(frames, sorted((run.path / "samples").glob("step-*.png")), strict=True):
        np.testing.assert_array_equal(frame, np.asarray(Image.open(file)))


def test_the_export_of_a_run_is_its_trained_model(run):
    pixels, _ = training.load_test_images(run.config, run.open_data())
    model = run.load_model()
    z_mean, z_log_var = model.encode(pixels[:9])
    with verify.Model(run.path / "export/encoder/1") as encoder, verify.Model(run.path / "export/decoder/1") as decoder:
        codes = encoder.run("serve", {"image": pixels[:9]})
        image = decoder.run("serve", {"z": z_mean.numpy()})["image"]
    np.testing.assert_allclose(codes["z_mean"], z_mean, atol=1e-5)
    np.testing.assert_allclose(codes["z_log_var"], z_log_var, atol=1e-5)
    np.testing.assert_allclose(image, model.decode(z_mean), atol=1e-5)


# Presets of which no other here is made of the same parts; the sizes of all of them are in test_presets.py.
KINDS = (
    "mlp-128-100", "gaussian-learned", "conditional", "conv", "conv-threshold", "pca", "sparse-autoencoder",
    "denoising-autoencoder", "burda-dreg", "burda-2layer", "vampprior", "beta-tc",
)  # fmt: skip


@pytest.fixture(scope="module")
def preset_run(tmp_path_factory):
    """Name of a preset -> its run, of small networks, on the bundled digits."""
    folder = tmp_path_factory.mktemp("presets")

    @functools.cache
    def train(name):
        config = get_preset(name).config
        small = {}
        if config.model.network != "linear":
            small["hidden"] = (4, 6) if config.model.network == "conv" else (16,) * len(config.model.hidden)
        config = config.replace(**QUICK | {"epochs": 1} | small, batch_size=256)
        return training.train(config, folder / name, Console(file=open(os.devnull, "w")))

    return train


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_preset_trains_evaluates_draws_and_exports(name, preset_run):
    run = preset_run(name)
    config = run.config
    results = json.loads((run.path / "evaluation.json").read_text())["results"]
    assert np.isfinite(results["loss"]) and results["mse"] < 1
    expected = {"training_curves", "interpolations", "latent_space"}
    expected |= {"denoising"} if name.startswith("denoising") else {"reconstructions"}
    if config.model.model != "autoencoder":
        expected |= {"samples", "kl_per_dimension", "traversals"}
    if config.model.latent_dim == 2:
        expected |= {"manifold"}
    assert {path.stem for path in (run.path / "figures").glob("*.png")} == expected


@pytest.mark.slow
def test_the_export_of_every_kind_of_preset_verifies(preset_run):
    folders = [str(preset_run(name).path / "export") for name in KINDS]
    command = [sys.executable, verify.__file__, *folders]
    *steps, last = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
    assert json.loads(last) == {"failures": []}
    assert len(steps) > 60 * len(KINDS)


def test_the_fallback_from_mnist_is_said_loudly_and_written_down(tmp_path, monkeypatch):
    from keras_vae import training as module

    digits = data.open_dataset("digits")
    unavailable = type(digits)(**{**vars(digits), "fallback": "no network"})
    monkeypatch.setattr(module, "open_data", lambda config: unavailable)
    printed = open(tmp_path / "log.txt", "w+")
    config = get_preset("mlp").config.replace(**QUICK | {"dataset": "auto", "epochs": 1}, hidden=(8,))
    with only_trained():
        run = training.train(config, tmp_path / "run", Console(file=printed, soft_wrap=True))
    printed.seek(0)
    lines = printed.read().splitlines()
    loud = [index for index, line in enumerate(lines) if line.startswith("NOT MNIST")]
    assert loud[0] == 0 and loud[-1] >= len(lines) - 2 and len(loud) == 2
    content = json.loads((run.path / "config.json").read_text())
    assert content["data"]["fallback"] == "no network" and content["config"]["data"]["dataset"] == "digits"
    assert "in place of mnist" in module._footnote(run, unavailable)


def test_samples_are_drawn_every_n_steps(tmp_path):
    steps = []
    grids = ImageGrids(lambda: steps.append(1) or np.zeros((4, 8, 8, 1)), tmp_path, every=3)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(loss="mse")
    model.fit(np.zeros((40, 1)), np.zeros((40, 1)), batch_size=10, epochs=2, verbose=0, callbacks=[grids])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000003.png", "step-000006.png"]


def test_progress_works_in_anybodys_fit(tmp_path):
    log = open(tmp_path / "log.txt", "w+")
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(loss="mse")
    report = ProgressReport(40, Console(file=log, soft_wrap=True))
    model.fit(np.zeros((40, 1)), np.zeros((40, 1)), epochs=2, verbose=0, callbacks=[report])
    log.seek(0)
    assert [line.split("  ")[0] for line in log.read().splitlines()] == ["epoch 1/2", "epoch 2/2"]


def test_an_interrupted_write_keeps_the_old_content(tmp_path):
    write_json(tmp_path / "a.json", {"old": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"new": object()})
    assert json.loads((tmp_path / "a.json").read_text()) == {"old": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_fitted_prior_gains_on_a_planted_aggregate_posterior(run, tmp_path):
    """An encoder moved away from the prior: the mixture has to find where the codes are."""
    model = run.load_model()
    head = model.encoder.get_layer("z_mean")
    head.bias.assign(head.bias + 3.0)
    path = tmp_path / "moved"
    shutil.copytree(run.path, path)
    model.save(path / "model.keras")
    new, gain = fitting.fit_prior(
        Run.open(path), tmp_path / "fitted", 5, samples=50, count=100, console=Console(file=open(os.devnull, "w"))
    )
    assert gain > 1
    fitted = Run.open(tmp_path / "fitted").load_model()
    centre = np.asarray(fitted.prior.sample(2000, 0)).mean(0)
    codes = np.asarray(fitted.encode(training.load_test_images(new.config, new.open_data())[0])[0])
    np.testing.assert_allclose(centre, codes.mean(0), atol=0.5)
    assert (new.path / "export/decoder/1").exists() and not new.checkpoints.exists()


def test_a_run_starts_from_the_weights_of_another(run, tmp_path):
    quiet = Console(file=open(os.devnull, "w"))
    config = run.config.replace(start_from=str(run.path), learning_rate=1e-12, epochs=1, objective="iwae")
    with only_trained():
        again = training.train(config, tmp_path / "again", quiet)
    for left, right in zip(run.load_model().trainable_weights, again.load_model().trainable_weights, strict=True):
        np.testing.assert_allclose(left, right, atol=1e-6)
    with pytest.raises(InputError, match="other sizes"):
        training.train(config.replace(hidden=(17,)), tmp_path / "other", quiet)
    assert not (tmp_path / "other").exists()


def test_pseudo_inputs_start_at_training_images():
    config = get_preset("vampprior").config.replace(dataset="digits", prior_components=5)
    images = open_data(config)
    pseudo_inputs = untrained.build(config, images).prior.pseudo_inputs.numpy()
    pixels = data.to_pixels(images.train.images[np.arange(len(images.train))])
    distances = np.abs(pseudo_inputs[:, None] - pixels[None]).max(axis=(2, 3, 4))
    assert distances.min(axis=1).max() < 1e-6 and len(np.unique(distances.argmin(axis=1))) > 1
