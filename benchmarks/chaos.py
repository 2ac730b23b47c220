"""Kills training runs at random moments until they are finished, and compares every bit with runs left alone.

    python benchmarks/chaos.py [--kills 12] [--case NAME ...] [--seed 0]

For each case: one run alone, then the same run with that many SIGKILLs, each at a random moment
and followed by the same command. Weights, optimizer slots, history, evaluation and pictures must be
the same. Writes benchmarks/chaos.md. About ten seconds for each kill.
"""

import datetime
import io
import json
import os
import platform
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import click
import h5py

TABLE = Path(__file__).with_suffix(".md")
REPOSITORY = TABLE.parents[1]
ARGUMENTS = (
    "mlp --dataset digits --hidden 64 --latent-dim 4 --epochs 60 --batch-size 50 --binarization dynamic "
    "--nll-samples 5 --nll-images 50 --sample-every 400 --checkpoint-every 1"
).split()
# One process of the command line that has so many logical CPU devices. What is not compared is left out.
PROCESS = """
import sys
devices = int(sys.argv[1])
if devices > 1:
    import tensorflow as tf
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * devices)
from keras_vae import cli, training
training.draw = training.write_report = lambda *_, **__: None
training.serving.export_saved_models = training.plotting.save_animation = lambda *_, **__: None
sys.exit(cli.main(["train", *sys.argv[2:]]))
"""
# name -> (processes, logical devices of each, options)
CASES = {
    "one device": (1, 1, ["--strategy", "none"]),
    "one device, bfloat16, conv": (
        1,
        1,
        "--strategy none --network conv --hidden 4,6 --mixed-precision bfloat16".split(),
    ),
    "two replicas": (1, 2, ["--strategy", "mirrored"]),
    "two workers": (2, 1, ["--strategy", "multiworker"]),
}


def start(case, run_dir, arguments):
    """Starts the processes of a case. Returns a list of `Popen`."""
    processes, devices, options = CASES[case]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "CUDA_VISIBLE_DEVICES": "-1"}
    environment.pop("TF_CONFIG", None)
    addresses = [f"127.0.0.1:{port}" for port in free_ports(processes)]
    started = []
    for index in range(processes):
        if processes > 1:
            task = {"type": "worker", "index": index}
            environment["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": task})
        command = [sys.executable, "-c", PROCESS, str(devices), *arguments, *options, "--run-dir", str(run_dir)]
        log = open(f"{run_dir}.{index}.log", "ab")
        started.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=REPOSITORY))
        log.close()
    return started


def finish(processes, timeout=600):
    """Waits for all processes. Returns their exit codes."""
    return [process.wait(timeout) for process in processes]


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def kill_one(processes, chance):
    """SIGKILLs one of the processes, and the others after it as a supervisor would."""
    victim = chance.choice(processes)
    died = victim.poll() is None
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    for process in processes:
        process.kill()
        process.wait()
    return died


def bits(run_dir):
    """Everything that a finished run comes to: name -> bytes."""
    run_dir = Path(run_dir)
    found = {}
    with zipfile.ZipFile(run_dir / "model.keras") as archive:
        weights = h5py.File(io.BytesIO(archive.read("model.weights.h5")))
    weights.visititems(
        lambda name, item: found.__setitem__(name, item[()].tobytes()) if isinstance(item, h5py.Dataset) else None
    )
    for path in [run_dir / "history.csv", run_dir / "evaluation.json", *(run_dir / "samples").iterdir()]:
        found[path.name] = path.read_bytes()
    return found


