"""Trains one model with several workers on this machine, and starts all of them again when one dies.

    python examples/multi-machine/local_workers.py 2 -- mlp --dataset digits --run-dir runs/two

The workers find each other by TF_CONFIG on the loopback, as they would over a network. What follows `--` are the
arguments of `keras-vae train`. There is no rejoining in tf.distribute: after the death of one worker all others are
stopped, and all start again from the last checkpoint in the run directory.

TensorFlow's servers listen on every interface of a machine, and whoever reaches them can read and write its files. So
all of this runs in a network namespace of its own, where there is nothing but the loopback, if the system allows one.
Data cannot be downloaded there: let `keras-vae train` prepare them before, or say --shared-network.
"""

import fcntl
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time

import click

GRACE = 10.0  # seconds between SIGTERM and SIGKILL
FINAL = {2}  # exit codes of bad input: starting again would not help
PRIVATE = "KERAS_VAE_PRIVATE_NETWORK"  # set in the network namespace
WARNING = (
    "supervisor: WARNING: the workers share the network of this machine. TensorFlow's servers listen on every "
    "interface, without authentication: whoever reaches them can read and write the files of this user. See "
    "docs/multi-machine.md."
)


def enter_private_network():
    """Starts this program again in a network namespace. Returns only there, or where the system allows none."""
    if os.environ.get(PRIVATE):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            up, set_flags = 0x1, 0x8914  # IFF_UP, SIOCSIFFLAGS
            fcntl.ioctl(any_socket, set_flags, struct.pack("16sh22x", b"lo", up))
        return True
    command = [shutil.which("unshare") or "", "--user", "--map-root-user", "--net", "--"]
    if not command[0] or subprocess.run([*command, "true"], capture_output=True).returncode:
        return False
    os.environ[PRIVATE] = "1"
    os.execv(command[0], [*command, sys.executable, *sys.argv])  # noqa: S606  no shell is needed


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def start(count, arguments):
    """Starts all workers, the first of them the chief. Returns a list of `Popen`."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(count)]
    workers = []
    for index in range(count):
        task = {"type": "worker", "index": index}
        environment = {**os.environ, "TF_CONFIG": json.dumps({"cluster": {"worker": addresses}, "task": task})}
        command = [sys.executable, "-m", "keras_vae", "train", "--strategy", "multiworker", *arguments]
        stdout = None if index == 0 else subprocess.DEVNULL
        # a group of its own, so that Ctrl-C reaches the supervisor alone
        workers.append(subprocess.Popen(command, env=environment, stdout=stdout, start_new_session=True))
    return workers


def stop(workers):
    """Ends all workers: politely first."""
    for worker in workers:
        worker.terminate()
    deadline = time.monotonic() + GRACE
    for worker in workers:
        try:
            worker.wait(max(0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:  # it waits for a peer that is gone
            worker.kill()
            worker.wait()


@click.command(help=__doc__)
@click.argument("count", type=click.IntRange(1))
@click.argument("arguments", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--restarts", default=10, show_default=True, help="How often to start again.")
@click.option("--shared-network", is_flag=True, help="Use the network of this machine, which others may reach.")
def main(count, arguments, restarts, shared_network):
    if shared_network or not enter_private_network():
        click.echo(WARNING, err=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    for attempt in range(restarts + 1):
        workers = start(count, arguments)
        click.echo(f"supervisor: started workers {', '.join(str(worker.pid) for worker in workers)}", err=True)
        try:
            while True:
                codes = [worker.poll() for worker in workers]
                if any(codes) or all(code == 0 for code in codes):
                    break
                time.sleep(0.2)
        finally:
            stop(workers)
        if not any(codes):
            return
        failed = {index: code for index, code in enumerate(codes) if code}
        click.echo(f"supervisor: exit codes by worker {failed}, attempt {attempt + 1}", err=True)
        if FINAL & set(failed.values()):
            break
    sys.exit(1)


if __name__ == "__main__":
    main()
