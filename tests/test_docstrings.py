"""The examples in docstrings and in the README run, and give what they say."""

import doctest
import importlib
import os
import pathlib
import re
import subprocess
import sys

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / "keras_vae"
MODULES = [
    ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted(PACKAGE.rglob("*.py"))
]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    failed, _ = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert failed == 0  # pytest shows what doctest printed


def python_blocks(path):
    return re.findall(r"^```python\n(.*?)^```", path.read_text(), flags=re.MULTILINE | re.DOTALL)


PAGES = [path for path in [REPOSITORY / "README.md"] if python_blocks(path)]

# The blocks run as they are, but a call of fit ends after 20 steps.
SHORT_FIT = """
import keras
_fit = keras.Model.fit
def _short_fit(self, *args, **kwargs):
    return _fit(self, *args, **{**kwargs, "epochs": 1, "steps_per_epoch": 20, "validation_steps": 2, "verbose": 0})
keras.Model.fit = _short_fit
"""


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_python_blocks_of_a_page_run_in_order(page, mnist_dir, mnist_data_dir, tmp_path):
    script = SHORT_FIT
    for number, block in enumerate(python_blocks(page), start=1):
        script += f"print('block {number}:', {block[:300]!r}, flush=True)\n{block}\n"
    environment = {
        **os.environ,
        "KERAS_VAE_MNIST_DIR": mnist_dir,
        "TFDS_DATA_DIR": str(mnist_data_dir),
        "MPLBACKEND": "Agg",
        "PYTHONPATH": str(REPOSITORY),
    }
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
