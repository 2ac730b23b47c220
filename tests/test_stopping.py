"""Stops: no code between a signal and the end takes one for an error, and what is said leads back to the same run."""

import ast
import os
import pathlib
import shlex
import signal

import numpy as np
import pytest

from keras_vae import checkpoints, cli, fitting, runs, training
from keras_vae.config import Config, InputError, RunStopped
from keras_vae.data import prepared
from keras_vae.output import Console
from keras_vae.presets import PRESETS, get_preset, train_command
from keras_vae.runs import Run, continue_command
from keras_vae.stopping import Stop, StopSignals

PACKAGE = pathlib.Path(training.__file__).parent


def press_ctrl_c(*_, **__):
    os.kill(os.getpid(), signal.SIGINT)


NOTHING = Run(pathlib.Path("nothing"), Config(), {})


def quiet():
    return Console(file=open(os.devnull, "w"))


def parsed(command, monkeypatch):
    """(config, run directory) that a quoted command trains."""
    words, found = shlex.split(command), []
    with monkeypatch.context() as patch:
        patch.setattr(training, "train", lambda config, run_dir, *_: found.append((config, run_dir)) or NOTHING)
        cli.main(words[1:])
    assert words[0] == "keras-vae" and found, command
    return found[0]


# -- what is quoted ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("run_dir", ["runs/a b", "runs/run[lr=1e-3]", "it's; $HOME", "-r", "ünï ☃"])
def test_ctrl_c_before_there_is_a_run_quotes_a_command_that_trains_the_same_model(run_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = get_preset("conv").config.replace(
        dataset="digits", latent_dim=3, likelihood="gaussian", learn_scale=True, upper_latent_dims=(4, 5)
    )
    with monkeypatch.context() as patch:
        patch.setattr(training, "open_data", press_ctrl_c)
        with pytest.raises(RunStopped, match="Continue with: ") as stopped:
            training.train(config, run_dir, quiet())
    assert not pathlib.Path(run_dir).exists()
    command = str(stopped.value).partition("Continue with: ")[2]
    assert parsed(command, monkeypatch) == (config, pathlib.Path(run_dir))


@pytest.mark.parametrize("preset", [*PRESETS, "custom"])
def test_the_command_of_any_config_trains_that_config(preset, monkeypatch):
    base = PRESETS[preset].config if preset in PRESETS else Config(preset="custom")
    hidden = {} if preset == "pca" else {"hidden": ()}  # a linear network has none
    for config in (base, base.replace(**hidden, dataset="my images/it's.npy", learning_rate=1e-7, image_size=9)):
        found, _ = parsed(train_command(config), monkeypatch)
        assert (found.model, found.data, found.training) == (config.model, config.data, config.training)


def test_a_run_that_exists_is_continued_with_the_options_that_may_change(tmp_path, monkeypatch):
    path = tmp_path / "a run"
    config = get_preset("conv").config.replace(dataset="digits")
    Run.create(path, config, {})
    now = config.replace(checkpoint_every=7, strategy="none")
    command = continue_command(path, now)
    assert "conv" not in command
    assert parsed(command, monkeypatch) == (now, path)


# -- what a stop passes through ------------------------------------------------------------------------------------


def test_no_code_of_the_package_catches_everything():
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ExceptHandler):
                names = {name.id for name in ast.walk(node.type) if isinstance(name, ast.Name)} if node.type else {None}
                caught = names & {None, "BaseException", "KeyboardInterrupt", "Stop"}
                # only `main` of the command line, which ends the process
                assert not caught or path == PACKAGE / "cli" / "__init__.py", f"{path}:{node.lineno}"


class Builder:
    """What `_prepare` needs of a builder of tensorflow-datasets, whose own code meets the stop."""

    name, url_infos, data_path = "mnist", {}, "/tmp/none/mnist"
    download_and_prepare = staticmethod(press_ctrl_c)

    def is_prepared(self):
        return False


@pytest.mark.parametrize("mnist_dir", [None, "."], ids=["download", "mnist-dir"])
def test_ctrl_c_while_mnist_is_prepared_is_no_reason_to_take_digits(mnist_dir, monkeypatch):
    monkeypatch.delenv("KERAS_VAE_MNIST_DIR", raising=False)
    with pytest.raises(RunStopped, match="Ctrl-C") as stopped, StopSignals("Continue."):
        prepared._prepare(Builder(), "mnist", mnist_dir, None)
    assert stopped.value.exit_code == 130


