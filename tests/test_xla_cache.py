"""The cache of compiled programs: it changes no bit, and nothing that is wrong with it stops a run."""

import os
import subprocess
import sys

import pytest

from keras_vae import xla_cache


@pytest.fixture
def environment(monkeypatch):
    monkeypatch.delenv(xla_cache.FLAGS, raising=False)
    monkeypatch.setattr(xla_cache, "_version", lambda: "2.21.0")
    return monkeypatch


def folder_of(environment, place):
    environment.setenv(xla_cache.VARIABLE, str(place))
    xla_cache.use()
    return os.environ.get(xla_cache.FLAGS, "").partition("=")[2]


def test_each_tensorflow_has_a_folder_of_its_own_that_only_its_user_writes(environment, tmp_path):
    folder = folder_of(environment, tmp_path)
    assert os.path.basename(folder).startswith("2.21.0-") and os.stat(folder).st_mode & 0o077 == 0


@pytest.mark.parametrize("case", ["off", "flags of the user", "older", "a file", "writable by all", "a space"])
def test_no_folder_is_used_that_was_not_meant_or_cannot_be_trusted(case, environment, tmp_path):
    place = {"off": "", "a file": tmp_path / "file", "a space": tmp_path / "a b"}.get(case, tmp_path)
    (tmp_path / "file").touch()
    if case == "flags of the user":
        environment.setenv(xla_cache.FLAGS, "--tf_xla_clustering_debug=x")
        assert folder_of(environment, place) == "x"
        return
    if case == "older":
        environment.setattr(xla_cache, "_version", lambda: "2.20.0")
    if case == "writable by all":
        os.chmod(folder_of(environment, place), 0o777)
        environment.delenv(xla_cache.FLAGS)
    assert not folder_of(environment, place)


def test_what_is_old_or_empty_is_removed(environment, tmp_path):
    folder = folder_of(environment, tmp_path)
    for name, content, age in (("old", "x", 40), ("empty", "", 0), ("good", "x", 20)):
        path = os.path.join(folder, name)
        with open(path, "w") as file:
            file.write(content)
        then = os.stat(path).st_mtime - age * 24 * 3600
        os.utime(path, (then, then))
    environment.delenv(xla_cache.FLAGS)
    folder_of(environment, tmp_path)
    assert os.listdir(folder) == ["good"]


TRAINING = """
from keras_vae import quiet
quiet.import_tensorflow()
import hashlib, keras, numpy as np
from keras_vae import VAE, networks
keras.utils.set_random_seed(0)
vae = VAE(*networks.build("mlp", (8, 8, 1), 2, hidden=(4,)), seed=0)
vae.compile("adam", jit_compile=True)
vae.fit(np.random.default_rng(0).random((64, 8, 8, 1), "float32"), batch_size=16, verbose=0)
print(hashlib.sha256(b"".join(weight.tobytes() for weight in vae.get_weights())).hexdigest())
"""


@pytest.mark.slow
@pytest.mark.skipif(
    tuple(map(int, xla_cache._version().split(".")[:2])) < xla_cache.TRIED, reason="This TensorFlow keeps nothing."
)
def test_a_program_from_the_cache_trains_to_the_same_bits(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != xla_cache.FLAGS}
    environment[xla_cache.VARIABLE] = str(tmp_path)
    printed, kept = [], []
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", TRAINING], check=True, env=environment, capture_output=True)
        printed.append(done.stdout)
        kept.append(sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*.pb")))
    assert kept[0] and kept[0] == kept[1]  # the second compiled nothing
    assert printed[0] and printed[0] == printed[1]
