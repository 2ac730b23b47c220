"""Power cuts: whatever kills a run, and whatever happens to its checkpoints, it ends as if it had been left alone."""

import itertools
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
import warnings
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from rich.console import Console

from keras_vae import checkpoints, data, models, training
from keras_vae.config import Config, InputError, RunStopped
from keras_vae.stopping import Lock, StopSignals

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "benchmarks"))
import chaos  # noqa: E402

COMPLETE = training.complete
SMALL = Config(preset="mlp").replace(
    dataset="digits", network="linear", latent_dim=2, epochs=3, nll_samples=0, checkpoint_every=1
)
ARGUMENTS = [
    "mlp", "--dataset", "digits", "--hidden", "8", "--latent-dim", "2", "--epochs", "3000", "--nll-samples", "2",
    "--nll-images", "20", "--binarization", "dynamic",
]  # fmt: skip


def quiet():
    return Console(file=open(os.devnull, "w"))


class PowerCut(BaseException):
    """Nothing in the library may catch it."""


def cut_at(step, monkeypatch, before=True):
    """Ends the training at the moment when the checkpoint of a step is about to be written, or just was."""

    def cut(_):
        raise PowerCut

    after_saving(step, monkeypatch, cut, before)


def after_saving(step, monkeypatch, act, before=False):
    """Calls `act` with the folder of the checkpoints when that of a step was written, or is about to be."""
    save = checkpoints.save

    def saving(directory, meta, arrays):
        if meta["step"] == step and before:
            act(directory)
        save(directory, meta, arrays)
        if meta["step"] == step and not before:
            act(directory)

    monkeypatch.setattr(checkpoints, "save", saving)


