"""Many devices and many machines: real processes with 2 logical CPU devices, and workers on the loopback."""

import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from cases import CASES

from keras_vae import distribution
from keras_vae.config import InputError

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "benchmarks"))
import chaos  # noqa: E402

SHORT = [
    "mlp", "--dataset", "digits", "--hidden", "8", "--latent-dim", "2", "--epochs", "4", "--nll-samples", "2",
    "--nll-images", "20", "--checkpoint-every", "1",
]  # fmt: skip


def environment(**more):
    values = {**os.environ, "PYTHONPATH": str(REPOSITORY), "CUDA_VISIBLE_DEVICES": "-1", **more}
    return values if "TF_CONFIG" in more else {name: v for name, v in values.items() if name != "TF_CONFIG"}


def start(kind, target, names, **more):
    command = [sys.executable, str(REPOSITORY / "tests" / "training_on_devices.py"), kind, str(target), *names]
    return subprocess.Popen(
        command, env=environment(**more), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def cluster(count):
    addresses = [f"127.0.0.1:{port}" for port in chaos.free_ports(count)]
    for index in range(count):
        yield json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})


def results(processes, targets):
    for process in processes:
        _, errors = process.communicate(timeout=500)
        assert process.returncode == 0, errors[-4000:]
    return [dict(np.load(target)) for target in targets]


# Cases that train by the same step as another one, which is here: only their networks or densities are others.
SAME_STEP = {
    "linear", "mlp-two-layers-tanh", "conv", "conv-valid-padding", "conv-not-square", "conv-colour",
    "mlp-colour-not-square", "gated", "gaussian", "gaussian-narrow", "continuous-bernoulli", "discretized-logistic",
    "beta", "autoencoder", "autoencoder-gaussian", "vector", "vector-unit-interval", "sequence", "image-four-channels",
    "full-covariance", "hierarchical", "vampprior", "conditional-conv", "denoising-masking",
}  # fmt: skip
ALL = [case.name for case in CASES if case.name not in SAME_STEP]
SOME = ["mlp", "gaussian-learned", "beta-tc", "hierarchical-three-layers"]
MORE = [
    "steps-per-execution",
    "adam-clipped",
    "float16-clipped",
    "empty-replica",
    "weighted",
    "callbacks",
    "jit",
    "eager",
]
FAILING = ["float16", "infinite-gradient", "infinite-loss"]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("distribution")
    one, two, first, second = (folder / f"{name}.npz" for name in ("one", "two", "first", "second"))
    # one process for all cases, and as many processes at a time as there are cores: it is the imports that cost
    alone, mirrored = results(
        [
            start("none", one, ALL + MORE),
            start("mirrored", two, ALL + MORE + FAILING + ["noise", "refusals", "reductions"]),
        ],
        [one, two],
    )
    workers = [
        start("multiworker", target, SOME + MORE + FAILING, TF_CONFIG=config)
        for config, target in zip(cluster(2), (first, second))
    ]
    return alone, mirrored, *results(workers, [first, second])


