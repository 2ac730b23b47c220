"""Versions appear whole or not at all: under a poller, under kill -9, and at every single step."""

import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from cases import CASES, build

from keras_vae.serving import export_saved_models, publish, verify

MODELS = ("decoder", "encoder", "vae")
MLP = next(case for case in CASES if case.name == "mlp")


@pytest.fixture(scope="module")
def whole(small_export, tmp_path_factory):
    """A folder as an export stages it: real models and files. Returns its path."""
    staged = tmp_path_factory.mktemp("whole") / "staged"
    for name in MODELS:
        shutil.copytree(small_export / name / "1", staged / name)
    for file in ("contract.json", "models.config"):
        shutil.copy(small_export / file, staged / file)
    return staged


def stage(directory, whole):
    """Stages a copy of `whole` as the next version. Returns (version, staging folder)."""
    publish.recover(directory)
    version = publish.next_version(directory)
    staging = pathlib.Path(directory) / f"{publish.STAGING}test"
    shutil.copytree(whole, staging)
    contract = json.loads((staging / "contract.json").read_text())
    (staging / "contract.json").write_text(json.dumps({**contract, "version": version}))
    return version, str(staging)


def put(directory, whole):
    """All that an export does once its models are written."""
    with publish.locked(directory):
        version, staging = stage(directory, whole)
        publish.publish(directory, publish.make_ready(directory, staging, version))
    return version


def visible(directory, name):
    """The versions that a server sees."""
    base = pathlib.Path(directory) / name
    return sorted(int(entry) for entry in os.listdir(base) if entry.isdigit()) if base.exists() else []


def content(path):
    return {str(file.relative_to(path)): file.read_bytes() for file in pathlib.Path(path).rglob("*") if file.is_file()}


def test_versions_count_up_and_old_ones_and_what_people_edited_are_kept(small_export, tmp_path):
    directory = shutil.copytree(small_export, tmp_path / "export")
    before = content(directory / "encoder" / "1")
    shutil.rmtree(directory / "decoder" / "1")  # a version that was taken away is not used again
    (directory / "batching.config").write_text("max_batch_size { value: 7 }")
    (directory / "monitoring.config").unlink()
    assert export_saved_models(build(MLP), directory).version == 2
    assert content(directory / "encoder" / "1") == before
    assert [visible(directory, name) for name in MODELS] == [[2], [1, 2], [1, 2]]
    assert verify.check_export(str(directory)) == []
    assert (directory / "batching.config").read_text() == "max_batch_size { value: 7 }"
    assert (directory / "monitoring.config").exists()
    assert json.loads((directory / "contract.json").read_text())["version"] == 2


@pytest.mark.slow
def test_a_poller_never_sees_a_version_that_does_not_load(tmp_path, whole):
    """200 versions put in place by the exporter's own code, five of them by whole exports."""
    expected = {name: content(whole / name) for name in MODELS}
    seen, failures, done = {name: set() for name in MODELS}, [], threading.Event()
    real = set()

    def poll():
        rounds = 0
        while not done.is_set():
            for name in MODELS:
                versions = visible(tmp_path, name)
                if versions and versions[-1] not in seen[name]:
                    path = tmp_path / name / str(versions[-1])
                    found = content(path)  # first of all, before the publisher has moved on
                    seen[name].add(versions[-1])
                    if set(found) != set(expected[name]) or (versions[-1] not in real and found != expected[name]):
                        failures.append(f"{path} is not whole")
                    rounds += 1
                    if rounds % 10 == 0:  # loading takes longer than a version stays the newest
                        with verify.Model(str(path)) as model:
                            failures.extend([] if model.signatures else [f"{path} has no signatures"])
            time.sleep(0.002)

    def guarded():
        try:
            poll()
        except Exception as error:
            failures.append(repr(error))

    poller = threading.Thread(target=guarded)
    poller.start()
    model = build(MLP)
    for round in range(200):
        if round % 40 == 20:
            real.add(publish.next_version(tmp_path))
            export_saved_models(model, tmp_path)
        else:
            put(tmp_path, whole)
    time.sleep(0.1)
    done.set()
    poller.join()
    assert not failures
    assert all(visible(tmp_path, name) == list(range(1, 201)) for name in MODELS)
    assert min(len(versions) for versions in seen.values()) > 20, "the poller was too slow to see anything"


def assert_old_or_new(directory, old, new, whole):
    """Whatever is visible is whole, and the version that contract.json names is there for every model."""
    contract = pathlib.Path(directory) / "contract.json"
    version = json.loads(contract.read_text())["version"]
    assert version in (old, new)
    for name in MODELS:
        assert version in visible(directory, name)
        for present in visible(directory, name):
            assert content(pathlib.Path(directory) / name / str(present)) == content(whole / name)


class Killed(BaseException):
    """Raised in place of a step: nothing after it is done, not even tidying up."""


STEPS = ("rename", "replace", "remove", "rmdir", "fsync", "makedirs")


