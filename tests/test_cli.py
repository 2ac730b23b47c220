"""The command line: what is refused, how it is said, and that nothing is left behind or lost."""

import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from conftest import SAMPLES, only_trained
from PIL import Image

from keras_vae import cli, registry
from keras_vae.config import Config, axes_of, options_of, sections

SHORT = ["--dataset", "digits", "--epochs", "1", "--hidden", "8", "--latent-dim", "2", "--nll-samples", "2"]


def keras_vae(capsys, *arguments):
    """Runs the command line in this process. Returns (exit code, standard output, standard error)."""
    capsys.readouterr()
    code = cli.main([str(argument) for argument in arguments])
    output = capsys.readouterr()
    return code, output.out, output.err


@pytest.fixture(scope="module")
def autoencoder_run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "autoencoder"
    with only_trained():
        assert cli.main(["train", "denoising-autoencoder", "--network", "mlp", *SHORT, "--run-dir", str(path)]) == 0
    return path


def save_npy(path, images):
    np.save(path, images)
    return path


def bad_images(folder):
    """Name -> (path of bad input, a part of the message)."""
    good = np.full((20, 8, 8), 0.5, "float32")
    (folder / "empty").mkdir()
    (folder / "corrupt").mkdir()
    for name in ("a", "b", "c"):
        Image.fromarray(np.zeros((8, 8), "uint8")).save(folder / "corrupt" / f"{name}.png")
    (folder / "corrupt" / "b.png").write_bytes((folder / "corrupt" / "b.png").read_bytes()[:30])
    np.savez(folder / "cut.npz", images=good)
    (folder / "cut.npz").write_bytes((folder / "cut.npz").read_bytes()[:300])
    nan = good.copy()
    nan[3, 2, 1] = np.nan
    return {
        "wrong rank": (save_npy(folder / "rank.npy", good[0, 0]), "[n, h, w]"),
        "nan": (save_npy(folder / "nan.npy", nan), "NaN"),
        "negative": (save_npy(folder / "negative.npy", good - 1), "under --likelihood gaussian"),
        "over one": (save_npy(folder / "over.npy", good * 255), "divide 8-bit images by 255"),
        "vectors over one": (save_npy(folder / "vectors.npy", good[0] * 4), "under --likelihood gaussian"),
        "objects": (save_npy(folder / "objects.npy", np.full((2, 1), None)), "expected arrays of numbers"),
        "text": (save_npy(folder / "text.npy", np.array(["a", "b"])), "Received"),
        "empty folder": (folder / "empty", "PNG"),
        "corrupt png": (folder / "corrupt", "b.png"),
        "truncated npz": (folder / "cut.npz", "cut.npz"),
        "missing": (folder / "none.npy", "none.npy"),
    }


BAD_IMAGES = (
    "wrong rank", "nan", "negative", "over one", "vectors over one", "objects", "text", "empty folder", "corrupt png",
    "truncated npz", "missing",
)  # fmt: skip


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_bad_images_are_refused_in_one_line_and_nothing_is_written(name, tmp_path, capsys):
    path, expected = bad_images(tmp_path)[name]
    code, _, error = keras_vae(capsys, "train", "--dataset", path, "--run-dir", tmp_path / "run")
    assert code == 2
    assert expected.lower() in error.lower()
    assert error.count("\n") == 1 and error.startswith("keras-vae: error: ")
    assert not (tmp_path / "run").exists()


BAD_ARGUMENTS = {
    "unknown preset": (["mpl"], "denoising-autoencoder"),
    "unknown dataset": (["--dataset", "mnits"], "mnist"),
    "unknown likelihood": (["--likelihood", "poisson"], "bernoulli"),
    "unknown network": (["--network", "transformer"], "conv"),
    "unknown option": (["--latent-dims", "2"], "--latent-dim"),
    "latent dimension 0": (["--latent-dim", "0"], "latent_dim"),
    "no epochs": (["--epochs", "0"], "epochs"),
    "not a number": (["--learning-rate", "fast"], "--learning-rate"),
    "learning rate NaN": (["--learning-rate", "nan"], "learning_rate"),
    "size that the network cannot make": (["conv", "--dataset", "digits", "--image-size", "30"], "divisible"),
    "missing config": (["--config", "nowhere.json"], "nowhere.json"),
    "unwritable folder": (["--dataset", "digits", "--run-dir", "/dev/null/run"], "/dev/null"),
}