def test_ctrl_c_while_a_set_or_a_model_is_opened_is_no_damage(tmp_path, monkeypatch):
    import keras
    import tensorflow_datasets as tfds

    monkeypatch.setattr(tfds, "builder", press_ctrl_c)
    with pytest.raises(RunStopped), StopSignals(""):
        prepared._builder("mnist", None)
    run = Run.create(tmp_path / "run", Config(), {})
    (run.path / "model.keras").touch()
    monkeypatch.setattr(keras.saving, "load_model", press_ctrl_c)
    with pytest.raises(RunStopped), StopSignals(""):
        run.load_model()


def test_a_stop_of_which_a_library_made_another_error_is_a_stop():
    with pytest.raises(RunStopped), StopSignals(""):
        try:
            press_ctrl_c()
        except BaseException:
            raise ValueError("could not be read") from None


def test_a_stop_that_a_library_swallowed_ends_the_work_at_the_next_look(monkeypatch, tmp_path):
    def swallowing(config):
        try:
            press_ctrl_c()
        except BaseException:
            return None  # as if there were other data

    monkeypatch.setattr(training, "open_data", swallowing)
    with pytest.raises(RunStopped) as stopped:
        training.train(Config(), tmp_path / "run", quiet())
    assert stopped.value.exit_code == 130 and not (tmp_path / "run").exists()


def test_a_signal_that_nobody_looked_for_stops_when_the_state_is_saved():
    with pytest.raises(RunStopped, match="SIGTERM"), StopSignals("") as signals, signals.deferred():
        os.kill(os.getpid(), signal.SIGTERM)
    assert issubclass(Stop, KeyboardInterrupt)  # which code of others knows to let through


# -- damaged checkpoints -------------------------------------------------------------------------------------------


def weight(value):
    return {"weight": np.full(50, value, "float32")}


def damage(path):
    path.write_bytes(path.read_bytes()[:-9])


def test_two_damaged_checkpoints_do_not_keep_new_ones_from_being_saved(tmp_path):
    for step in (1, 2):
        checkpoints.save(tmp_path, {"step": step}, weight(step))
    for step in (8, 9):  # of later steps, and of no use
        (tmp_path / f"step-{step:010d}.checkpoint").write_bytes(b"")
    with pytest.warns(UserWarning, match="damaged"):
        assert checkpoints.load_newest(tmp_path)[0]["step"] == 2
    for step in (3, 4, 5):
        checkpoints.save(tmp_path, {"step": step}, weight(step))
        assert checkpoints.load_newest(tmp_path)[0]["step"] == step
        assert sorted(int(path.name[5:15]) for path in tmp_path.iterdir()) == [step - 1, step]


def test_a_run_whose_checkpoints_are_all_damaged_stops_and_says_how_to_start_over(tmp_path, monkeypatch):
    path = tmp_path / "a run"
    config = get_preset("mlp").config.replace(dataset="digits", hidden=(8,), latent_dim=2, epochs=1)
    with monkeypatch.context() as patch:
        patch.setattr(training, "save_model", press_ctrl_c)
        with pytest.raises(RunStopped):
            training.train(config, path, quiet())
    saved = list((path / "checkpoints").glob("step-*"))
    assert saved
    for checkpoint in saved:
        damage(checkpoint)
    with pytest.raises(InputError, match="Every checkpoint .* is damaged.*To start over") as refused:
        training.train(config, path, quiet())
    remove, again = str(refused.value).partition("on purpose: ")[2].split(" && ")
    assert shlex.split(remove) == ["rm", "-r", "--", str(path)]
    assert parsed(again, monkeypatch) == (config, path)
    assert [checkpoint.exists() for checkpoint in saved] == [True] * len(saved)


