"""The workers of a run on several machines: all are there, all do the same, and none goes unnoticed. Standard library.

Before TensorFlow starts its servers, each worker opens a connection to each other one, on the ports that TF_CONFIG
names. Over it they say what they are about to do, and once a second that they are alive: a process that waits inside of
TensorFlow for a peer that is gone, or that gets a signal there, is ended by the thread that listens here.
"""

import contextlib
import errno
import json
import os
import select
import signal
import socket
import sys
import threading
import time
from dataclasses import dataclass

from keras_vae.config import InputError, RunStopped

JOIN_SECONDS = 300  # for all workers to come; KERAS_VAE_JOIN_SECONDS sets it
PATIENCE = 60  # seconds without a sign of life after which a worker is given up
GRACE = 15  # seconds for the process to end by itself, before it is ended
SAY_SECONDS = 10  # between two lines about whom it waits for
LIMIT = 2**22  # bytes of one message
AGAIN = "Start all workers again: they continue from the last checkpoint."
JOBS = ("chief", "worker")


@dataclass(frozen=True)
class Cluster:
    """The workers that TF_CONFIG names, the chief first, and which of them this one is."""

    names: tuple[str, ...]  # chief 0, worker 0, ...
    addresses: tuple[str, ...]  # host:port
    rank: int

    def describe(self, rank):
        return f"{self.names[rank]} ({self.addresses[rank]})"


def read_cluster():
    """The `Cluster` of the environment variable TF_CONFIG, or None where it names none.

    Raises:
        InputError: if it is not valid.
    """
    text = os.environ.get("TF_CONFIG") or "{}"

    def refuse(what):
        raise InputError(f"The environment variable TF_CONFIG {what}. Received: {text}")

    try:
        content = json.loads(text)
    except ValueError:
        refuse("is not valid JSON of a cluster")
    if not isinstance(content, dict) or not isinstance(content.get("cluster", {}), dict):
        refuse("is not valid JSON of a cluster")
    jobs = content.get("cluster", {})
    if not any(jobs.values()):
        return None
    unknown = sorted(set(jobs) - set(JOBS))
    if unknown:
        refuse(f"has a job {unknown[0]!r}. Expected: chief and worker")
    members = []
    for job in JOBS:
        addresses = jobs.get(job, [])
        if not isinstance(addresses, list) or not all(map(_is_address, addresses)):
            refuse(f"needs a list of addresses HOST:PORT for {job}")
        members += [(job, index, address) for index, address in enumerate(addresses)]
    task = content.get("task")
    if not isinstance(task, dict) or task.get("type") not in JOBS or type(task.get("index")) is not int:
        refuse('needs a task with type and index: "task": {"type": "worker", "index": 0}')
    ranks = [rank for rank, (job, index, _) in enumerate(members) if (job, index) == (task["type"], task["index"])]
    if not ranks:
        count = len(jobs.get(task["type"], []))
        refuse(f"has index {task['index']} of {count} {task['type']}s. Expected: 0 to {count - 1}")
    if len({address for *_, address in members}) < len(members):
        refuse("names an address twice")
    return Cluster(tuple(f"{job} {index}" for job, index, _ in members), tuple(m[2] for m in members), ranks[0])


def _is_address(text):
    host, _, port = str(text).rpartition(":")
    return isinstance(text, str) and bool(host) and port.isdecimal() and 0 < int(port) < 65536


