"""What the package says to an environment in which it cannot run, and that it runs under every name of TensorFlow."""

import importlib.abc
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys

import pytest

from keras_vae import installed

pytestmark = pytest.mark.usefixtures("no_keras_yet")


@pytest.fixture
def no_keras_yet(monkeypatch, tmp_path):
    """As if nothing had imported Keras, and with its settings in a folder of the test."""
    monkeypatch.delitem(sys.modules, "keras", raising=False)
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))


@pytest.fixture
def never_imports(monkeypatch):
    """Fails the test if something is imported, because Keras imports its backend, with tracebacks from its depths."""
    monkeypatch.setattr(installed.importlib, "import_module", lambda name: pytest.fail(f"{name} was imported"))


@pytest.mark.parametrize("backend", ["jax", "torch", "numpy", "openvino"])
def test_another_backend_in_the_environment_is_refused_before_keras_is_imported(backend, monkeypatch, never_imports):
    monkeypatch.setenv("KERAS_BACKEND", backend)
    with pytest.raises(
        ImportError, match=f"variable KERAS_BACKEND sets '{backend}'.*KERAS_BACKEND=tensorflow"
    ) as error:
        installed.check()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_another_backend_in_keras_json_is_refused_with_the_name_of_the_file(backend, tmp_path, never_imports):
    (tmp_path / "keras.json").write_text(json.dumps({"backend": backend, "floatx": "float32"}))
    with pytest.raises(ImportError, match=rf"keras\.json sets '{backend}'"):
        installed.check()


@pytest.mark.parametrize("content", ["", "not json", "[]", "{}", '{"backend": "tensorflow"}', '{"backend": "jax"}'])
def test_the_environment_comes_before_keras_json_and_a_damaged_file_is_as_none(content, tmp_path, monkeypatch):
    (tmp_path / "keras.json").write_text(content)
    assert installed._backend()[0] == ("jax" if "jax" in content else "tensorflow")
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    installed.check()


@pytest.mark.parametrize("missing", ["tensorflow", "keras"])
def test_what_is_missing_is_named_with_how_to_install_it(missing, monkeypatch, never_imports):
    monkeypatch.delitem(sys.modules, missing, raising=False)
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == missing else real(name, *rest))
    with pytest.raises(ImportError, match=rf'there is no {missing}\. .*pip install "keras-vae\[tensorflow\]"'):
        installed.check()


@pytest.mark.parametrize("name, old", [("tensorflow", "2.15.1"), ("keras", "2.15.0"), ("keras", "3.7.0")])
def test_what_is_too_old_is_named_with_its_version(name, old, monkeypatch):
    real = installed.version
    monkeypatch.setattr(installed, "version", lambda module: old if module == name else real(module))
    with pytest.raises(ImportError, match=rf"needs {name} [\d.]+ or later, and {old} is installed"):
        installed.check()


@pytest.mark.parametrize("newest", ["2.22.0-rc0", "2.23.0-dev20261026", "2.23.0", "3.0.0"])
def test_versions_of_candidates_and_nightly_builds_are_read(newest, monkeypatch):
    real = installed.version
    monkeypatch.setattr(installed, "version", lambda module: newest if module == "tensorflow" else real(module))
    installed.check()


def test_the_version_is_the_modules_whatever_its_distribution_is_called(monkeypatch):
    import tensorflow as tf

    def none_by_that_name(name):
        raise importlib.metadata.PackageNotFoundError(name)  # as beside tensorflow-cpu, tf-nightly, keras-nightly

    monkeypatch.setattr(importlib.metadata, "version", none_by_that_name)
    found = installed.versions()
    assert found["tensorflow"] == tf.__version__ and found["keras"].startswith("3.") and "numpy" in found
    assert "tensorflow-datasets" not in found


@pytest.mark.parametrize("module, distribution", installed.TRAIN.items())
def test_what_the_extra_train_brings_is_named_where_it_is_missing(module, distribution, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == module else name)
    installed.need(*set(installed.TRAIN) - {module})
    with pytest.raises(ImportError, match=rf'This needs {distribution}: .*pip install "keras-vae\[train\]"'):
        installed.need(*installed.TRAIN)


def test_a_protobuf_too_old_for_tensorflow_metadata_is_named(monkeypatch):
    """tensorflow-datasets swallows the error, and then lacks its `builder`."""
    from keras_vae.data import prepared

    schema = "tensorflow_metadata.proto.v0.schema_pb2"
    monkeypatch.delitem(sys.modules, schema, raising=False)

    class FromTheFuture(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path, target=None):
            if name == schema:
                raise RuntimeError("Detected incompatible Protobuf Gencode/Runtime versions")
            return None

    monkeypatch.setattr(sys, "meta_path", [FromTheFuture(), *sys.meta_path])
    with pytest.raises(ImportError, match=r'incompatible.*protobuf \S+\. .*install "tensorflow-metadata<1\.18"'):
        prepared.known_names()


def run(*command, cwd=None, **environment):
    return subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **environment},
        capture_output=True,
        text=True,
    )


def test_a_command_answers_another_backend_with_one_line():
    done = run("-m", "keras_vae", "generate", "mlp", KERAS_BACKEND="jax")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("keras-vae: error: keras_vae runs on")


@pytest.mark.slow
def test_importing_the_package_registers_the_models_and_finds_every_module():
    code = """
import keras_vae, keras
print(keras.saving.get_registered_object("keras_vae>VAE").__name__)
print([name for name in keras_vae.__all__ if not hasattr(keras_vae, name)], keras_vae.callbacks.__name__)
"""
    assert run("-c", code).stdout.split("\n")[:2] == ["VAE", "[] keras_vae.callbacks"]


@pytest.mark.slow
def test_arrays_are_fitted_saved_and_exported_without_the_extra_train(tmp_path):
    code = """
import sys
sys.modules.update({name: None for name in %r})
import numpy as np, keras_vae, keras
vae = keras_vae.VAE.from_preset("mlp")
vae.compile("adam")
vae.fit(np.zeros((8, 28, 28, 1)), batch_size=4, verbose=0)
vae.save("vae.keras")
keras_vae.export_saved_models(keras.saving.load_model("vae.keras"), "export")
print(vae.generate(2, seed=1).shape)
keras_vae.plotting.save_png(keras_vae.plotting.image_grid(vae.generate(2, seed=1)), "two.png")
try:
    keras_vae.plotting.samples(vae.generate(2, seed=1))
except ImportError as error:
    print(error)
""" % [*installed.TRAIN]
    done = run("-c", code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[0] == "(2, 28, 28, 1)" and "This needs matplotlib" in done.stdout
    assert (tmp_path / "export" / "decoder" / "1" / "saved_model.pb").is_file() and (tmp_path / "two.png").is_file()