@pytest.mark.parametrize("folder", ["tensorboard", "samples", "figures", "export", "checkpoints"])
def test_a_folder_of_a_run_that_is_a_file_is_named_in_one_line(folder, tmp_path, capsys):
    run = Run.create(tmp_path / "run", Config().replace(dataset="digits"), {})
    if (run.path / folder).exists():
        (run.path / folder).rmdir()
    (run.path / folder).touch()
    for command in (["train", "--run-dir"], ["evaluate"], ["report"]):
        assert cli.main([*command, str(run.path)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "exists already" in line or f"{run.path / folder} is not a folder" in line


# -- what goes on, and what does not -------------------------------------------------------------------------------

TINY = get_preset("mlp").config.replace(dataset="digits", hidden=(8,), latent_dim=2, epochs=1, nll_samples=0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run, evaluated alone."""
    path = tmp_path_factory.mktemp("trained") / "a run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "complete", lambda *_: None)
        return training.train(TINY, path, quiet())


def test_a_killed_fit_prior_is_not_trained_over_but_done_again(trained, tmp_path, monkeypatch, capsys):
    path = tmp_path / "fitted [k=3]"
    arguments = [trained.path, path, 3, 2, 20, quiet()]
    with monkeypatch.context() as patch:
        patch.setattr(fitting, "complete", press_ctrl_c)
        with pytest.raises(RunStopped, match="Do it again with: ") as stopped:
            fitting.fit_prior(Run.open(arguments[0]), *arguments[1:])
    command = str(stopped.value).partition("Do it again with: ")[2]
    before = {file.name: file.stat().st_mtime_ns for file in path.iterdir()}
    assert "model.keras" in before
    for words in (["train", "--run-dir", str(path)], ["train", "mlp", "--run-dir", str(path)]):
        assert cli.main(words) == 2
        assert f"Continue with: {command}" in capsys.readouterr().err
    assert {file.name: file.stat().st_mtime_ns for file in path.iterdir()} == before
    with pytest.raises(InputError, match="exists already"):
        fitting.fit_prior(Run.open(arguments[0]), path, 4, 2, 20, quiet())
    monkeypatch.setattr(fitting, "complete", lambda *arguments: training.evaluate(*arguments, 0))
    assert cli.main(shlex.split(command)[1:]) == 0
    assert Run.open(path).load_model().prior.num_components == 3
    assert not (path / "checkpoints").exists()


def test_a_disk_that_is_full_in_the_export_is_no_bad_input_and_the_run_goes_on(trained, tmp_path, monkeypatch):
    import tensorflow as tf

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    def export(run, model, *_):
        training.serving.export_saved_models(model, run.path / "export")

    path = tmp_path / "run"
    monkeypatch.setattr(training, "complete", export)
    with monkeypatch.context() as patch:
        patch.setattr(tf.saved_model, "save", full)
        with pytest.raises(RunStopped, match="No space left on device.*Make room and continue with: ") as stopped:
            training.train(TINY, path, quiet())
    assert stopped.value.exit_code == 1  # 2 would keep a supervisor from starting it again
    assert parsed(str(stopped.value).partition("continue with: ")[2], monkeypatch) == (TINY, path)
    monkeypatch.setattr(training, "complete", lambda *_: None)
    training.train(TINY, path, quiet())
    for left, right in zip(Run.open(path).load_model().get_weights(), trained.load_model().get_weights()):
        np.testing.assert_array_equal(left, right)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="There is no /dev/full here.")
def test_a_full_standard_output_stops_a_training_that_says_how_to_go_on(tmp_path):
    with pytest.raises(RunStopped, match="standard output.*Make room and continue with: ") as stopped:
        training.train(TINY, tmp_path / "run", Console(file=open("/dev/full", "w")))
    assert stopped.value.exit_code == 1


def test_a_stopped_evaluation_quotes_the_command_that_goes_on(trained, monkeypatch, capsys):
    monkeypatch.setattr("keras_vae.scoring.evaluate", press_ctrl_c)
    words = ["evaluate", str(trained.path), "--samples", "7", "--estimator", "prior", "--images", "3"]
    assert cli.main(words) == 130
    assert capsys.readouterr().err.strip().endswith(f"Continue with: {shlex.join(['keras-vae', *words])}")


def test_a_checkpoint_that_cannot_be_read_is_no_failure_to_write(tmp_path, monkeypatch):
    run = Run.create(tmp_path / "run", TINY, {"data": runs.data_facts(runs.open_data(TINY))})
    (run.checkpoints / "step-0000000001.checkpoint").mkdir()
    with pytest.raises(RunStopped, match="step-0000000001.checkpoint") as stopped:
        training.train(TINY, run.path, quiet())
    assert "write" not in str(stopped.value)


def test_a_run_that_goes_on_under_other_versions_says_so(tmp_path, monkeypatch):
    run = Run.create(tmp_path / "run", TINY, {"data": runs.data_facts(runs.open_data(TINY))})
    run.add_facts(versions={**run.facts["versions"], "keras": "3.1.0"})
    monkeypatch.setattr(training, "complete", lambda *_: None)
    log = open(tmp_path / "log.txt", "w+")
    training.train(TINY, run.path, Console(file=log))
    log.seek(0)
    assert "WARNING: it was started with keras 3.1.0 (now " in log.read()