class Peers:
    """The connections of this worker to all others. `join` makes them.

    Attributes:
        cluster: The `Cluster`.
    """

    def __init__(self, cluster, say):
        self.cluster, self.say = cluster, say
        self.sockets = {}  # by rank, as the next two
        self.buffers = {}
        self.heard = {}
        self.said = {}  # (rank, subject) -> facts
        self.lock = threading.Condition()
        self.lost, self.closed, self.ended = None, False, set()
        self.signals = None

    # -- what all agree on

    def agree(self, subject, facts):
        """Waits until all workers said the same of a subject.

        Args:
            subject: String, different for each call.
            facts: Dict for JSON.

        Raises:
            InputError: if one said something else. It names the first fact that differs, and who says what.
            RunStopped: if a worker is gone.
        """
        facts = json.loads(json.dumps(facts))
        self._send({"say": subject, "facts": facts})
        others = [rank for rank in range(len(self.cluster.names)) if rank != self.cluster.rank]
        with self.lock:
            self.said[self.cluster.rank, subject] = facts
            while not all((rank, subject) in self.said for rank in others):
                if self.lost:
                    raise RunStopped(self.lost)
                self.lock.wait(1)
            found = [self.said[rank, subject] for rank in range(len(self.cluster.names))]
        _check_same(self.cluster, found)

    def close(self, finished=True):
        """From here on this worker waits for nobody.

        Args:
            finished: Bool, whether nobody need wait for this worker either; otherwise the others end soon, too.
        """
        if self.closed:
            return
        if finished:
            self._send({"bye": True})
        self.closed = True
        if self.signals is not None:
            signal.set_wakeup_fd(-1)
        if not finished:
            for connection in list(self.sockets.values()):
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        self.close(finished=kind is None)

    # -- the thread that listens

    def watch(self, signals=None):
        """Starts the thread that ends this process if a worker is gone or a signal came, and it does not end itself.

        Args:
            signals: `StopSignals`, entered, or None to leave signals alone.
        """
        wake, wakes = socket.socketpair()
        wake.setblocking(False)
        wakes.setblocking(False)
        if signals is not None and threading.current_thread() is threading.main_thread():
            self.signals = signals
            signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
        self.kept = wakes
        threading.Thread(target=self._watch, args=(wake,), daemon=True).start()

    def _watch(self, wake):
        beat = 0.0
        while not self.closed:
            now = time.monotonic()
            if now - beat > 1:
                beat = now
                self._send({})
            ready, _, _ = select.select([wake, *self.sockets.values()], [], [], 0.5)
            if wake in ready:
                for number in wake.recv(64):
                    if number in (signal.SIGINT, signal.SIGTERM):
                        self._end_soon(128 + number, lambda number=number: self.signals.stopped(number=number))
            for rank, connection in list(self.sockets.items()):
                if connection in ready:
                    self._receive(rank)
                if rank in self.sockets and time.monotonic() - self.heard[rank] > PATIENCE:
                    self._lose(rank, f"has not answered for {PATIENCE} seconds")

    def _receive(self, rank):
        try:
            data = self.sockets[rank].recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lose(rank, "is gone")
            return
        self.heard[rank] = time.monotonic()
        self.buffers[rank] += data
        while b"\n" in self.buffers[rank]:
            line, _, self.buffers[rank] = self.buffers[rank].partition(b"\n")
            message = _parsed(line)
            if "say" in message:
                with self.lock:
                    self.said[rank, message["say"]] = message["facts"]
                    self.lock.notify_all()
            elif "bye" in message:
                self.ended.add(rank)

    def _lose(self, rank, how):
        with contextlib.suppress(OSError):
            self.sockets.pop(rank).close()
        if rank in self.ended or self.closed:
            return
        with self.lock:
            self.lost = f"{self.cluster.describe(rank)} {how}. {AGAIN}"
            self.lock.notify_all()
        self._end_soon(1, lambda: self.lost)

    def _end_soon(self, code, message):
        """Ends this process in a while, unless it is done with its peers by then."""

        def end():
            deadline = time.monotonic() + GRACE
            while time.monotonic() < deadline:
                if self.closed:
                    return
                time.sleep(0.2)
            os.write(2, f"keras-vae: error: {message()}\n".encode())
            os._exit(code)

        threading.Thread(target=end, daemon=True).start()

    def _send(self, message):
        line = json.dumps(message).encode() + b"\n"
        for connection in list(self.sockets.values()):
            with contextlib.suppress(OSError):  # it is gone: the thread sees that
                connection.sendall(line)


