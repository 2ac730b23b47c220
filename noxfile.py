"""Tries the package with the TensorFlow and the Keras that people have: `nox` writes docs/versions.md.

`nox -s "versions(oldest)"` tries one of them, and its row alone is new. MNIST is read from the four official files in
the folder that KERAS_VAE_MNIST_DIR names.
"""

import nox

nox.options.default_venv_backend = "uv|virtualenv"

ENVIRONMENTS = {
    "oldest": ["tensorflow==2.16.2", "keras==3.8.0"],
    "middle": ["tensorflow==2.19.1", "keras==3.10.0"],
    "newest": ["tensorflow==2.21.*", "keras==3.15.*"],
    "pre-release": ["tf-nightly", "keras-nightly"],
}


@nox.session
@nox.parametrize("name", list(ENVIRONMENTS), ids=list(ENVIRONMENTS))
def versions(session, name):
    """Installs the wheel beside one pair, and runs some tests and the command line there."""
    early = ["--prerelease=allow" if session.venv_backend == "uv" else "--pre"] if name == "pre-release" else []
    session.install(*early, ".[train]", "pytest", *ENVIRONMENTS[name])
    session.run("python", "benchmarks/versions.py", name)
