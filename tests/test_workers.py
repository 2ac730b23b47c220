"""Workers: they find each other or say whom they miss, do the same or say what differs, and none waits for ever."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from keras_vae import workers
from keras_vae.config import InputError, RunStopped

PACKAGE = pathlib.Path(workers.__file__).parent
# A worker that waits inside of C for ever, as TensorFlow does for a peer: no handler of Python runs there.
STUCK = """
import ctypes, sys, types
package = types.ModuleType("keras_vae")  # without TensorFlow
package.__path__ = [sys.argv[1]]
sys.modules["keras_vae"] = package
from keras_vae import stopping, workers
workers.GRACE, workers.PATIENCE = 1, 3
with stopping.StopSignals("Start again.") as signals:
    peers = workers.join(workers.read_cluster(), {})
    signals.place = "in training"
    peers.watch(signals)
    peers.agree("all are there", {})
    print("joined", flush=True)
    mutex = ctypes.create_string_buffer(256)
    for _ in range(2):
        ctypes.CDLL(None).pthread_mutex_lock(mutex)
"""


@pytest.fixture
def addresses():
    with socket.socket() as one, socket.socket() as two, socket.socket() as three:
        servers = [one, two, three]
        for server in servers:
            server.bind(("127.0.0.1", 0))
        found = [f"127.0.0.1:{server.getsockname()[1]}" for server in servers]
    return found


def cluster(addresses, rank):
    return workers.Cluster(tuple(f"worker {index}" for index in range(len(addresses))), tuple(addresses), rank)


def together(*calls):
    """What each call returned or raised, all at the same time."""
    found = [None] * len(calls)

    def run(index):
        try:
            found[index] = calls[index]()
        except (InputError, RunStopped) as error:
            found[index] = error

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def close(found):
    for each in found:
        for connection in getattr(each, "sockets", {}).values():
            connection.close()


# -- TF_CONFIG -----------------------------------------------------------------------------------------------------

TWO = {"worker": ["a:1", "b:1"]}
REFUSED = {
    "{": "not valid JSON",
    "[]": "not valid JSON",
    json.dumps({"cluster": TWO}): "needs a task",
    json.dumps({"cluster": TWO, "task": {"type": "worker"}}): "needs a task",
    json.dumps({"cluster": TWO, "task": {"type": "worker", "index": "0"}}): "needs a task",
    json.dumps({"cluster": TWO, "task": {"type": "worker", "index": 2}}): "index 2 of 2 workers. Expected: 0 to 1",
    json.dumps({"cluster": TWO, "task": {"type": "worker", "index": -1}}): "index -1 of 2",
    json.dumps({"cluster": TWO, "task": {"type": "ps", "index": 0}}): "needs a task",
    json.dumps({"cluster": {**TWO, "ps": ["c:1"]}, "task": {"type": "worker", "index": 0}}): "job 'ps'",
    json.dumps({"cluster": {"worker": ["a:1", "a:1"]}, "task": {"type": "worker", "index": 0}}): "twice",
    json.dumps({"cluster": {"worker": ["a", "b:1"]}, "task": {"type": "worker", "index": 0}}): "HOST:PORT",
    json.dumps({"cluster": {"worker": "a:1"}, "task": {"type": "worker", "index": 0}}): "HOST:PORT",
}


@pytest.mark.parametrize("text", REFUSED)
def test_a_wrong_tf_config_is_refused_with_what_is_wrong(text, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(InputError, match="TF_CONFIG") as refused:
        workers.read_cluster()
    assert REFUSED[text] in str(refused.value)


def test_the_chief_comes_first(monkeypatch):
    content = {"cluster": {"worker": ["b:1", "c:1"], "chief": ["a:1"]}, "task": {"type": "worker", "index": 1}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(content))
    assert workers.read_cluster() == workers.Cluster(("chief 0", "worker 0", "worker 1"), ("a:1", "b:1", "c:1"), 2)
    for none in ("", "{}", '{"cluster": {}}'):
        monkeypatch.setenv("TF_CONFIG", none)
        assert workers.read_cluster() is None


# -- finding each other --------------------------------------------------------------------------------------------


def test_workers_that_do_the_same_find_each_other_whoever_comes_first(addresses):
    def come(rank):
        time.sleep(0.7 * (2 - rank))
        peers = workers.join(cluster(addresses, rank), {"seed": 1})
        peers.watch()
        peers.agree("data", {"sha256": "abc"})
        peers.agree("more", {"step": [1, 2]})
        return peers

    found = together(*(lambda rank=rank: come(rank) for rank in range(3)))
    assert [sorted(peers.sockets) for peers in found] == [[1, 2], [0, 2], [0, 1]]
    for peers in found:
        peers.close()
    for address in addresses:  # for the servers of TensorFlow
        with socket.socket() as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind(("127.0.0.1", int(address.rpartition(":")[2])))
            server.listen()


@pytest.mark.parametrize(
    "name, values", [("learning_rate", [0.1, 0.1, 0.2]), ("seed", [0, 1, 1]), ("new", [None, 1, 1])]
)
def test_every_worker_names_the_option_in_which_one_differs(name, values, addresses):
    facts = [{"batch_size": 128, **({} if value is None else {name: value})} for value in values]
    found = together(*(lambda r=r: workers.join(cluster(addresses, r), facts[r]) for r in range(3)))
    for error in found:
        assert isinstance(error, InputError), error
        assert f"{name} is {values[0]!r} on worker 0 ({addresses[0]}), {values[1]!r} on worker 1" in str(error)


def test_every_worker_names_the_data_in_which_one_differs(addresses):
    def come(rank):
        peers = workers.join(cluster(addresses[:2], rank), {})
        peers.watch()
        try:
            peers.agree("data", {"train_sha256": str(rank)})
        finally:
            peers.close()

    for error in together(lambda: come(0), lambda: come(1)):
        assert isinstance(error, InputError) and "train_sha256 is '0' on worker 0" in str(error)


def test_one_waits_for_a_worker_that_never_comes_says_so_and_ends(addresses, monkeypatch):
    monkeypatch.setenv("KERAS_VAE_JOIN_SECONDS", "2")
    monkeypatch.setattr(workers, "SAY_SECONDS", 0.5)
    said = []
    found = together(*(lambda r=r: workers.join(cluster(addresses, r), {}, said.append) for r in (0, 2)))
    for error in found:
        assert isinstance(error, RunStopped) and error.exit_code == 1
        assert f"Waited 2 seconds for worker 1 ({addresses[1]})" in str(error)
    assert f"worker 0 waits for worker 1 ({addresses[1]})" in said


def test_an_index_that_is_used_twice_is_named(addresses, monkeypatch):
    monkeypatch.setenv("KERAS_VAE_JOIN_SECONDS", "2")
    with socket.create_server(("127.0.0.1", int(addresses[0].rpartition(":")[2]))):
        with pytest.raises(InputError, match=r"worker 0 \(127.0.0.1:\d+\), is in use on this machine"):
            workers.join(cluster(addresses, 0), {})
    monkeypatch.setenv("KERAS_VAE_JOIN_SECONDS", "9")
    # on two machines: both come to worker 0
    monkeypatch.setattr(workers, "_listening", LISTENING_ANYWHERE(workers._listening))
    calls = [lambda r=r: workers.join(cluster(addresses, r), {}) for r in (0, 1, 1)]
    found = together(*calls)
    assert isinstance(found[0], InputError) and "Two workers have the same index in TF_CONFIG: worker 1" in str(
        found[0]
    )
    close(found)


def LISTENING_ANYWHERE(listening):
    """As on machines of their own: the second worker 1 gets another port."""
    taken = set()

    def anywhere(cluster, deadline):
        if cluster.rank in taken:
            cluster = workers.Cluster(cluster.names, ("127.0.0.1:0",) * len(cluster.names), cluster.rank)
        taken.add(cluster.rank)
        return listening(cluster, deadline)

    return anywhere


def test_strangers_on_the_port_and_other_servers_are_passed_over(addresses, monkeypatch):
    monkeypatch.setenv("KERAS_VAE_JOIN_SECONDS", "20")
    host, _, port = addresses[0].rpartition(":")

    def disturb():
        for content in (
            b"GET / HTTP/1.1\r\n\r\n",
            b"\0\xff\n",
            b'{"cluster": 3, "rank": 1}\n',
            b"[" * 99999 + b"\n",
            b"",
        ):
            for _ in range(50):
                try:
                    with socket.create_connection((host, int(port)), timeout=5) as connection:
                        connection.sendall(content)
                    break
                except OSError:
                    time.sleep(0.1)

    def late():
        time.sleep(3)
        return workers.join(cluster(addresses[:2], 1), {})

    _, *found = together(disturb, lambda: workers.join(cluster(addresses[:2], 0), {}), late)
    assert [sorted(peers.sockets) for peers in found] == [[1], [0]]
    close(found)


# -- one that goes --------------------------------------------------------------------------------------------------


@pytest.fixture
def two(addresses):
    """Two processes that joined and are stuck in C."""
    processes = []
    for rank in range(2):
        config = json.dumps({"cluster": {"worker": addresses[:2]}, "task": {"type": "worker", "index": rank}})
        command = [sys.executable, "-c", STUCK, str(PACKAGE)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        processes.append(subprocess.Popen(command, env={**os.environ, "TF_CONFIG": config}, **pipes))
    assert [process.stdout.readline() for process in processes] == ["joined\n"] * 2
    yield processes
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_worker_that_waits_in_tensorflow_and_the_other_follows(number, two):
    two[1].send_signal(number)
    _, errors = two[1].communicate(timeout=60)
    assert two[1].returncode == 128 + number
    name = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
    assert errors == f"keras-vae: error: Stopped by {name} in training. Start again.\n"
    _, errors = two[0].communicate(timeout=60)
    assert two[0].returncode == 1 and "worker 1" in errors and "is gone" in errors


def test_a_killed_worker_ends_the_other(two):
    two[0].kill()
    _, errors = two[1].communicate(timeout=60)
    assert two[1].returncode == 1 and "worker 0" in errors and workers.AGAIN in errors


def test_a_stopped_worker_is_noticed_and_ends_when_it_wakes(two):
    two[1].send_signal(signal.SIGSTOP)
    _, errors = two[0].communicate(timeout=60)
    assert two[0].returncode == 1 and "has not answered for 3 seconds" in errors
    two[1].send_signal(signal.SIGCONT)
    _, errors = two[1].communicate(timeout=60)
    assert two[1].returncode == 1 and "worker 0" in errors


# -- with TensorFlow -----------------------------------------------------------------------------------------------

TRAIN = (
    "train mlp --dataset digits --hidden 8 --latent-dim 2 --epochs 3000 --nll-samples 0 --checkpoint-every 5 "
    "--strategy multiworker"
).split()


def start_training(addresses, rank, run_dir, *options):
    task = {"type": "worker", "index": rank}
    environment = {
        **os.environ,
        "PYTHONPATH": str(PACKAGE.parent),
        "CUDA_VISIBLE_DEVICES": "-1",
        "TF_CONFIG": json.dumps({"cluster": {"worker": addresses}, "task": task}),
    }
    command = [sys.executable, "-m", "keras_vae", *TRAIN, "--run-dir", str(run_dir), *options]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment, **pipes)


@pytest.mark.slow
@pytest.mark.parametrize("options", [["--learning-rate", "0.01"], ["--latent-dim", "3"], ["--batch-size", "64"]])
def test_two_workers_with_other_options_end_before_the_first_step(options, addresses, tmp_path):
    run_dir = tmp_path / "run"
    both = [start_training(addresses[:2], 0, run_dir), start_training(addresses[:2], 1, run_dir, *options)]
    for process in both:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 2 and options[0][2:].replace("-", "_") in errors.splitlines()[-1], errors
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_sigterm_to_one_of_two_training_workers_ends_both_and_they_go_on(addresses, tmp_path):
    both = [start_training(addresses[:2], rank, tmp_path / "run") for rank in range(2)]
    while not list((tmp_path / "run" / "checkpoints").glob("step-*")):
        assert all(process.poll() is None for process in both)
        time.sleep(0.1)
    both[1].terminate()
    errors = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [1, 143], errors
    assert "the steps since the last checkpoint are done again. Continue with: " in errors[1]
