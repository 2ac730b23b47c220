"""Tries the package with the TensorFlow and the Keras that people have: `nox` writes docs/versions.md.

`nox -s "versions(oldest)"` tries one of them, and its row alone is new. MNIST is read from the four official files in
the folder that KERAS_VAE_MNIST_DIR names.
"""

import nox

nox.options.default_venv_backend = "uv|virtualenv"

ENVIRONMENTS = {  # name -> Python, and what is installed beside the wheel
    "oldest": ("3.10", ["tensorflow==2.16.2", "keras==3.8.0"]),
    "middle": ("3.12", ["tensorflow==2.19.1", "keras==3.10.0"]),
    "newest": ("3.13", ["tensorflow==2.21.*", "keras==3.15.*"]),
    "pre-release": ("3.13", ["tf-nightly", "keras-nightly"]),
}


@nox.session
@nox.parametrize(
    "python, name",
    [(python, name) for name, (python, _) in ENVIRONMENTS.items()],
    ids=list(ENVIRONMENTS),
)
def versions(session, name):
    """Installs the wheel beside one pair, and runs some tests and the command line there."""
    early = ["--prerelease=allow" if session.venv_backend == "uv" else "--pre"] if name == "pre-release" else []
    tests = ["pytest", "pip", "hatchling", "scipy", "pyyaml"]
    session.install(*early, ".[train]", *tests, *ENVIRONMENTS[name][1])
    session.run("python", "benchmarks/versions.py", name)
