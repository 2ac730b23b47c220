"""Tries the installed package: some tests, and the command line on MNIST; writes its row of docs/versions.md.

    nox                                      # in an environment for each pair of TensorFlow and Keras: noxfile.py

MNIST goes through tensorflow-datasets, from the four official files in the folder that KERAS_VAE_MNIST_DIR names.
"""

import datetime
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
ROWS = REPOSITORY / "build" / "versions"
TABLE = REPOSITORY / "docs" / "versions.md"
EXECUTION = (
    "compiled_training_is_the_plain_one_to_rounding[mlp]",
    "nan_stops_a_program_at_its_step_with_the_weights_before",
)
TESTS = [
    "tests/test_layers.py",
    *(f"tests/test_execution.py::test_{name}" for name in EXECUTION),
    "tests/test_installed.py",  # another backend, other names of TensorFlow
    "tests/test_quiet.py",
    "tests/test_wheel.py",  # every command, where there is no checkout, without chatter
]
TRAIN = (
    "train mlp --dataset mnist --epochs 1 --batch-size 1000 --hidden 32 --latent-dim 2 --jit-compile on "
    "--nll-samples 5 --nll-images 100 --run-dir run"
).split()
COMMANDS = {
    "train": TRAIN,
    "generate": ["generate", "run", "--to", "digits.npy"],
    "verify-export": ["verify-export", "run/export"],
}
CHATTER = re.compile(r"\d{4}-\d\d-\d\d \d\d:|[IWEF]\d{4} \d\d:|WARNING: All log|WARNING:(tensorflow|absl)|.*retracing")
ORDER = ("oldest", "middle", "newest", "pre-release")


def run(command, **options):
    """(exit code, standard output, standard error) of a command in a process without settings of ours."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("TF_CPP", "PYTHONPATH"))}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, **options)
    return done.returncode, done.stdout, done.stderr


def try_out(name):
    """Everything that a row says."""
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for command, arguments in COMMANDS.items():
            arguments = [*arguments, "--data-dir", "data"] if command == "train" else arguments
            code, out, err = run([sys.executable, "-m", "keras_vae", *arguments], cwd=folder)
            chatter = [line for line in err.splitlines() if CHATTER.match(line)]
            print(command, code, *out.splitlines()[-3:], *err.splitlines()[-12:], sep="\n", flush=True)
            results[command] = "failed" if code else f"{len(chatter)} lines of chatter" if chatter else "ok"
        code, out, err = run([Path(sys.executable).with_name("pytest"), "-q", "-m", "", *TESTS], cwd=REPOSITORY)
    print(*out.splitlines()[-12:], err, sep="\n", flush=True)
    results["tests"] = re.sub(r" in .*", "", out.strip().splitlines()[-1]).strip("= ")
    ok = code == 0 and set(results.values()) <= {"ok", results["tests"]}
    return {
        **{package: version(package) for package in ("tensorflow", "keras", "numpy")},
        "protobuf": metadata.version("protobuf"),
        "python": platform.python_version(),
        **results,
        "result": "passed" if ok else "FAILED",
        "date": str(datetime.date.today()),
    }


def version(module):
    from keras_vae import installed

    return installed.version(module)


def write_table():
    rows = {name: json.loads(file.read_text()) for name in ORDER if (file := ROWS / f"{name}.json").is_file()}
    columns = list(next(iter(rows.values())))
    lines = [
        "# Versions",
        "",
        "What the package was tried with. Written by `nox` (`noxfile.py`, `benchmarks/versions.py`), which makes an",
        "environment for each row, installs the wheel with its extra `train`, trains on MNIST through",
        "tensorflow-datasets, generates, exports and verifies the export. The tests are those of the layers, of a",
        "compiled training, of what the package says where it cannot run, and of every command of the wheel outside of",
        "a checkout. A line of TensorFlow's own on standard error fails the row.",
        "",
        f"| environment | {' | '.join(columns)} |",
        f"| --- |{' --- |' * len(columns)}",
        *(f"| {name} | {' | '.join(row.values())} |" for name, row in rows.items()),
        "",
        "How to install beside each: [installing](installing.md).",
        "",
    ]
    TABLE.write_text("\n".join(lines))


def main(name):
    if not os.environ.get("KERAS_VAE_MNIST_DIR"):
        sys.exit("Set KERAS_VAE_MNIST_DIR to a folder with the four official MNIST files.")
    started = time.monotonic()
    row = try_out(name)
    ROWS.mkdir(parents=True, exist_ok=True)
    (ROWS / f"{name}.json").write_text(json.dumps(row, indent=2) + "\n")
    write_table()
    print(json.dumps(row, indent=2), f"{time.monotonic() - started:.0f} s", sep="\n")
    return row["result"] != "passed"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