@pytest.mark.parametrize("name", BAD_ARGUMENTS)
def test_bad_arguments_are_refused_in_one_line_and_nothing_is_written(name, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments, expected = BAD_ARGUMENTS[name]
    code, _, error = keras_vae(capsys, "train", *arguments)
    assert code == 2
    assert expected in error
    assert error.count("\n") == 1 and error.startswith("keras-vae: error: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["{", "[]", '{"config": {"model": {"latent": 2}}}', '{"config": {"modle": {}}}'])
def test_a_config_with_an_unknown_key_or_no_json_is_refused(content, tmp_path, capsys):
    (tmp_path / "config.json").write_text(content)
    code, _, error = keras_vae(capsys, "train", "--config", tmp_path / "config.json", "--run-dir", tmp_path / "run")
    assert code == 2 and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_full_disk_is_seen_before_training_starts(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 99, 1))
    code, _, error = keras_vae(capsys, "train", *SHORT, "--run-dir", tmp_path / "run")
    assert code == 2 and "full" in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_an_existing_run_is_never_overwritten(run, capsys):
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    code, _, error = keras_vae(capsys, "train", *SHORT, "--run-dir", run)
    assert code == 2 and "exists" in error
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


@pytest.mark.parametrize(
    "command", ["evaluate", "audit", "compare", "export", "generate", "reconstruct", "encode", "report"]
)
def test_a_folder_that_is_no_run_is_refused_by_every_command(command, tmp_path, capsys):
    for path in (tmp_path, tmp_path / "missing"):
        code, _, error = keras_vae(capsys, command, path)
        assert code == 2 and "run directory" in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["no model", "damaged model", "damaged config"])
def test_a_damaged_run_is_refused(damage, run, tmp_path, capsys):
    copy = shutil.copytree(run, tmp_path / "run")
    if damage == "no model":
        (copy / "model.keras").unlink()
    elif damage == "damaged model":
        (copy / "model.keras").write_bytes((copy / "model.keras").read_bytes()[:5000])
    else:
        (copy / "config.json").write_text((copy / "config.json").read_text()[:50])
    code, _, error = keras_vae(capsys, "generate", copy)
    assert code == 2 and error.count("\n") == 1 and str(copy) in error


def test_an_autoencoder_has_no_prior_to_generate_from(autoencoder_run, capsys):
    code, _, error = keras_vae(capsys, "generate", autoencoder_run)
    assert code == 2 and "no prior" in error


def test_a_wrong_target_is_refused_before_work(run, tmp_path, capsys):
    for command in ("generate", "reconstruct"):
        code, _, error = keras_vae(capsys, command, run, "--to", tmp_path / "out.jpg")
        assert code == 2 and ".npy" in error
    code, _, error = keras_vae(capsys, "encode", run, "--to", tmp_path / "out.npy")
    assert code == 2 and ".npz" in error
    assert list(tmp_path.iterdir()) == []


def test_generate_repeats_itself_for_a_seed_and_not_for_another(run, tmp_path, capsys):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert (
            keras_vae(capsys, "generate", run, "--count", 5, "--seed", seed, "--to", tmp_path / f"{name}.npy")[0] == 0
        )
    a, b, c = (np.load(tmp_path / f"{name}.npy") for name in "abc")
    assert a.shape == (5, 28, 28, 1) and a.dtype == np.float32 and 0 <= a.min() and a.max() <= 1
    np.testing.assert_array_equal(a, b)
    assert np.abs(a - c).max() > 0.01


def test_reconstruct_writes_originals_over_reconstructions(run, tmp_path, capsys):
    from keras_vae import data, plotting

    assert keras_vae(capsys, "reconstruct", run, "--count", 3, "--to", tmp_path / "grid.png")[0] == 0
    assert keras_vae(capsys, "reconstruct", run, "--count", 3, "--to", tmp_path / "images.npy")[0] == 0
    originals = data.to_pixels(data.open_dataset("digits").test.images[:3])
    reconstructions = np.load(tmp_path / "images.npy")
    assert np.abs(originals - reconstructions).max() > 0.1
    expected = plotting.image_grid(np.concatenate([originals, reconstructions]), columns=3)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "grid.png")), expected)


