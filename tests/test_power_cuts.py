"""Power cuts: whatever was not flushed to the disk is lost at the worst moment, and no trained model with it.

The cut is simulated by `power_cut.Disk`, a fault-injecting file layer.
"""

import os
import pathlib
import random
import shutil
import sys
import warnings

import numpy as np
import pytest
from PIL import Image
from power_cut import Disk
from rich.console import Console

from keras_vae import checkpoints, files, plotting, runs, training
from keras_vae.config import Config

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "benchmarks"))
import chaos  # noqa: E402

SMALL = Config(preset="mlp").replace(
    dataset="digits", hidden=(8,), latent_dim=2, epochs=2, nll_samples=2, nll_images=20, checkpoint_every=5
)


def quiet():
    return Console(file=open(os.devnull, "w"))


def complete(run, model, images, console):
    """What takes little of `training.complete`: numbers, a picture, the animation, and a page."""
    training.evaluate(run, model, images, console, 2, 20)
    files.make_folder(run.path / "figures")
    plotting.save_png(np.zeros((4, 4), np.uint8), run.path / "figures" / "samples.png")
    plotting.save_animation(sorted((run.path / "samples").glob("step-*.png")), run.path / "figures" / "animation.gif")
    files.write_bytes(run.path / "report.html", b"<html>")


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """A whole run, what the disk held at each moment of it, and its files at the end."""
    root = tmp_path_factory.mktemp("watched")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "complete", complete)
        disk = Disk(root, patch)
        training.train(SMALL, root / "runs" / "run", quiet())
    disk.close()
    return disk, root / "runs" / "run"


def contents(path):
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


KINDS = ("new", "old", *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(4)))
MOMENTS = ["replace model.keras"]
MOMENTS += [pytest.param(moment, marks=pytest.mark.slow) for moment in ("replace history.csv", "rename checkpoints")]


def after_a_cut(disk, moment, folder, kind):
    options = {"names": kind} if isinstance(kind, str) else {"chance": random.Random(kind)}
    disk.write(moment, folder, **options)
    return folder / "runs" / "run"


@pytest.mark.parametrize("kind", KINDS)
def test_a_power_cut_at_any_moment_loses_no_step_that_was_saved_and_no_finished_run(kind, watched, tmp_path):
    disk, whole = watched
    assert len(disk.moments) > 40
    final, saved, states = contents(whole), 0, set()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a checkpoint that is passed over
        for number, moment in enumerate(disk.moments):
            run = after_a_cut(disk, moment, tmp_path / str(number), kind)
            if runs.is_unfinished(run):
                state = checkpoints.load_newest(run / "checkpoints")
                step = state[0]["step"] if state else 0
                assert step >= saved, moment[0]
                saved = step if kind == "old" else saved
                for picture in (run / "samples").glob("step-*.png"):
                    if int(picture.stem[5:]) <= step:
                        Image.open(picture).load()
                states.add("unfinished")
            elif (run / "config.json").exists():
                found = contents(run)
                assert {name: found.get(name) for name in final} == final, moment[0]
                states.add("finished")
            else:
                runs.check_new(run)
                states.add("nothing")
            shutil.rmtree(tmp_path / str(number))
    assert states == {"nothing", "unfinished", "finished"}


@pytest.mark.parametrize("kind", ["new", "old", 1])
@pytest.mark.parametrize("operation", MOMENTS)
def test_a_run_goes_on_after_a_power_cut_to_the_same_bits(operation, kind, watched, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "complete", complete)
    disk, whole = watched
    verb, name = operation.split()
    found = [moment for moment in disk.moments if moment[0].startswith(verb) and moment[0].endswith(name)]
    run = after_a_cut(disk, found[-1], tmp_path / "disk", kind)
    if runs.is_unfinished(run):
        (run / "samples" / f"{files.TEMPORARY}1a2b3c4d-step-000012.png").touch()  # of the process that was cut off
        training.train(SMALL, run, quiet())
    assert chaos.bits(run) == chaos.bits(whole)
    runs.Run.open(run)  # which tidies up
    assert not list(run.rglob(".*"))


def test_a_damaged_picture_is_left_out_of_the_animation_and_stops_nothing(tmp_path):
    for step in (1, 2, 3):
        plotting.save_png(np.full((8, 8), step, np.uint8), tmp_path / f"step-{step}.png")
    frames = sorted(tmp_path.glob("step-*.png"))
    frames[0].write_bytes(b"")  # as a power cut leaves it
    with pytest.warns(UserWarning, match="step-1.png is damaged and left out"):
        plotting.save_animation(frames, tmp_path / "animation.gif")
    with Image.open(tmp_path / "animation.gif") as animation:
        assert animation.n_frames == 2
