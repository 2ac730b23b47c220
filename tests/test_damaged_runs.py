"""Every command on every damaged file of a run, and on names of any characters: it works, or one line says why not."""

import numpy as np
import pytest

from keras_vae import cli

NAME = "run[lr=1e-3] a[b] [red]c[] \\ ünï :smile: 'q'"  # patterns, markup, spaces and quotes
SHORT = ["--epochs", "1", "--hidden", "4", "--latent-dim", "2", "--batch-size", "8", "--nll-samples", "2"]


def keras_vae(capsys, *arguments):
    """Runs the command line in this process. Returns (exit code, standard output, standard error)."""
    capsys.readouterr()
    code = cli.main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run on tiny images, both of hostile names."""
    folder = tmp_path_factory.mktemp(NAME)
    images = np.random.default_rng(0).uniform(size=(40, 8, 8)).astype("float32")
    np.savez(folder / f"{NAME}.npz", images=images, labels=np.arange(40) % 4)
    path = folder / NAME
    assert cli.main(["train", "--dataset", str(folder / f"{NAME}.npz"), *SHORT, "--run-dir", str(path)]) == 0
    return path


def commands(run, folder):
    """Name -> arguments of each command that takes a run."""
    return {
        "evaluate": [run, "--samples", 2],
        "audit": [run],
        "compare": [run, run],
        "compare-html": [run, "--html", folder / "page.html"],
        "generate": [run, "--to", folder / "a.png"],
        "reconstruct": [run, "--to", folder / "b.npy"],
        "encode": [run, "--to", folder / "c.npz"],
        "report": [run],
        "export": [run, "--to", folder / "e"],
        "publish": [run, "--to", folder / "p", "--no-export"],
        "fit-prior": [run, "--run-dir", folder / "f", "--components", 2, "--samples", 2],
        "train": ["--config", run / "config.json", "--run-dir", folder / "t"],
        "train-from": ["--start-from", run, "--dataset", "none.npy", "--run-dir", folder / "s"],
        "continue": ["--run-dir", run],
    }


FAMILY = {"compare-html": "compare", "train-from": "train", "continue": "train"}


@pytest.mark.parametrize(
    "name", ["evaluate", "audit", "compare", "compare-html", "generate", "reconstruct", "encode", "report", "export"]
)
def test_names_of_any_characters_work(name, whole, tmp_path, capsys):
    folder = tmp_path / NAME
    folder.mkdir()
    code, out, error = keras_vae(capsys, FAMILY.get(name, name), *commands(whole, folder)[name])
    assert (code, error) == (0, "")
    if name in ("generate", "reconstruct", "encode"):
        assert NAME in out  # as it is, not as markup


def test_an_export_under_any_name_is_verified(whole, capsys):
    code, out, _ = keras_vae(capsys, "verify-export", whole / "export")
    assert code == 0 and ", 0 failed." in out and NAME in out
