"""Every command on every damaged file of a run, and on names of any characters: it works, or one line says why not."""

import base64
import io
import json
import os
import re
import shutil
import sys
import zipfile

import numpy as np
import pytest

from keras_vae import cli, evaluation, serving
from keras_vae.runs import Run

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


def edited(name, *path, value):
    """A damage that changes one value of a JSON file; the value `...` takes it away."""

    def damage(run):
        content = json.loads((run / name).read_text())
        inside = content
        for key in path[:-1]:
            inside = inside[key]
        if value is ...:
            del inside[path[-1]]
        else:
            inside[path[-1]] = value
        (run / name).write_text(json.dumps(content))

    return damage


def written(name, content):
    """A damage that writes other bytes into a file."""
    return lambda run: (run / name).write_bytes(content)


def instead(name, make):
    """A damage that puts something else in the place of a file or a folder."""

    def damage(run):
        path = run / name
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        path.parent.mkdir(exist_ok=True)
        make(path)

    return damage


def cut(name):
    return lambda run: (run / name).write_bytes((run / name).read_bytes()[: (run / name).stat().st_size // 2])


PICTURE = re.compile(rb"data:image/png;base64,([A-Za-z0-9+/=]+)")
SECRET = b"\x89PNG\r\n\x1a\nsecret"  # a picture outside of the run
DEEP = b"[" * 100_000
FILES = ("config.json", "evaluation.json", "evaluation.npz", "history.csv", "model.keras", "figures/samples.png")
PLACES = {  # what can stand where a file or a folder should
    "nothing": lambda path: None,
    "pipe": os.mkfifo,
    "folder": lambda path: path.mkdir(),
    "circle": lambda path: path.symlink_to(path.name),
    "link out": lambda path: path.symlink_to("../secret.png"),
    "file": lambda path: path.write_bytes(b"x"),
    "empty": lambda path: path.write_bytes(b""),
}
DAMAGES = {
    **{f"{name} cut": cut(name) for name in FILES},
    **{f"{name} garbage": written(name, bytes(range(256)) * 4) for name in FILES},
    **{f"{name} is {place}": instead(name, make) for name in FILES for place, make in PLACES.items()},
    **{
        f"{name} is {place}": instead(name, PLACES[place])
        for name in ("figures", "samples", "tensorboard", "export", "checkpoints")
        for place in ("file", "pipe", "circle")
    },
    **{
        f"{name} holds {content[:9]!r}": written(name, content)
        for name in ("config.json", "evaluation.json")
        for content in (b"[]", b"null", b"1", b'"a"', b"{}", b'{"a": 1}', DEEP, b"NaN", b"\xff\xfe")
    },
    **{
        f"config {path[-1]} {value!r}": edited("config.json", *path, value=value)
        for path in (["config"], ["data"], ["versions"], ["config", "model"], ["config", "preset"], ["created"])
        for value in (..., None, [], 1, "\x1b[2J", {"a": {}})
    },
    **{
        f"data {name} {value!r}": edited("config.json", "data", name, value=value)
        for name in ("name", "event_shape", "train_images")
        for value in (..., None, [], -1, "x", [8, 8], [10**9, 10**9, 3], {})
    },
    "config of 10**9 units": edited("config.json", "config", "model", "network", "hidden", value=[10**9]),
    "config of 10**30 units": edited("config.json", "config", "model", "network", "hidden", value=[10**30]),
    **{
        f"card {name} {value!r}": edited("evaluation.json", name, value=value)
        for name in ("protocol", "results", "model", "units", "versions")
        for value in (..., None, [], 1, {"a": {}}, {"a": [None]}, {"\x1b]52;c;aGk=\x07": 1.0})
    },
    **{
        f"result {name} {value!r:.20}": edited("evaluation.json", "results", name, value=value)
        for name in ("loss", "kl_per_dimension", "mse", "importance_weighted_loss_by_samples")
        for value in (..., None, float("nan"), 1e400, "x", [], [1.0], [1.0] * 99, {"a": 1}, {"2": 1.0}, True, 10**400)
    },
    **{
        f"history {content[:20]!r}": written("history.csv", content)
        for content in (
            b"epoch\n0\n", b"loss\n1\n", b"epoch,loss\n", b"epoch,loss\n0,x\n", b"epoch,loss\n0,1,2\n",
            b"epoch,loss\n0\n",
            b"epoch,loss\n0,nan\n1,inf\n", b"epoch,loss\n1,1\n0,1\n", b"epoch,epoch\n0,0\n", b"\x00,\x00\n", b'"',
            b"epoch,val_loss\n0," + b"9" * 5000 + b"\n", b"epoch,loss\nnan,1\n",
        )
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def tried(whole, tmp_path_factory):
    """A callable: names of commands and a damage -> what went wrong, one line each."""
    folder = tmp_path_factory.mktemp("damaged")
    (folder / "secret.png").write_bytes(SECRET)

    def trial(names, damage, capsys):
        wrong = []
        for name in names:
            run = shutil.copytree(whole, folder / "run")
            (folder / "out").mkdir()
            DAMAGES[damage](run)
            try:
                code, out, error = keras_vae(capsys, FAMILY.get(name, name), *commands(run, folder / "out")[name])
            except Exception as exception:
                wrong.append(f"{name}: {damage}: {exception!r:.200}")
            else:
                if code not in ((0, 1, 2) if name == "audit" else (0, 2)) or error.count("\n") != (code == 2):
                    wrong.append(f"{name}: {damage}: exit code {code}, {error!r:.200}")
                if "\x1b" in out + error:
                    wrong.append(f"{name}: {damage}: an escape sequence is printed")
                files = [path for path in (*folder.glob("out/**/*"), run / "report.html") if path.is_file()]
                shown = [part for path in files for part in PICTURE.findall(path.read_bytes())]
                if any(b"secret" in base64.b64decode(part) for part in shown):
                    wrong.append(f"{name}: {damage}: a picture outside of the run is shown")
            shutil.rmtree(run)
            shutil.rmtree(folder / "out")
        return wrong

    return trial


def made_once(make, key):
    """Makes one thing of what has the same key."""
    made = {}

    def get(*given):
        if key(*given) not in made:
            made[key(*given)] = make(*given)
        return made[key(*given)]

    return get


@pytest.fixture
def quick(whole, monkeypatch):
    """Takes what is computed from the run before it was damaged: what is left is what reads its files."""
    model = Run.open(whole).load_model()
    results = Run.open(whole).read_card()["results"]
    audit = sys.modules["keras_vae.evaluation.audit"]
    checks = audit._checks
    of_the_card = (audit.written.NAMES, audit.written.VALUES)  # the others look at the model alone
    monkeypatch.setattr(audit, "_checks", lambda *given: [one for one in checks(*given) if one[0] in of_the_card])
    monkeypatch.setattr(audit, "Subject", made_once(audit.Subject, lambda *_: None))
    monkeypatch.setattr(audit.written, "_Sample", made_once(audit.written._Sample, lambda *given: given[3:5]))
    monkeypatch.setattr(evaluation, "evaluate", lambda *_, **__: results)
    monkeypatch.setattr(serving, "export_saved_models", lambda *_, **__: serving.export.Export("", 1, {}))
    return model


READERS = ("audit", "compare", "compare-html", "report", "publish")  # of evaluation.json and history.csv
PART = ("figures/samples.png is link out", "evaluation.json is pipe", "evaluation.npz cut",
        "history.csv is folder", "config of 10**9 units",
        "evaluation.json is nothing", "result loss None", "result loss [1.0]",
        "card results {'\\x1b]52;c;aGk=\\x07': 1.0}")  # fmt: skip


@pytest.mark.parametrize("damages", [PART, pytest.param(tuple(DAMAGES), marks=pytest.mark.slow)], ids=["some", "all"])
def test_every_command_reads_any_damaged_run_or_refuses_it_in_one_line(damages, tried, quick, capsys, monkeypatch):
    load = Run.load_model
    wrong = []
    for damage in damages:
        monkeypatch.setattr(Run, "load_model", load if "model" in damage else lambda self: quick)
        of_results = damage.startswith(("card ", "result ", "history"))
        wrong += tried(READERS if of_results else (*READERS, "evaluate", "generate", "export"), damage, capsys)
    assert wrong == []


def test_a_published_config_of_many_units_takes_no_memory(whole, tmp_path, capsys):
    assert keras_vae(capsys, "publish", whole, "--to", tmp_path / "p", "--no-export")[0] == 0
    for units in (10**9, 10**30):
        edited("config.json", "config", "model", "hidden", value=[units])(tmp_path / "p")
        code, _, error = keras_vae(capsys, "generate", tmp_path / "p")
        assert code == 2 and error.count("\n") == 1 and "weights.npz" in error + "weights.npz" * (units > 10**18)


def test_a_published_folder_is_evaluated_like_its_run(whole, tmp_path, capsys):
    assert keras_vae(capsys, "publish", whole, "--to", tmp_path / "p", "--no-export")[0] == 0
    config = json.loads((tmp_path / "p" / "config.json").read_text())
    config["config"]["data"]["dataset"] = str(whole.parent / f"{NAME}.npz")  # its readers have the data elsewhere
    (tmp_path / "p" / "config.json").write_text(json.dumps(config))
    assert keras_vae(capsys, "evaluate", tmp_path / "p", "--samples", 2)[0] == 0
    first, second = (json.loads((path / "evaluation.json").read_text())["results"] for path in (whole, tmp_path / "p"))
    assert second["loss"] == pytest.approx(first["loss"], rel=1e-5)


def test_a_header_that_lies_takes_no_memory(tmp_path, capsys):
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, {"descr": "<f4", "fortran_order": False, "shape": (10**12, 8, 8)})
    with zipfile.ZipFile(tmp_path / "lie.npz", "w") as file:
        file.writestr("images.npy", content.getvalue() + b"1234")
    code, _, error = keras_vae(capsys, "train", "--dataset", tmp_path / "lie.npz", "--run-dir", tmp_path / "run")
    assert code == 2 and error.count("\n") == 1 and "claims" in error