@pytest.fixture(autouse=True)
def only_what_is_compared(monkeypatch):
    """Figures, exports and the report take most of the time of a small run."""
    monkeypatch.setattr(training, "complete", lambda *arguments: training.evaluate(*arguments, 0, 1))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A whole run that nothing happened to."""
    path = tmp_path_factory.mktemp("alone") / "run"
    training.train(SMALL, path, quiet())
    return chaos.bits(path)


# 12 steps in an epoch: in the first epoch, around the end of one, at the end of all. One run is cut at each in turn.
CUTS = [(1, True), (5, False), (12, True), (12, False), (23, False), (36, True), (36, False)]


@pytest.mark.parametrize("cuts", [[(12, True), (36, False)], pytest.param(CUTS, marks=pytest.mark.slow)])
def test_cuts_at_any_step_change_no_bit(cuts, alone, tmp_path, monkeypatch):
    for step, before in cuts:
        with monkeypatch.context() as patch:
            cut_at(step, patch, before)
            with pytest.raises(PowerCut):
                training.train(SMALL, tmp_path / "run", quiet())
    training.train(SMALL, tmp_path / "run", quiet())
    assert chaos.bits(tmp_path / "run") == alone
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.slow
def test_a_cut_of_a_compiled_training_changes_no_bit(tmp_path, monkeypatch):
    """A checkpoint every 5 steps, of 12 in an epoch: programs end where one is written."""
    config = SMALL.replace(jit_compile="on", checkpoint_every=5, epochs=2)
    training.train(config, tmp_path / "alone", quiet())
    with monkeypatch.context() as patch:
        cut_at(15, patch, before=False)
        with pytest.raises(PowerCut):
            training.train(config, tmp_path / "run", quiet())
    training.train(config, tmp_path / "run", quiet())
    assert chaos.bits(tmp_path / "run") == chaos.bits(tmp_path / "alone")


def test_a_cut_while_the_finished_training_is_evaluated_and_exported_changes_no_bit(alone, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "complete", COMPLETE)
    for module, name in ((training, "draw"), (training, "write_report"), (training.plotting, "save_animation")):
        monkeypatch.setattr(module, name, lambda *_, **__: None)
    with monkeypatch.context() as patch:
        patch.setattr(training.serving, "export_saved_models", lambda *_, **__: (_ for _ in ()).throw(PowerCut))
        with pytest.raises(PowerCut):
            training.train(SMALL, tmp_path / "run", quiet())
    (tmp_path / "run" / "export" / "encoder" / "1").mkdir(parents=True)  # the half of an export
    training.train(SMALL, tmp_path / "run", quiet())
    assert chaos.bits(tmp_path / "run") == alone
    assert [path.name for path in (tmp_path / "run" / "export" / "encoder").iterdir()] == ["1"]


@pytest.mark.parametrize("damage", ["truncated", "empty", "flipped", "tail", "garbage"])
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(damage, tmp_path):
    for step in (1, 2, 3):
        checkpoints.save(tmp_path, {"step": step}, {"weight": np.full(50, step, "float32")})
    files = sorted(tmp_path.glob("step-*"))
    assert [file.name for file in files] == ["step-0000000002.checkpoint", "step-0000000003.checkpoint"]
    content = bytearray(files[-1].read_bytes())
    middle = len(content) // 2
    content[middle] ^= damage == "flipped"
    content[-1] ^= damage == "tail"
    damaged = {"truncated": content[:middle], "empty": b"", "garbage": b"\0" * len(content)}.get(damage, content)
    files[-1].write_bytes(damaged)
    with pytest.warns(UserWarning, match="step-0000000003.checkpoint is damaged"):
        meta, arrays = checkpoints.load_newest(tmp_path)
    assert meta["step"] == 2 and set(arrays["weight"]) == {2.0}


def test_no_single_flipped_byte_is_ever_loaded(tmp_path):
    checkpoints.save(tmp_path, {"step": 1}, {"weight": np.arange(3.0)})
    (file,) = tmp_path.glob("step-*")
    content = file.read_bytes()
    for position in range(len(content)):
        file.write_bytes(content[:position] + bytes([content[position] ^ 0x10]) + content[position + 1 :])
        with pytest.raises(checkpoints.DamagedCheckpoint):
            checkpoints.read(file)


def test_a_run_whose_newest_checkpoint_is_damaged_still_ends_with_the_same_bits(alone, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        cut_at(17, patch, before=False)
        with pytest.raises(PowerCut):
            training.train(SMALL, tmp_path / "run", quiet())
    newest = max((tmp_path / "run" / "checkpoints").glob("step-*"))
    newest.write_bytes(newest.read_bytes()[:-100])
    with pytest.warns(UserWarning, match="damaged"):
        training.train(SMALL, tmp_path / "run", quiet())
    assert chaos.bits(tmp_path / "run") == alone


@pytest.mark.slow
def test_sigkill_at_random_moments_changes_no_bit(tmp_path):
    arguments = [*ARGUMENTS, "--epochs", "10", "--checkpoint-every", "1"]
    differing, met, _ = chaos.differences("one device", 3, tmp_path, random.Random(1), arguments, pause=0.1)
    assert met >= 2 and differing == []


def start(path, *more, **options):
    command = [sys.executable, "-c", chaos.PROCESS, "1", *ARGUMENTS, "--run-dir", str(path), *more]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
    )


def wait_for_training(path):
    deadline = time.monotonic() + 120
    while not list((path / "checkpoints").glob("step-*")):
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
def test_sigterm_saves_and_says_how_to_continue(tmp_path):
    process = start(tmp_path / "run")
    wait_for_training(tmp_path / "run")
    process.terminate()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 143
    last = errors.splitlines()[-1]
    assert f"Continue with: keras-vae train --run-dir {tmp_path / 'run'}" in last and "its state is saved" in last
    step = int(last.split("after step ")[1].split(";")[0].replace(",", ""))
    meta, _ = checkpoints.load_newest(tmp_path / "run" / "checkpoints")
    assert meta["step"] == step > 0


def test_ctrl_c_saves_and_the_run_that_goes_on_ends_with_the_same_bits(alone, tmp_path, monkeypatch):
    config = SMALL.replace(checkpoint_every=5)
    with monkeypatch.context() as patch:
        after_saving(5, patch, lambda folder: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(RunStopped, match="by Ctrl-C after step 6; its state is saved. Continue with: ") as stopped:
            training.train(config, tmp_path / "run", quiet())
    assert stopped.value.exit_code == 130
    training.train(config, tmp_path / "run", quiet())
    assert chaos.bits(tmp_path / "run") == alone


def test_a_second_ctrl_c_leaves_at_once():
    script = """
