"""No request brings the server down: malformed ones are answered INVALID_ARGUMENT, through the server's own path."""

import pathlib
import shutil
import signal
import struct
import subprocess

import numpy as np
import pytest
import tensorflow as tf
from serving_exports import INVALID_ARGUMENT, all_signatures, assert_same, fetched, run_c_api
from tensorflow.core.framework import node_def_pb2

from keras_vae.serving import requests, verify, verify_export


def requests_of(contract, name):
    """(description, signature, request): first the good requests, then the malformed ones."""
    entry = contract["models"][name]
    good = [("good", key, verify.golden_request(value)) for key, value in entry["signatures"].items()]
    bad = [(description, key, request) for key, description, request in verify.hostile_requests(entry)]
    return good, bad


@pytest.mark.slow
def test_malformed_requests_through_the_c_api(exported, tmp_path, capsys):
    _, written, contract = exported
    count = 0
    for name, path in written.paths.items():
        good, bad = requests_of(contract, name)
        requests = [*good, *bad, *good]  # the good ones again: a refusal must leave no trace
        code, answers = run_c_api(path, [(key, request) for _, key, request in requests], tmp_path)
        assert code == 0, f"{name}: the process died with {code} at {requests[len(answers)][:2]}"
        refused = answers[len(good) : -len(good)]
        wrong = [request[:2] for request, (code, _) in zip(bad, refused, strict=True) if code != INVALID_ARGUMENT]
        assert not wrong, f"{name}: not answered INVALID_ARGUMENT"
        for (_, key, request), (code, answer), (_, again) in zip(
            good, answers[: len(good)], answers[-len(good) :], strict=True
        ):
            assert code == 0
            with verify.Model(path) as model:
                assert_same(answer, model.run(key, request))
            assert_same(again, answer)
        count += len(bad)
    with capsys.disabled():
        print(f"\n{count} malformed requests to {len(all_signatures(contract))} signatures: all INVALID_ARGUMENT")
    assert count >= 60


def test_the_matrix_has_the_hazards_of_every_kind(exported):
    _, _, contract = exported
    described = {
        description.partition(": ")[2]
        for entry in contract["models"].values()
        for _, description, _ in verify.hostile_requests(entry)
    }
    assert described >= {
        "no batch axis", "one axis more", "last axis too long", "wrong dtype", "empty batch", "NaN", "infinity",
        "minus infinity", "below the range", "above the range", "one row more than the others", "one row for several",
        "missing", "no bytes", "truncated PNG", "PNG of 60,000 x 60,000", "JPEG of 65,000 x 65,000", "text",
        "negative", "smallest", "largest",
    }  # fmt: skip


def test_an_enormous_png_is_refused_before_it_is_decoded(exported):
    _, written, _ = exported
    bomb = np.array([requests.png(2**31 - 1, 2**31 - 1)], dtype=object)
    with verify.Model(written.paths["encoder"]) as model:
        with pytest.raises(tf.errors.InvalidArgumentError, match="8 pixels high and 12 wide"):
            model.run("encode_png", {"image_bytes": bomb})


@pytest.mark.parametrize(
    ("model", "signature", "request_", "message"),
    [
        ("encoder", "serve", {"image": np.full((1, 8, 12, 3), 2, "float32")}, r"must be finite and within \[0, 1\]"),
        ("encoder", "serve", {"image": np.zeros((0, 8, 12, 3), "float32")}, "image must not be an empty batch"),
        ("decoder", "serve", {"z": np.full((1, 3), np.nan, "float32")}, "z must be finite"),
        ("decoder", "generate", {"seed": np.array([-1])}, "seed must be from 0 to 9007199254740991"),
        ("encoder", "encode_png", {"image_bytes": np.array([b"x" * 50], object)}, "must be PNG or JPEG files"),
    ],
)  # fmt: skip
def test_the_answer_says_what_is_wrong(exported, model, signature, request_, message):
    _, written, _ = exported
    with verify.Model(written.paths[model]) as loaded, pytest.raises(tf.errors.InvalidArgumentError, match=message):
        loaded.run(signature, request_)


def test_verification_reports_the_death_of_its_process(exported, tmp_path, monkeypatch):
    step = "encoder: serve: image: no batch axis"
    script = tmp_path / "dies.py"
    script.write_text(f'import os\nprint(\'{{"step": "{step}"}}\', flush=True)\nos.abort()\n')
    monkeypatch.setattr(verify, "__file__", str(script))
    (failure,) = verify_export(exported[1].directory)
    assert failure == f"The checking process ended with code {-signal.SIGABRT} at the step {step!r}"


# -- the same in C++ ----------------------------------------------------------------------------------------------

CC = pathlib.Path(__file__).resolve().parents[1] / "benchmarks" / "serving_session.cc"


@pytest.fixture(scope="module")
def cc_session(tmp_path_factory):
    if shutil.which("g++") is None:
        pytest.skip("g++ is not here: the program in C++ was not built")
    folder = pathlib.Path(tf.__file__).parent
    program = tmp_path_factory.mktemp("cc") / "session"
    command = ["g++", "-std=c++17", "-w", str(CC), "-o", str(program), f"-I{folder}/include", f"-L{folder}"]
    command += ["-Wl,--no-as-needed", "-l:libtensorflow_cc.so.2", "-l:libtensorflow_framework.so.2"]
    subprocess.run([*command, f"-Wl,-rpath,{folder}"], check=True, capture_output=True, text=True)
    return program


@pytest.mark.slow
def test_requests_through_cc(exported, cc_session, tmp_path):
    _, written, contract = exported
    for name, path in written.paths.items():
        good, bad = requests_of(contract, name)
        bad = [(*request, INVALID_ARGUMENT) for request in bad if request[0].partition(": ")[2] != "missing"]
        requests = [(*request, 0) for request in good] + bad
        with verify.Model(path) as model:
            signatures, expected = model.signatures, [model.run(key, request) for _, key, request in good]
        source, target = tmp_path / "requests", tmp_path / "answers"
        with open(source, "wb") as file:
            for _, key, request, _ in requests:
                message = node_def_pb2.NodeDef(input=fetched(signatures[key]))
                for field, value in request.items():
                    proto = tf.make_tensor_proto(value, shape=value.shape)
                    message.attr[signatures[key].inputs[field].name].tensor.CopyFrom(proto)
                serialized = message.SerializeToString()
                file.write(struct.pack("<I", len(serialized)) + serialized)
        subprocess.run([cc_session, path, source, target], check=True, capture_output=True)
        data, answers = target.read_bytes(), []
        while data:
            (length,) = struct.unpack("<I", data[:4])
            answers.append(node_def_pb2.NodeDef.FromString(data[4 : 4 + length]))
            data = data[4 + length :]
        for (description, key, _, code), answer in zip(requests, answers, strict=True):
            assert int(answer.op) == code, (name, key, description, answer.name)
        for (_, key, _), answer, wanted in zip(good, answers, expected, strict=False):
            outputs = signatures[key].outputs.items()
            assert_same({field: tf.make_ndarray(answer.attr[info.name].tensor) for field, info in outputs}, wanted)