def test_encode_writes_what_the_model_gives_for_each_test_image(run, tmp_path, capsys):
    import keras

    from keras_vae import data

    assert keras_vae(capsys, "encode", run, "--to", tmp_path / "codes.npz")[0] == 0
    codes = np.load(tmp_path / "codes.npz")
    test = data.open_dataset("digits").test
    z_mean, z_log_var = keras.saving.load_model(run / "model.keras").encode(data.to_pixels(test.images))
    np.testing.assert_allclose(codes["z_mean"], z_mean, atol=1e-5)
    np.testing.assert_allclose(codes["z_log_var"], z_log_var, atol=1e-5)
    np.testing.assert_array_equal(codes["labels"], test.labels)


def test_evaluate_gives_the_same_again(run_copy, capsys):
    first = json.loads((run_copy / "evaluation.json").read_text())["results"]
    samples, images = SAMPLES[1::2]
    assert keras_vae(capsys, "evaluate", run_copy, "--samples", samples, "--images", images)[0] == 0
    second = json.loads((run_copy / "evaluation.json").read_text())["results"]
    for name in ("mse", "active_units", "importance_weighted_loss"):
        assert second[name] == pytest.approx(first[name], rel=1e-5)
    assert second["loss"] == pytest.approx(first["loss"], rel=1e-5)


def test_a_stopped_evaluation_goes_on_with_the_same_command_to_the_same_bits(run, tmp_path, capsys, monkeypatch):
    from keras_vae import scoring
    from keras_vae.evaluation import marginal

    monkeypatch.setattr(marginal, "ROWS_IN_A_CALL", 20)
    whole, stopped = (shutil.copytree(run, tmp_path / name) for name in ("whole", "stopped"))
    arguments = ["--samples", "3", "--images", "60"]
    assert keras_vae(capsys, "evaluate", whole, *arguments)[0] == 0

    update = scoring._Partial.update
    with monkeypatch.context() as patch:
        patch.setattr(scoring._Partial, "update", lambda *given: (os.kill(os.getpid(), signal.SIGTERM), update(*given)))
        code, _, error = keras_vae(capsys, "evaluate", stopped, *arguments)
    assert code == 143 and "after 20 images" in error and f"Continue with: keras-vae evaluate {stopped}" in error
    assert (stopped / scoring.PARTIAL).is_file()
    assert (stopped / "evaluation.json").read_bytes() == (run / "evaluation.json").read_bytes()
    batches = []
    monkeypatch.setattr(scoring._Partial, "update", lambda self, results: batches.append(len(results["log_marginal"])))
    assert keras_vae(capsys, "evaluate", stopped, *arguments)[0] == 0
    assert batches == [40, 60]
    assert (stopped / "evaluation.json").read_bytes() == (whole / "evaluation.json").read_bytes()
    assert not (stopped / scoring.PARTIAL).exists()


def test_what_is_left_of_another_evaluation_is_not_taken(run, tmp_path):
    from keras_vae import scoring
    from keras_vae.runs import Run

    copy = Run.open(shutil.copytree(run, tmp_path / "run"))
    partial = scoring._Partial(copy, {"nll_samples": 3}, None)
    np.savez(partial.path, key=partial.key, log_marginal=np.zeros(2))
    assert list(partial.load()) == ["log_marginal"]
    assert scoring._Partial(copy, {"nll_samples": 4}, None).load() is None
    partial.path.write_bytes(partial.path.read_bytes()[:50])
    assert partial.load() is None


def test_compare_refuses_runs_that_were_not_scored_alike(run, tmp_path, capsys):
    other = shutil.copytree(run, tmp_path / "other")
    card = json.loads((other / "evaluation.json").read_text())
    card["protocol"]["nll_samples"] = 5000
    (other / "evaluation.json").write_text(json.dumps(card))
    code, out, error = keras_vae(capsys, "compare", run, other)
    assert code == 2 and "nll_samples: 3 in" in error and error.count("\n") == 1 and not out
    code, out, _ = keras_vae(capsys, "compare", run, other, "--allow-mixed", "--format", "markdown")
    assert code == 0 and out.startswith("| run | nll_samples | objective |")
    for arguments in (["--html", tmp_path / "a.html"], ["--html", tmp_path / "a.txt", "--allow-mixed"]):
        code, out, error = keras_vae(capsys, "compare", run, other, *arguments)
        assert code == 2 and error.count("\n") == 1 and not out
    assert [path.name for path in tmp_path.iterdir()] == ["other"]
    code, out, _ = keras_vae(capsys, "compare", run, other, "--allow-mixed", "--html", tmp_path / "a.html")
    assert code == 0 and "nll_samples" in out and "were not scored alike" in (tmp_path / "a.html").read_text()