def assert_same(label, left, right):
    names = [name for name in right if name.startswith(f"{label}/")]
    assert any("/weight" in name for name in names) and right[f"{label}/moved"] > 1e-4
    for name in names:
        if "/weight" in name:
            assert np.abs(left[name] - right[name]).max() < 1e-6, name
        else:
            np.testing.assert_allclose(right[name], left[name], rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("label", ALL + MORE)
def test_two_devices_train_and_score_like_one(label, found):
    assert_same(label, found[0], found[1])


@pytest.mark.slow
@pytest.mark.parametrize("label", SOME + MORE)
def test_two_workers_train_and_score_like_one_process(label, found):
    assert_same(label, found[0], found[2])
    for name in found[2]:
        np.testing.assert_array_equal(found[2][name], found[3][name], err_msg=name)


@pytest.mark.slow
def test_callbacks_act_under_a_strategy(found):
    for each in found:
        np.testing.assert_allclose(each["callbacks/log-learning_rate"], [1e-3, 1e-3, 1e-4], rtol=1e-6)


REPLICAS = pytest.mark.parametrize("process", [1, 2, 3], ids=["two devices", "first worker", "second worker"])


@pytest.mark.slow
@REPLICAS
def test_an_infinite_gradient_on_one_replica_skips_the_float16_step_on_all(process, found):
    first, second, third = (
        {name: found[process][f"float16/{name}{step}"] for name in ("weights", "scale", "steps")} for step in range(3)
    )
    np.testing.assert_array_equal(first["weights"], second["weights"])
    assert second["scale"] == first["scale"] / 2 == third["scale"]
    assert [step["steps"].tolist() for step in (first, second, third)] == [[1, 1], [2, 1], [3, 2]]
    assert np.isfinite(third["weights"]).all() and np.abs(third["weights"] - second["weights"]).max() > 1e-5


@pytest.mark.slow
@REPLICAS
@pytest.mark.parametrize("label", ["infinite-gradient", "infinite-loss"])
def test_a_float32_value_that_is_infinite_on_one_replica_stops_all_with_the_step_named(label, process, found):
    message, before, after = (found[process][f"{label}/{name}"] for name in ("message", "before", "after"))
    assert "NaN or infinite at step 2" in str(message)
    np.testing.assert_array_equal(before, after)


@pytest.mark.slow
def test_what_cannot_work_is_refused_at_compile_with_what_to_use(found):
    for name, expected in (
        ("optimizer", "inside the scope"),
        ("metric", "inside the scope"),
        ("accumulation", "larger batch"),
    ):
        assert expected in str(found[1][f"refusals/{name}"])


@pytest.mark.slow
def test_gradients_are_summed_over_the_replicas_once(found):
    summed, gradient = found[1]["reductions/summed"], found[1]["reductions/gradient"]
    assert gradient <= summed <= gradient + 10  # beside them weights and losses, which are scalars


@pytest.mark.slow
def test_noise_differs_between_replicas_and_between_steps(found):
    draws = found[1]["noise/draws"]  # of 2 steps and 2 replicas
    assert len(draws) == 4
    assert np.abs(np.corrcoef(draws) - np.eye(4)).max() < 0.15  # of 1500 numbers; 1 were they shared
    assert scipy.stats.kstest(draws.ravel(), "norm").pvalue > 1e-4


def test_multiworker_without_a_cluster_is_refused(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(InputError, match="TF_CONFIG"):
        distribution.choose("multiworker")
    monkeypatch.setenv("TF_CONFIG", "{")
    with pytest.raises(InputError, match="not valid JSON"):
        distribution.choose("auto")


@pytest.fixture(scope="module")
def two_replicas(tmp_path_factory):
    """Folder with the run `alone`, of two replicas."""
    folder = tmp_path_factory.mktemp("two-replicas")
    assert chaos.finish(chaos.start("two replicas", folder / "alone", SHORT)) == [0]
    return folder


@pytest.mark.slow
def test_a_run_says_what_it_runs_on_and_is_continued_with_another_number_of_replicas(two_replicas, tmp_path):
    alone, moved = two_replicas / "alone", tmp_path / "moved"
    assert (
        "CPU:0, CPU:1, 2 replicas, 128 images a batch (64 a replica), precision float32"
        in (two_replicas / "alone.0.log").read_text()
    )
    # the same run, stopped in the second epoch or after it under two replicas and continued under one
    (process,) = chaos.start("two replicas", moved, SHORT)
    deadline = time.monotonic() + 120
    while not any(int(path.name[5:15]) > 13 for path in (moved / "checkpoints").glob("step-*")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert chaos.finish(chaos.start("one device", moved, SHORT)) == [0]
    step = int(re.search(r"after step (\d+) of 48", (tmp_path / "moved.0.log").read_text())[1])
    assert 12 < step < 48
    first, second = ((path / "history.csv").read_text().split() for path in (alone, moved))
    assert first[1] == second[1]  # the whole first epoch was under two replicas
    left, right = (np.array(lines[2].split(",")[1:], float) for lines in (first, second))
    np.testing.assert_allclose(left, right, rtol=5e-2, atol=1e-2)  # nats; other noise from there on


@pytest.mark.slow
def test_a_sigkill_of_two_replicas_changes_no_bit(two_replicas):
    check_that_a_sigkill_changes_no_bit("two replicas", two_replicas)


@pytest.mark.slow
def test_a_sigkill_of_one_of_two_workers_changes_no_bit(tmp_path):
    check_that_a_sigkill_changes_no_bit("two workers", tmp_path)


def check_that_a_sigkill_changes_no_bit(case, folder):
    differing, met, _ = chaos.differences(case, 1, folder, random.Random(3), SHORT, pause=0.2)
    assert met == 1 and differing == []


def test_memory_of_a_gpu_is_taken_as_it_is_needed_unless_the_environment_says_otherwise(monkeypatch):
    asked = []
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: ["first", "second"])
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", lambda *request: asked.append(request))
    monkeypatch.setenv("TF_FORCE_GPU_ALLOW_GROWTH", "false")
    distribution.choose("none")
    assert asked == []
    monkeypatch.delenv("TF_FORCE_GPU_ALLOW_GROWTH")
    distribution.choose("none")
    assert asked == [("first", True), ("second", True)]

    def in_use(*_):
        raise RuntimeError("Physical devices cannot be modified after being initialized")

    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", in_use)
    assert distribution.choose("none").num_replicas_in_sync == 1