def differences(case, kills, folder, chance, arguments=ARGUMENTS, report=lambda line: None, pause=None):
    """Runs a case alone, if `folder` has no such run, and once more with so many kills.

    Args:
        case: Key of `CASES`.
        kills: Int, the SIGKILLs.
        folder: For the two runs, `alone` and `killed`.
        chance: The `random.Random` of the moments.
        arguments: Of `keras-vae train`.
        report: Called with a line about each kill.
        pause: Seconds, the longest time from a checkpoint to a kill; None for what spreads the kills over the run.

    Returns:
        Triple: names of what differs, the kills that met a live process, how many of them during training.
    """
    alone, killed = Path(folder) / "alone", Path(folder) / "killed"
    began = time.monotonic()
    codes = [0] if alone.exists() else finish(start(case, alone, arguments))
    if any(codes):
        raise RuntimeError(f"{case}: the run left alone ended with {codes}:\n" + logs(alone))
    seconds = time.monotonic() - began if pause is None else pause * kills / 0.3
    met = training = 0
    while met < kills:
        began = time.monotonic()
        processes = start(case, killed, arguments)
        if met and chance.random() < 0.25:  # while it starts
            time.sleep(chance.uniform(0, 0.3) * seconds)
        else:  # soon after it has saved again, so that the run is not over before its last kill
            seen = saved_steps(killed)
            while saved_steps(killed) == seen and any(process.poll() is None for process in processes):
                time.sleep(0.005)
            time.sleep(chance.uniform(0, 0.3) * seconds / kills)
        if all(process.poll() is not None for process in processes):
            break  # finished before it could be killed
        met += kill_one(processes, chance)
        saved = saved_steps(killed)
        training += bool(saved)
        report(f"{case}: kill {met} after {time.monotonic() - began:.1f} s, {saved[-1:] or 'nothing saved'}")
    if not (killed / "checkpoints").is_dir() and (killed / "config.json").is_file():
        codes = [0]
    else:
        codes = finish(start(case, killed, arguments))
    if any(codes):
        raise RuntimeError(f"{case}: the continued run ended with {codes}:\n" + logs(killed))
    left, right = bits(alone), bits(killed)
    return sorted(name for name in left.keys() | right.keys() if left.get(name) != right.get(name)), met, training


def saved_steps(run_dir):
    """Names of the checkpoints that are there, the newest last."""
    return sorted(path.name for path in (run_dir / "checkpoints").glob("step-*"))


def logs(run_dir):
    return "\n".join(path.read_text()[-3000:] for path in sorted(run_dir.parent.glob(f"{run_dir.name}.*.log")))


def table(rows, total, wrong, kills, seed):
    """The cases that are done so far, as Markdown."""
    from keras_vae.installed import version

    lines = [
        "# Kills",
        "",
        f"Written by `python benchmarks/chaos.py --kills {kills} --seed {seed}` on {datetime.date.today()}: "
        f"{os.cpu_count()} CPU cores ({platform.machine()}), TensorFlow {version('tensorflow')}, "
        f"Keras {version('keras')}, Python {platform.python_version()}. No GPU was used.",
        "",
        f"{total} SIGKILLs at random moments, a checkpoint at every step, and {wrong or 'no'} differing bit"
        f"{'s' if wrong > 1 else ''} in weights, optimizer slots, history, evaluation and samples.",
        "",
        "| case | SIGKILLs | of these after a first checkpoint | what differs | minutes |",
        "| --- | --- | --- | --- | --- |",
        *rows,
    ]
    return "\n".join(lines) + "\n"


@click.command(help=__doc__)
@click.option("--kills", default=12, show_default=True, help="SIGKILLs for each case.")
@click.option("--case", "names", multiple=True, type=click.Choice(list(CASES)), help="Cases.  [all]")
@click.option("--seed", default=0, show_default=True, help="Seed of the moments.")
def main(kills, names, seed):
    chance, rows, total, wrong = random.Random(seed), [], 0, 0
    for case in names or CASES:
        with tempfile.TemporaryDirectory() as folder:
            began = time.monotonic()
            differing, met, training = differences(case, kills, folder, chance, report=click.echo)
        minutes = (time.monotonic() - began) / 60
        total, wrong = total + met, wrong + len(differing)
        rows.append(f"| {case} | {met} | {training} | {', '.join(differing) or 'none'} | {minutes:.1f} |")
        click.echo(rows[-1])
        TABLE.write_text(table(rows, total, wrong, kills, seed))
    click.echo(f"{TABLE}: {total} kills, {wrong} differences")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