def test_audit_of_a_run_says_what_is_wrong_and_how_bad(run, tmp_path, capsys):
    code, out, _ = keras_vae(capsys, "audit", run)
    assert code == 0 and "0 errors" in out and "has none for grey pixels" in out
    copy = shutil.copytree(run, tmp_path / "copy")
    card = json.loads((copy / "evaluation.json").read_text())
    card["results"]["nll"] = 100.0
    (copy / "evaluation.json").write_text(json.dumps(card))
    code, out, _ = keras_vae(capsys, "audit", copy)
    assert code == 1 and "1 error," in out


def test_report_is_written_again_from_what_the_run_holds(run_copy, capsys):
    (run_copy / "report.html").unlink()
    code, out, _ = keras_vae(capsys, "report", run_copy)
    assert code == 0 and out.strip() == str(run_copy / "report.html")
    loss = json.loads((run_copy / "evaluation.json").read_text())["results"]["loss"]
    assert f"{loss:.2f}" in (run_copy / "report.html").read_text()


def test_every_config_field_is_an_option_and_the_only_source_of_its_help(capsys):
    _, help_text, _ = keras_vae(capsys, "train", "--help")
    words = " ".join(help_text.split())
    for section in sections(Config()).values():
        for name, field in (options_of(section) | axes_of(section)).items():
            assert f"--{name.replace('_', '-')}" in words
            assert " ".join(field.help.split()) in words.replace("- ", "-")
    for axis in registry.AXES:
        for flag, option in registry.flags(axis).items():
            assert f"--{flag.replace('_', '-')}" in words
            assert " ".join(registry.help_of(axis, option).split())[:40] in words.replace("- ", "-")


def test_an_option_reaches_the_config_of_the_run(run):
    config = json.loads((run / "config.json").read_text())["config"]
    assert (
        config["model"]["network"] == {**config["model"]["network"], "name": "mlp", "hidden": [16]}
        and config["model"]["latent_dim"] == 2
    )
    assert config["training"]["epochs"] == 2 and config["data"]["dataset"] == "digits"


def test_a_run_can_be_repeated_from_its_config(run, tmp_path, capsys):
    with only_trained():
        assert keras_vae(capsys, "train", "--config", run / "config.json", "--run-dir", tmp_path / "again")[0] == 0
    first, second = ((path / "history.csv").read_text() for path in (run, tmp_path / "again"))
    assert first == second


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["presets"]])
def test_help_does_not_wait_for_tensorflow(arguments):
    command = (
        "import sys; sys.argv[0] = 'keras-vae'; from keras_vae import cli; cli.main(sys.argv[1:]); "
        "print('tensorflow' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", command, *arguments], capture_output=True, text=True)
    assert result.stdout.strip().endswith("False") and not result.stderr


@pytest.mark.slow
def test_a_pipe_gets_lines_without_control_characters_and_no_chatter(tmp_path):
    command = [sys.executable, "-m", "keras_vae"]
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    result = subprocess.run(
        [*command, "train", *SHORT, "--epochs", "2", "--run-dir", tmp_path / "run"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0
    assert result.stderr == ""
    assert not {"\r", "\x1b", "\x08"} & set(result.stdout)
    lines = [line for line in result.stdout.splitlines() if line.startswith("epoch")]
    assert len(lines) == 2 and all("images/s" in line for line in lines) and "left" in lines[0]


def test_a_diverging_run_says_at_which_step_and_keeps_the_last_good_weights(tmp_path, capsys):
    import keras

    code, _, error = keras_vae(
        capsys, "train", *SHORT, "--optimizer", "sgd", "--learning-rate", "1e20", "--run-dir", tmp_path / "run"
    )
    assert code == 1
    assert "step" in error and "learning rate" in error and error.count("\n") == 1
    weights = keras.saving.load_model(tmp_path / "run" / "model.keras").get_weights()
    assert all(np.isfinite(weight).all() for weight in weights)
