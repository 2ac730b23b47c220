"""The site builds without a warning, and the commands and examples of README and docs/ run from top to bottom.

Each page runs in a folder of its own, in which the tour has been taken. Training is cut down: digits for MNIST, a few
units, one epoch, a few importance samples. In the tour alone a training draws and exports, and exports are verified.
"""

import contextlib
import doctest
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import yaml

import keras_vae
from keras_vae import cli, fitting, scoring, serving, training

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
TOUR = REPOSITORY / "docs" / "tour.md"
BLOCK = re.compile(r"^```(sh|python|pycon)\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
PAGES = [page for page in PAGES if page != TOUR and BLOCK.search(page.read_text())]

# The beginnings of commands that are not run here -> what runs them, or why nothing does.
ELSEWHERE = {
    "python -m venv": ".ci/run",
    "pip install": ".ci/run",
    "python -m sphinx": "below",
    "pytest": "this",
    "python benchmarks/": "takes minutes; each writes a table, which is committed",
    "ruff": "says itself whether it is content",
    "EXPORT=": "needs Docker; the files that it reads are checked in tests/test_serving_clients.py",
    "python export/client.py": "tests/test_serving_clients.py",
    "export TF_CONFIG=": "tests/test_distribution.py",
    "keras-vae train conv --strategy multiworker": "tests/test_distribution.py",
    "python examples/multi-machine/local_workers.py": "tests/test_multi_machine.py",
    "keras-vae train --run-dir": "tests/test_checkpoints.py",
}


def smaller(config):
    """A config of the same kind that is trained in seconds."""
    data = config.data.dataset
    small = {"hidden": (8,) * len(getattr(config.model, "hidden", ())), "decoder_channels": 4, "prior_components": 10}
    return config.replace(
        dataset=data if os.path.exists(data) else "digits",
        **{name: value for name, value in small.items() if hasattr(config.model, name)},
        epochs=1,
        nll_samples=min(config.training.nll_samples, 5),
        nll_images=20,
    )


@contextlib.contextmanager
def cut_down(whole):
    """Makes commands and examples quick; unless `whole`, a training draws and exports nothing."""
    train, fit_prior, evaluate = training.train, fitting.fit_prior, scoring.evaluate
    load, fit = keras_vae.data.load, keras.Model.fit

    @contextlib.contextmanager
    def in_training():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(keras.Model, "fit", fit)
            if not whole:
                patch.setattr(training, "draw", lambda run, *_: (run.path / "figures").mkdir())
                patch.setattr(training, "write_report", lambda *_: None)
                patch.setattr(serving, "export_saved_models", lambda *_, **__: None)
            yield

    def small_training(config, run_dir, console=None):
        with in_training():
            return train(smaller(config), run_dir, console)

    def small_fit_prior(run, run_dir, components, samples, images, console=None):
        with in_training():
            return fit_prior(run, run_dir, components, min(samples, 10), 20, console)

    def few_samples(run, model, data, console, samples, images, *others):
        return evaluate(run, model, data, console, min(samples, 10), 20, *others)

    def few_steps(self, *args, **kwargs):
        return fit(self, *args, **{**kwargs, "epochs": 1, "steps_per_epoch": 3, "validation_steps": 1, "verbose": 0})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "train", small_training)
        patch.setattr(fitting, "fit_prior", small_fit_prior)
        patch.setattr(scoring, "evaluate", few_samples)
        patch.setattr(keras_vae.data, "load", lambda name, *args, **kwargs: load("digits", *args, **kwargs))
        patch.setattr(keras.Model, "fit", few_steps)
        if not whole:
            patch.setattr(serving, "verify_export", lambda directory, report, allowed: [])
        yield


def run_command(line):
    words = shlex.split(line, comments=True)
    if words[:2] == ["python", "train.py"]:
        words = ["keras-vae", "train", *words[2:]]
    if words and not line.startswith(tuple(ELSEWHERE)):
        assert words[0] == "keras-vae", f"{line!r} is neither run here nor named in ELSEWHERE"
        assert cli.main(words[1:]) == 0, line


def run_page(page, folder, whole=False):
    """Runs the blocks of a page in order, in `folder`, and with one namespace."""
    names = {"__name__": f"page_{page.stem}"}
    with contextlib.chdir(folder), cut_down(whole):
        for kind, block in BLOCK.findall(page.read_text()):
            print(f"--- {page.name}\n{block}", flush=True)
            if kind == "sh":
                for line in block.splitlines():
                    run_command(line)
            elif kind == "pycon":
                examples = doctest.DocTestParser().get_doctest(block, names, page.name, str(page), 0)
                options = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
                assert doctest.DocTestRunner(optionflags=options).run(examples, clear_globs=False).failed == 0
                names.update(examples.globs)
            else:
                exec(compile(block, str(page), "exec"), names)


@pytest.fixture(scope="module")
def toured(tmp_path_factory):
    """A folder in which somebody has taken the tour."""
    folder = tmp_path_factory.mktemp("tour")
    run_page(TOUR, folder, whole=True)
    return folder


@pytest.mark.slow
def test_the_tour_leaves_what_it_says(toured):
    for name in ("generated.png", "digits.png", "codes.npz", "vae.keras", "runs/mlp/report.html", "export/encoder/1"):
        assert (toured / name).exists(), name


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_blocks_of_a_page_run_in_order(page, toured, tmp_path):
    folder = tmp_path / "work"
    shutil.copytree(toured, folder)
    # what the pages take for granted: two runs to compare, and images of the reader's own
    for name in ("a", "b"):
        shutil.copytree(folder / "runs" / "mlp", folder / "runs" / name)
    images = np.random.default_rng(0).uniform(size=(40, 12, 12)).astype("float32")
    np.save(folder / "images.npy", images)
    (folder / "path" / "to" / "folder").mkdir(parents=True)
    for number, image in enumerate(images):
        keras.utils.save_img(folder / "path" / "to" / "folder" / f"{number}.png", image[..., None])
    run_page(page, folder)


@pytest.mark.slow
def test_a_block_that_fails_is_noticed(tmp_path):
    for block in ("sh\nkeras-vae generate nothing", "sh\nmake all", "python\n1 / 0", "pycon\n>>> 1\n2"):
        page = tmp_path / "page.md"
        page.write_text(f"```{block}\n```\n")
        with pytest.raises((AssertionError, ZeroDivisionError)):
            run_page(page, tmp_path)


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_its_notebook_runs(tmp_path):
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "docs", str(tmp_path / "site")]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*command, "-d", str(tmp_path / "doctrees")], cwd=REPOSITORY, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "image/png" not in (REPOSITORY / "docs" / "notebook.ipynb").read_text()  # it is kept without its outputs
    formulas = (tmp_path / "site" / "mathematics.html").read_text()
    assert formulas.count("<math") > 15 and "merror" not in formulas


def test_every_formula_stands_over_the_code_that_computes_it():
    parts = re.split(r"\n\n+", (REPOSITORY / "docs" / "mathematics.md").read_text())
    kinds = [part[:2] for part in parts if part.startswith(("$$", "```{literalinclude}"))]
    assert kinds.count("$$") > 15
    _, *others = "".join(kinds).split("$$")[1:]  # the first is the integral that nobody can compute
    assert all(others)


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["version"] == keras_vae.__version__
    assert citation["license"] == "Apache-2.0"
