"""The wheel holds everything, and works where there is no checkout."""

import email
import importlib.util
import os
import pathlib
import re
import shutil
import subprocess
import sys
import zipfile

import pytest

from keras_vae import cli

pytestmark = pytest.mark.slow
REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
CHATTER = re.compile(r"\d{4}-\d\d-\d\d|[IWEF]\d{4} |WARNING: All log|WARNING:(tensorflow|absl)|.*retracing")
TINY = "--dataset digits --epochs 1 --hidden 8 --latent-dim 2 --nll-samples 2 --nll-images 4".split()
# Each command, as somebody would give it, in an order in which each finds what it reads.
COMMANDS = [
    ["presets"],
    ["train", "mlp", *TINY, "--run-dir", "run"],
    ["evaluate", "run", "--samples", "2", "--images", "4"],
    ["fit-prior", "run", "--run-dir", "fitted", "--components", "2", "--samples", "2", "--images", "4"],
    ["compare", "run", "fitted", "--html", "both.html", "--allow-mixed"],
    ["generate", "mlp", "--to", "digits.png"],
    ["reconstruct", "run", "--to", "rows.png"],
    ["encode", "run", "--to", "codes.npz"],
    ["report", "run"],
    ["export", "run"],
    ["verify-export", "run/export"],
    ["publish", "run", "--to", "published"],
    ["audit", "run"],
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(REPOSITORY / "keras_vae", source / "keras_vae", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "hatch_build.py"):
        shutil.copy(REPOSITORY / name, source)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--wheel-dir", folder]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, source], check=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A folder into which the wheel is installed; what it depends on comes from the tests' environment."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", folder, wheel]
    subprocess.run(command, check=True)
    return folder


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder to work in, with no checkout in sight."""
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return email.message_from_bytes(archive.read(name))


def test_it_holds_every_file_of_the_package_and_nothing_else(wheel):
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    files = {path.relative_to(REPOSITORY) for path in (REPOSITORY / "keras_vae").rglob("*") if path.is_file()}
    expected = {path.as_posix() for path in files if "__pycache__" not in path.parts}
    parts = ("weights/mnist/mlp/weights.npz", "report/page/page.html", "py.typed")
    assert {f"keras_vae/{part}" for part in parts} <= expected
    assert held == expected


TARGET = re.compile(r"\]\((?!#)(.*?)\)|(?:src|href)=\"(.*?)\"")


def targets(text):
    """Addresses of the links and images of a readme."""
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return [link or image for link, image in TARGET.findall(text)]


def test_its_readme_has_no_link_or_image_that_needs_a_checkout(metadata):
    text = metadata.get_payload(decode=True).decode()
    assert 'signatures["serve"](z=tf.zeros((1, 20)))' in text, "code is left alone"
    assert "docs/installing.md" in text and metadata.get_all("Project-URL") is None
    assert [target for target in targets(text) if not target.startswith("https://")] == []


def test_its_readme_links_into_the_repository_once_that_has_an_address():
    spec = importlib.util.spec_from_file_location("hatch_build", REPOSITORY / "hatch_build.py")
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    found = targets(hook.for_index((REPOSITORY / "README.md").read_text(), "https://example.org/keras-vae"))
    assert len(found) > 12 and any(target.endswith(".png") for target in found)
    for target in found:
        kind = "raw" if target.endswith(".png") else "blob"
        path = target.removeprefix(f"https://example.org/keras-vae/{kind}/main/")
        assert path != target and (REPOSITORY / path).exists(), target


def test_its_metadata_say_who_what_and_for_which_python(metadata):
    assert metadata["Author"] and metadata["Keywords"] and metadata["License-Expression"] == "Apache-2.0"
    assert {"Typing :: Typed", "Programming Language :: Python :: 3.13"} <= set(metadata.get_all("Classifier"))
    needed = [line for line in metadata.get_all("Requires-Dist") if "extra ==" not in line]
    others = ("tensorflow", "keras", "tensorboard", "matplotlib", "scikit-learn")
    assert not [line for line in needed if line.startswith(others)], "beside another TensorFlow pip would add a second"


def test_commands_are_all_those_that_there_are():
    assert {command[0] for command in COMMANDS} == set(cli.cli.commands)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_a_command_runs_and_lets_tensorflow_say_nothing(command, installed, work):
    kept = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(
        [installed / "bin" / "keras-vae", *command],
        cwd=work,
        env={**kept, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
    )
    expected = {0, 1} if command[0] == "audit" else {0}  # 1: it found something, as in a model hardly trained
    assert done.returncode in expected and "Traceback" not in done.stderr, done.stderr
    assert not [line for line in done.stderr.splitlines() if CHATTER.match(line)]


def test_the_installed_package_is_what_ran(installed):
    code = "import sys; sys.argv = ['keras-vae']; import keras_vae; print(keras_vae.__file__)"
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(installed)},
                          cwd=installed, capture_output=True, text=True)  # fmt: skip
    assert pathlib.Path(done.stdout.strip()).is_relative_to(installed)
