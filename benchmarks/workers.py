"""Kills a worker of the multi-machine example, waits for the end, and writes benchmarks/workers.md.

    python benchmarks/workers.py [--seed 0]

Runs examples/multi-machine/local_workers.py with 2 and with 3 workers: alone, with the chief killed, and with another
worker killed. Then the same with workers that are each started again by themselves, as the Pods of
examples/multi-machine/kubernetes.yaml are. About ten minutes.
"""

import datetime
import json
import os
import platform
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import chaos
import click

TABLE = Path(__file__).with_suffix(".md")
EXAMPLE = chaos.REPOSITORY / "examples" / "multi-machine" / "local_workers.py"
ARGUMENTS = (
    "mlp --dataset digits --hidden 64 --latent-dim 4 --epochs 6 --batch-size 50 --binarization dynamic "
    "--nll-samples 5 --nll-images 50 --checkpoint-every 5"
).split()
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(chaos.REPOSITORY), "CUDA_VISIBLE_DEVICES": "-1"}
TIMEOUT = 900  # seconds
KILLS = 8  # with 2 and with 3 workers, the chief and the last, and two ways to start again


def supervised(workers, run_dir):
    """Starts the example. Returns its process and the file of what it says."""
    log = Path(f"{run_dir}.log")
    command = [sys.executable, str(EXAMPLE), str(workers), "--", *ARGUMENTS, "--run-dir", str(run_dir)]
    with open(log, "wb") as file:
        return subprocess.Popen(command, env=ENVIRONMENT, stdout=file, stderr=file), log


def kill_supervised(workers, victim, run_dir, chance):
    """Runs the example and kills one worker. Returns (what it was, the last step saved, the starts, exit code)."""
    process, log = supervised(workers, run_dir)
    step = wait_for_step(run_dir, chance.randint(20, 120), lambda: process.poll() is None)
    pids = re.search(r"started workers ([\d, ]+)", log.read_text())[1].split(", ")
    os.kill(int(pids[victim]), signal.SIGKILL)
    code = process.wait(TIMEOUT)
    return step, log.read_text().count("started workers"), code


def kill_unsupervised(workers, victim, run_dir, chance):
    """The same with workers that are started again one by one, at once, under the same address."""
    addresses = [f"127.0.0.1:{port}" for port in chaos.free_ports(workers)]

    def start(index):
        task = {"type": "worker", "index": index}
        environment = {**ENVIRONMENT, "TF_CONFIG": json.dumps({"cluster": {"worker": addresses}, "task": task})}
        command = [sys.executable, "-m", "keras_vae", "train", "--strategy", "multiworker", *ARGUMENTS]
        with open(f"{run_dir}.log", "ab") as log:
            return subprocess.Popen([*command, "--run-dir", str(run_dir)], env=environment, stdout=log, stderr=log)

    running = {index: start(index) for index in range(workers)}
    step = wait_for_step(run_dir, chance.randint(20, 120), lambda: running[victim].poll() is None)
    running[victim].send_signal(signal.SIGKILL)
    starts, deadline = 1, time.monotonic() + TIMEOUT
    while running and time.monotonic() < deadline:
        for index, process in list(running.items()):
            if process.poll() == 0:
                del running[index]
            elif process.poll() is not None:
                running[index] = start(index)
                starts += index == victim
        time.sleep(0.2)
    for process in running.values():
        process.kill()
    return step, starts, int(bool(running))


def wait_for_step(run_dir, step, alive):
    """Waits for a checkpoint of that step or a later one. Returns its step."""
    while alive():
        saved = [int(name[5:15]) for name in chaos.saved_steps(run_dir)]
        if saved and saved[-1] >= step:
            return saved[-1]
        time.sleep(0.01)
    raise RuntimeError("It ended before it could be killed:\n" + Path(f"{run_dir}.log").read_text()[-3000:])


def table(rows, seed):
    """The rows that there are so far, as Markdown."""
    from keras_vae.installed import version

    lines = [
        "# A worker is killed",
        "",
        f"Written by `python benchmarks/workers.py --seed {seed}` on {datetime.date.today()}: {os.cpu_count()} cores "
        f"({platform.machine()}), TensorFlow {version('tensorflow')}, Keras {version('keras')}, "
        f"Python {platform.python_version()}. No GPU was used; all workers ran on one machine.",
        "",
        "`examples/multi-machine/local_workers.py` with 2 and with 3 workers, one of them killed with SIGKILL, against "
        "the same left alone: weights, optimizer slots, history, evaluation and samples. 180 steps, a checkpoint every "
        "5 steps. `each by itself` starts only those workers again that ended, as a Job of Kubernetes does. "
        f"{len(rows)} of {KILLS} kills are done.",
        "",
        "| workers | killed | after step | started again | starts of the one killed | ended with | minutes |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *rows,
    ]
    return "\n".join(lines) + "\n"


@click.command(help=__doc__)
@click.option("--seed", default=0, show_default=True, help="Seed of the moments.")
def main(seed):
    chance, rows, wrong = random.Random(seed), [], 0
    with tempfile.TemporaryDirectory() as folder:
        for workers in (2, 3):
            alone = Path(folder) / f"alone-{workers}"
            process, log = supervised(workers, alone)
            if process.wait(TIMEOUT):
                raise RuntimeError(log.read_text()[-3000:])
            for how, kill in (("by the supervisor", kill_supervised), ("each by itself", kill_unsupervised)):
                for name, victim in (("the chief", 0), ("the last", workers - 1)):
                    run_dir = Path(folder) / f"{workers}-{kill.__name__}-{victim}"
                    began = time.monotonic()
                    step, starts, code = kill(workers, victim, run_dir, chance)
                    left, right = chaos.bits(alone), chaos.bits(run_dir) if code == 0 else {}
                    differing = [key for key in left.keys() | right.keys() if left.get(key) != right.get(key)]
                    wrong += bool(code or differing or starts < 2)
                    ended = f"exit code {code}" if code else ", ".join(differing) or "the same bits"
                    minutes = (time.monotonic() - began) / 60
                    rows.append(f"| {workers} | {name} | {step} | {how} | {starts} | {ended} | {minutes:.1f} |")
                    click.echo(rows[-1])
                    TABLE.write_text(table(rows, seed))
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