def test_a_crash_at_every_single_step_leaves_the_old_state_or_the_new_one(tmp_path, whole, monkeypatch):
    outcomes = []
    for step in range(1000):
        directory = tmp_path / str(step)
        directory.mkdir()
        old = put(directory, whole)
        remaining = step

        def counted(real):
            def run(*args, **kwargs):
                nonlocal remaining
                remaining -= 1
                if remaining < 0:
                    raise Killed
                return real(*args, **kwargs)

            return run

        version, staging = stage(directory, whole)
        with monkeypatch.context() as patch:
            for name in STEPS:
                patch.setattr(publish.os, name, counted(getattr(os, name)))
            try:
                publish.publish(directory, publish.make_ready(directory, staging, version))
                killed = False
            except Killed:
                killed = True
        assert_old_or_new(directory, old, version, whole)
        ready = any(entry.startswith(publish.READY) for entry in os.listdir(directory))
        publish.recover(directory)
        assert_old_or_new(directory, old, version, whole)
        assert not [entry for entry in os.listdir(directory) if entry.startswith((publish.READY, publish.STAGING))]
        now = {tuple(visible(directory, name)) for name in MODELS}
        assert len(now) == 1, "after recovery all models have the same versions"
        outcomes.append((ready, max(now.pop())))
        if not killed:
            break
    assert step > 20
    assert {version for _, version in outcomes} == {1, 2}, "both the old state and the new one were met"
    assert all(version == 2 for ready, version in outcomes if ready), "what was ready is put in place"


@pytest.mark.slow
def test_kills_at_random_moments_leave_only_whole_versions(tmp_path, whole):
    """SIGKILL of processes that put versions in place as fast as they can; then another goes on."""
    script = f"""
        import json, os, pathlib, runpy, shutil, sys
        publish = type("publish", (), runpy.run_path({publish.__file__!r}))
        directory, whole = {str(tmp_path)!r}, {str(whole)!r}
        print("ready", flush=True)
        while True:
            with publish.locked(directory):
                publish.recover(directory)
                version = publish.next_version(directory)
                with publish.staged(directory) as staging:
                    shutil.copytree(whole, staging, dirs_exist_ok=True)
                    file = pathlib.Path(staging) / "contract.json"
                    file.write_text(json.dumps({{**json.loads(file.read_text()), "version": version}}))
                    ready = publish.make_ready(directory, staging, version)
                publish.publish(directory, ready)
    """
    start = time.perf_counter()
    put(tmp_path, whole)
    taken = time.perf_counter() - start
    generator = random.Random(0)
    for _ in range(12):
        command = [sys.executable, "-c", textwrap.dedent(script)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        process.stdout.readline()
        time.sleep(generator.uniform(0, 4 * taken))
        process.kill()
        assert process.wait() == -signal.SIGKILL
        version = json.loads((tmp_path / "contract.json").read_text())["version"]
        assert all(version in visible(tmp_path, name) for name in MODELS)
    assert version > 2, "the kills came before anything was done"
    put(tmp_path, whole)  # after the last kill everything is mended
    versions = [visible(tmp_path, name) for name in MODELS]
    assert versions[0] == versions[1] == versions[2]
    for name in MODELS:
        assert all(content(tmp_path / name / str(version)) == content(whole / name) for version in versions[0])


@pytest.mark.slow
def test_an_export_that_was_killed_is_swept_away_by_the_next(tmp_path):
    """The real thing: a process in the middle of `export_saved_models`."""
    script = f"""
        import sys
        sys.path.insert(0, {str(pathlib.Path(__file__).parent)!r})
        from cases import CASES, build
        from keras_vae.serving import export_saved_models
        model = build(CASES[1])
        print("ready", flush=True)
        while True:
            export_saved_models(model, {str(tmp_path)!r})
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    while not any(entry.startswith(publish.STAGING) for entry in os.listdir(tmp_path)):
        time.sleep(0.01)
    time.sleep(random.Random(1).uniform(1, 4))
    process.kill()
    process.wait()
    export_saved_models(build(MLP), tmp_path)
    versions = [visible(tmp_path, name) for name in MODELS]
    assert versions[0] == versions[1] == versions[2]
    for version in versions[0]:
        for name in MODELS:
            with verify.Model(str(tmp_path / name / str(version))) as model:
                assert model.signatures
    assert verify.check_export(str(tmp_path)) == []
    assert not [entry for entry in os.listdir(tmp_path) if entry.startswith((publish.READY, publish.STAGING))]


def test_two_exports_at_once_get_different_versions(tmp_path):
    model = build(MLP)
    exports = []
    threads = [threading.Thread(target=lambda: exports.append(export_saved_models(model, tmp_path))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(export.version for export in exports) == [1, 2]


def test_verification_reports_an_export_that_was_stopped_halfway(tmp_path, whole):
    put(tmp_path, whole)
    version, staging = stage(tmp_path, whole)
    publish.make_ready(tmp_path, staging, version)
    (failure,) = verify.check_export(str(tmp_path))
    assert failure.startswith(".ready-2: ")