def join(cluster, facts, say=lambda line: print(line, file=sys.stderr, flush=True)):
    """Waits until all workers of a cluster are there and are about to do the same.

    Args:
        cluster: The `Cluster`.
        facts: Dict for JSON, what all have to agree on.
        say: Called with a line about whom it waits for, now and then.

    Returns:
        The `Peers`.

    Raises:
        InputError: if the port of this worker is in use, two workers have the same index, or a fact differs.
        RunStopped: if somebody did not come in time.
    """
    seconds = float(os.environ.get("KERAS_VAE_JOIN_SECONDS") or JOIN_SECONDS)
    peers, hello = Peers(cluster, say), {"cluster": cluster.addresses, "rank": cluster.rank, "facts": facts}
    hello = json.loads(json.dumps(hello))
    found = {cluster.rank: hello["facts"]}
    deadline, said = time.monotonic() + seconds, time.monotonic()
    with _listening(cluster, deadline) as server:
        while len(found) < len(cluster.names):
            for rank in range(cluster.rank):
                if rank not in found:
                    _meet(peers, hello, found, lambda rank=rank: _connect(cluster.addresses[rank]), rank)
            with contextlib.suppress(TimeoutError):
                connection, _ = server.accept()
                _meet(peers, hello, found, lambda connection=connection: connection, None)
            now, missing = time.monotonic(), [rank for rank in range(len(cluster.names)) if rank not in found]
            names = ", ".join(map(cluster.describe, missing))
            if missing and now > deadline:
                raise RunStopped(
                    f"Waited {seconds:g} seconds for {names}, in vain. Start a worker with each index of TF_CONFIG, "
                    "and see that they reach each other. KERAS_VAE_JOIN_SECONDS sets how long to wait."
                )
            if missing and now - said > SAY_SECONDS:
                said = now
                say(f"{cluster.names[cluster.rank]} waits for {names}")
    for connection in peers.sockets.values():
        connection.settimeout(5)
    _check_same(cluster, [found[rank] for rank in range(len(cluster.names))])
    return peers


def _meet(peers, hello, found, connect, expected):
    """One exchange of greetings, over a connection that is kept if it is with another worker of this cluster."""
    connection = None
    try:
        connection = connect()
        connection.settimeout(3)
        connection.sendall(json.dumps(hello).encode() + b"\n")
        received, rest = _line(connection)
        theirs = _parsed(received)
    except OSError:
        theirs, rest = {}, b""
    rank = theirs.get("rank")
    known = rank in range(len(peers.cluster.names)) and isinstance(theirs.get("facts"), dict)
    if theirs.get("cluster") != hello["cluster"] or not known or (expected is not None and rank != expected):
        if connection is not None:
            connection.close()
        if isinstance(theirs.get("cluster"), list) and theirs["cluster"] != hello["cluster"]:
            raise InputError(
                f"The workers have different addresses in TF_CONFIG: {hello['cluster']}, {theirs['cluster']}."
            )
        return
    if rank in found:
        if rank == hello["rank"] or _is_open(peers.sockets[rank]):
            connection.close()
            raise InputError(f"Two workers have the same index in TF_CONFIG: {peers.cluster.names[rank]}.")
        peers.sockets.pop(rank).close()  # it died while the others were waited for, and was started again
    peers.sockets[rank], peers.buffers[rank], peers.heard[rank] = connection, rest, time.monotonic()
    found[rank] = theirs["facts"]


def _check_same(cluster, found):
    for name in sorted(set().union(*found)):
        values = [facts.get(name) for facts in found]
        if any(value != values[0] for value in values):
            told = ", ".join(f"{value!r} on {cluster.describe(rank)}" for rank, value in enumerate(values))
            raise InputError(f"The workers do not do the same: {name} is {told}. Give all of them the same options.")


@contextlib.contextmanager
def _listening(cluster, deadline):
    """A server at the address of this worker. Its port is free again at the end, for TensorFlow."""
    host, _, port = cluster.addresses[cluster.rank].rpartition(":")
    server = socket.socket()
    try:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        patience = min(deadline, time.monotonic() + 10)  # for one that is just ending
        while True:
            try:
                server.bind((host, int(port)))
                break
            except OSError as error:
                if error.errno != errno.EADDRINUSE:  # a name that is known to others alone
                    host = ""
                elif time.monotonic() > patience:
                    raise InputError(
                        f"The port of this worker, {cluster.describe(cluster.rank)}, is in use on this machine: by "
                        "another worker with the same index, or by another program."
                    ) from None
                time.sleep(0.2)
        server.listen(64)
        server.settimeout(0.5)
        yield server
    finally:
        server.close()


def _connect(address):
    host, _, port = address.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), timeout=1)


def _line(connection):
    """(first line, what came after it) of a connection."""
    data = b""
    while b"\n" not in data:
        part = connection.recv(65536)
        if not part or len(data) > LIMIT:
            raise ConnectionError
        data += part
    line, _, rest = data.partition(b"\n")
    return line, rest


def _parsed(line):
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return message if isinstance(message, dict) else {}


def _is_open(connection):
    with contextlib.suppress(BlockingIOError, TimeoutError):
        connection.settimeout(0)
        try:
            return connection.recv(1, socket.MSG_PEEK) != b""
        except ConnectionError:
            return False
    return True