import os, signal, sys
sys.argv = ["keras-vae"]  # so that TensorFlow is not imported
from keras_vae.stopping import StopSignals
with StopSignals("") as signals, signals.deferred():
    os.kill(os.getpid(), signal.SIGINT)
    print("first", signals.received(), flush=True)
    os.kill(os.getpid(), signal.SIGINT)
    print("never")
"""
    done = subprocess.run([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 130 and done.stdout == "first True\n"


def test_a_signal_outside_of_training_stops_there_and_handlers_are_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(RunStopped, match="Continue") as stopped, StopSignals("Continue with: x"):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)
    assert stopped.value.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.slow
def test_a_full_disk_keeps_the_old_checkpoint_says_so_and_the_run_goes_on_after_room_was_made(tmp_path):
    size = 64 * 1024  # less than a checkpoint: the limit is set when there is one already
    process = start(tmp_path / "run", "--checkpoint-every", "1")
    wait_for_training(tmp_path / "run")
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, size))
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    last = errors.splitlines()[-1]
    assert "Cannot save the checkpoint" in last and "File too large" in last
    assert "checkpoints" in last and "Make room and continue with: " in last
    kept, _ = checkpoints.load_newest(tmp_path / "run" / "checkpoints")
    assert f"step-{kept['step']:010d}" in last
    assert not [path for path in (tmp_path / "run").rglob(".*")]
    process = start(tmp_path / "run", "--checkpoint-every", "1")
    deadline = time.monotonic() + 120
    while checkpoints.load_newest(tmp_path / "run" / "checkpoints")[0]["step"] <= kept["step"]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.kill()
    process.communicate()


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount") or pytest.skip("There is no `mount` here to make a small disk with.")
    # a run does not begin with less than 20 MB
    done = subprocess.run([mount, "-t", "tmpfs", "-o", "size=24m", "tmpfs", folder], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"Mounting a small disk is not permitted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)  # TensorBoard's writers may still hold files


# what is written first when the disk is full: the next checkpoint, or a picture
@pytest.mark.parametrize(
    "options", [{}, pytest.param({"sample_every": 1}, marks=pytest.mark.slow)], ids=["checkpoint", "picture"]
)
def test_a_disk_that_fills_up_stops_the_run_which_goes_on_after_room_was_made(options, alone, small_disk, monkeypatch):
    run, ballast, config = small_disk / "run", small_disk / "ballast", SMALL.replace(**options)

    def fill(_):
        with pytest.raises(OSError, match="No space left"), open(ballast, "wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    with monkeypatch.context() as patch:
        after_saving(7, patch, fill)
        with pytest.raises(RunStopped, match="No space left on device.*Make room and continue with") as stopped:
            training.train(config, run, quiet())
    assert stopped.value.exit_code == 1
    assert checkpoints.load_newest(run / "checkpoints")[0]["step"] == 7
    ballast.unlink()
    training.train(config, run, quiet())
    found = chaos.bits(run)
    assert {name: found[name] for name in alone if not name.endswith(".png")} == {
        name: content for name, content in alone.items() if not name.endswith(".png")
    }


def test_continuing_with_another_config_or_other_data_is_refused(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        cut_at(2, patch, before=False)
        with pytest.raises(PowerCut):
            training.train(SMALL, tmp_path / "run", quiet())
    with pytest.raises(InputError, match="started with learning_rate = 0.001"):
        training.train(SMALL.replace(learning_rate=0.1), tmp_path / "run", quiet())
    content = json.loads((tmp_path / "run" / "config.json").read_text())
    content["data"]["train_images"] = 7
    (tmp_path / "run" / "config.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="other data"):
        training.train(SMALL, tmp_path / "run", quiet())


def test_checkpoint_minutes_save_when_so_much_time_has_passed(tmp_path, monkeypatch):
    steps, save, clock = [], checkpoints.save, itertools.count()  # a clock on which half a minute passes at each look
    monkeypatch.setattr(checkpoints, "time", SimpleNamespace(monotonic=lambda: 30.0 * next(clock)))
    monkeypatch.setattr(
        checkpoints, "save", lambda folder, meta, arrays: (steps.append(meta["step"]), save(folder, meta, arrays))
    )
    training.train(SMALL.replace(epochs=1, checkpoint_every=0, checkpoint_minutes=2.0), tmp_path / "run", quiet())
    assert steps == [4, 8, 12]


def test_checkpoint_minutes_are_refused_for_several_machines(tmp_path, monkeypatch):
    monkeypatch.setattr(training.distribution, "is_multiworker", lambda strategy: True)
    monkeypatch.setattr(training.distribution, "is_chief", lambda strategy: True)
    with pytest.raises(InputError, match="--checkpoint-every"):
        training.train(SMALL.replace(checkpoint_minutes=1.0), tmp_path / "run", quiet())
    assert not (tmp_path / "run").exists()


def test_two_processes_never_train_the_same_run(tmp_path):
    lock = Lock(tmp_path)
    with pytest.raises(InputError, match="another process"):
        Lock(tmp_path)
    lock.release()
    Lock(tmp_path).release()


def compiled():
    keras.utils.set_random_seed(1)
    model = models.build_model(SMALL.replace(network="mlp", hidden=(8,)).model, (28, 28, 1), seed=1)
    model.compile(keras.optimizers.Adam(1e-2))
    model.optimizer.build(model.trainable_variables)
    return model


def train_with_callbacks(folder, epochs, stop_at=None):
    """Trains with callbacks that remember. Returns what they, the history and the weights came to."""
    model, images = compiled(), data.open_dataset("digits")
    stopping = keras.callbacks.EarlyStopping("val_loss", patience=2, min_delta=50, restore_best_weights=True)
    slower = keras.callbacks.ReduceLROnPlateau("val_loss", patience=1, min_delta=50, cooldown=1)
    checkpoint = checkpoints.Checkpoint(folder, 12, callbacks=[stopping, slower])
    checkpoint.stop = lambda: stop_at is not None and checkpoint.step >= stop_at
    checkpoint.restore(model)
    try:
        checkpoints.fit(
            model,
            lambda step: data.batches(images.train, 128, shuffle=True, first_step=step),
            checkpoint,
            epochs=epochs,
            validation_data=data.batches(images.test, 297),
            callbacks=[stopping, slower],
        )
    except checkpoints.InterruptedRun:
        return None
    callbacks = [(c.wait, c.best) for c in (stopping, slower)], stopping.stopped_epoch, slower.cooldown_counter
    weights = [variable.numpy().tobytes() for variable in [*model.variables, *model.optimizer.variables]]
    return callbacks, model.history.history, model.history.epoch, weights


@pytest.fixture(scope="module")
def never_stopped(tmp_path_factory):
    return train_with_callbacks(tmp_path_factory.mktemp("callbacks"), 6)


@pytest.mark.parametrize("stops", [[20, 48], pytest.param([1, 12, 20, 36, 48], marks=pytest.mark.slow)])
def test_callbacks_and_history_remember_across_stops(stops, never_stopped, tmp_path):
    assert never_stopped[0][1] == 3  # it stopped early, in the fourth epoch
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for stop_at in stops:
            assert train_with_callbacks(tmp_path / "cut", 6, stop_at) is None
        assert train_with_callbacks(tmp_path / "cut", 6) == never_stopped
