"""The client in export/ and the interfaces of TensorFlow Serving."""

import importlib.util
import json
import os
import pathlib
import shutil
import socket
import subprocess
import threading
import time
import urllib.request

import numpy as np
import pytest
import tensorflow as tf
from cases import Case, build
from serving_exports import CONV_VAE, all_signatures, assert_same, export
from serving_stand_in import StandIn

from keras_vae.serving import export_saved_models, verify

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
SPEC = importlib.util.spec_from_file_location("client", REPOSITORY / "export" / "client.py")
client = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(client)


@pytest.fixture(scope="module")
def stand_in(exported):
    server = StandIn(exported[1].paths, labels=["stable"])
    yield server
    server.close()


@pytest.fixture(scope="module", params=["rest-columns", "rest-rows", "grpc"])
def served(request, exported, stand_in):
    """A client of each kind, connected to the stand-in."""
    contract = pathlib.Path(exported[1].directory) / "contract.json"
    if request.param != "grpc":
        yield client.RestClient(contract, stand_in.url, rows=request.param == "rest-rows")
        return
    pytest.importorskip("tensorflow_serving.apis", reason="tensorflow-serving-api is not installed")
    server = stand_in.start_grpc()
    yield client.GrpcClient(contract, stand_in.address)
    server.stop(None)


def test_every_signature_gives_its_golden_answer(served, exported):
    _, written, contract = exported
    for name, signature in all_signatures(contract):
        entry = contract["models"][name]["signatures"][signature]
        request = verify.golden_request(entry)
        with verify.Model(written.paths[name]) as model:
            expected = model.run(signature, request)
        assert_same(served.predict(name, signature, **request), expected)


def test_the_short_ways(served, exported):
    model, _, contract = exported
    request = verify.golden_request(contract["models"]["encoder"]["signatures"]["encode_png"])
    encoded = served.encode_png(*request["image_bytes"])
    np.testing.assert_allclose(served.decode(encoded["z_mean"]), model.decode(encoded["z_mean"]), atol=1e-5)
    first, again = served.generate([1, 2]), served.generate([2])
    np.testing.assert_allclose(first["image"][1], again["image"][0], atol=1e-6)
    pixels = np.stack([tf.io.decode_png(file) for file in served.decode_png(first["z"])])
    np.testing.assert_allclose(pixels, first["image"] * 255, atol=0.51)


def test_version_and_label_are_sent(served):
    z = np.zeros((1, 3))
    for place in ({"version": 1}, {"version_label": "stable"}):
        assert served.predict("decoder", "serve", z=z, **place)["image"].shape == (1, 8, 12, 3)
    for place in ({"version": 2}, {"version_label": "canary"}):
        with pytest.raises(client.ServingError, match=r"404|NOT_FOUND"):
            served.predict("decoder", "serve", z=z, **place)


def test_the_client_refuses_before_it_sends(served):
    good = np.zeros((1, 8, 12, 3), "float32")
    for inputs, message in (
        ({"z": good}, "Expected the inputs image"),
        ({"image": good[0]}, r"must have the shape \(n, 8, 12, 3\)"),
        ({"image": good[:0]}, "n at least 1"),
        ({"image": good + np.nan}, r"must be from 0.0 to 1.0"),
        ({"image": good + 255}, r"must be from 0.0 to 1.0"),
        ({"image": good.astype(str)}, "must be float32"),
    ):
        with pytest.raises(ValueError, match=message):
            served.predict("encoder", "serve", **inputs)
    with pytest.raises(ValueError, match="must be from 0 to 9007199254740991"):
        served.generate([-1])
    with pytest.raises(ValueError, match="files as bytes that are not empty"):
        served.encode_png(b"")
    with pytest.raises(ValueError, match="same number of rows"):
        served.predict("encoder", "sample", image=good, seed=[1, 2])
    with pytest.raises(ValueError, match=r"Unknown signature 'run' of encoder\. Expected one of: serve"):
        served.predict("encoder", "run", image=good)


def test_the_servers_refusal_is_an_error_with_its_words(served):
    with pytest.raises(client.ServingError, match="must be PNG or JPEG files"):
        served.encode_png(b"a text of some length, which is not an image")


def test_no_server_is_one_clear_error(exported):
    _, _, contract = exported
    with pytest.raises(client.ServingError, match=r"No answer from http://localhost:1\b"):
        client.RestClient(contract, "http://localhost:1").generate([1])


def test_documents_are_as_the_server_expects_them():
    arrays = {"image_bytes": np.array([b"\x00\xff"], object), "seed": np.array([7])}
    assert client.rest_document("s", arrays, rows=True) == {
        "signature_name": "s",
        "instances": [{"image_bytes": {"b64": "AP8="}, "seed": 7}],
    }
    assert client.rest_document("s", arrays, rows=False) == {
        "signature_name": "s",
        "inputs": {"image_bytes": [{"b64": "AP8="}], "seed": [7]},
    }


def test_grpc_requests_survive_their_bytes(exported):
    predict_pb2 = pytest.importorskip(
        "tensorflow_serving.apis.predict_pb2", reason="tensorflow-serving-api is not installed"
    )
    _, written, contract = exported
    for name, signature in all_signatures(contract):
        arrays = verify.golden_request(contract["models"][name]["signatures"][signature])
        sent = client.grpc_request(name, signature, arrays, version=3).SerializeToString()
        request = predict_pb2.PredictRequest.FromString(sent)
        spec = request.model_spec
        assert (spec.name, spec.signature_name, spec.version.value) == (name, signature, 3)
        received = {key: tf.make_ndarray(tensor) for key, tensor in request.inputs.items()}
        assert_same(received, arrays)
        with verify.Model(written.paths[name]) as model:
            assert_same(model.run(signature, received), model.run(signature, arrays))


def test_warmup_records_are_prediction_logs(exported):
    prediction_log_pb2 = pytest.importorskip(
        "tensorflow_serving.apis.prediction_log_pb2", reason="tensorflow-serving-api is not installed"
    )
    for name, path in exported[1].paths.items():
        for record in tf.data.TFRecordDataset(str(pathlib.Path(path) / verify.WARMUP)).as_numpy_iterator():
            request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
            read = verify.parse_warmup(record)
            assert (request.model_spec.name, request.model_spec.signature_name) == read[:2]
            assert read[0] == name
            assert_same(read[2], {key: tf.make_ndarray(tensor) for key, tensor in request.inputs.items()})


def test_the_command_line_of_the_client(exported, stand_in, tmp_path, capsys):
    contract = pathlib.Path(exported[1].directory) / "contract.json"
    options = ["--contract", str(contract), "--server", stand_in.url]
    out = tmp_path / "image.png"
    assert client.main([*options, "generate", "7", "--out", str(out)]) == 0
    assert client.main([*options, "encode", str(out)]) == 0
    assert "z_mean [" in capsys.readouterr().out
    assert client.main([*options, "decode", "0.5", "0", "1", "--out", str(out)]) == 0
    assert client.main([*options, "decode", "0.5"]) == 2
    assert capsys.readouterr().err == "error: z must have the shape (n, 3) with n at least 1. Received: (1, 1).\n"
    assert client.main([*options, "encode", str(tmp_path / "none.png")]) == 2


def test_the_client_of_a_conditional_model_sends_the_class(tmp_path):
    case = Case("conditional", {"condition": "label", "num_classes": 3})
    model, written, contract = export(tmp_path, case)
    server = StandIn(written.paths)
    one = client.RestClient(contract, server.url)
    answer = one.generate([7, 7], label=[0, 2])
    np.testing.assert_array_equal(answer["z"][0], answer["z"][1])  # of one seed
    np.testing.assert_allclose(answer["image"], model.decode(answer["z"], [0, 2]), atol=1e-5)
    score = one.predict("vae", "score", image=np.ones((2, 8, 8, 1)), seed=[1, 1], label=[0, 2])["score"]
    assert score[0] != score[1]
    for wrong, message in (([0, 3], "must be from 0 to 2"), ([0], "same number of rows")):
        with pytest.raises(ValueError, match=message):
            one.generate([7, 7], label=wrong)
    with pytest.raises(ValueError, match="Expected the inputs seed, label"):
        one.generate([7, 7])
    options = ["--contract", str(tmp_path / "contract.json"), "--server", server.url, "--label", "1"]
    assert client.main([*options, "generate", "7", "--out", str(tmp_path / "image.png")]) == 0
    assert client.main([*options, "encode", str(tmp_path / "image.png")]) == 0
    server.close()


# -- the real server ------------------------------------------------------------------------------------------------

SERVER = os.environ.get("TENSORFLOW_MODEL_SERVER") or shutil.which("tensorflow_model_server")


def free_port():
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


@pytest.mark.slow
@pytest.mark.skipif(
    SERVER is None,
    reason="tensorflow_model_server is not here: set TENSORFLOW_MODEL_SERVER to it. Nothing else runs the real server.",
)
def test_a_real_server_swaps_versions_under_load(tmp_path):
    model = build(CONV_VAE)
    written = export_saved_models(model, tmp_path)
    config = (tmp_path / "models.config").read_text().replace("/models/", f"{tmp_path}/")
    versions = 'model_version_policy { latest { num_versions: 2 } } version_labels { key: "stable" value: 1 }'
    config = config.replace("model_version_policy { latest { num_versions: 2 } }", versions, 1)
    (tmp_path / "local.config").write_text(config)
    rest, grpc = free_port(), free_port()
    command = [SERVER, f"--port={grpc}", f"--rest_api_port={rest}", f"--model_config_file={tmp_path}/local.config"]
    command += ["--enable_batching", f"--batching_parameters_file={tmp_path}/batching.config"]
    command += [f"--monitoring_config_file={tmp_path}/monitoring.config", "--file_system_poll_wait_seconds=1"]
    command += ["--allow_version_labels_for_unavailable_models=true"]
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        contract = json.loads((tmp_path / "contract.json").read_text())
        clients = [
            client.RestClient(contract, f"http://localhost:{rest}"),
            client.GrpcClient(contract, f"localhost:{grpc}"),
        ]
        deadline = time.time() + 60
        while True:
            try:
                clients[0].generate([1])
                break
            except client.ServingError:
                assert time.time() < deadline and process.poll() is None, (tmp_path / "log").read_text()
                time.sleep(0.2)
        for one in clients:
            for name, signature in all_signatures(contract):
                request = verify.golden_request(contract["models"][name]["signatures"][signature])
                with verify.Model(written.paths[name]) as loaded:
                    assert_same(one.predict(name, signature, **request), loaded.run(signature, request))
            one.predict("encoder", "serve", image=np.zeros((1, 8, 12, 3)), version_label="stable")
        failures, answered, done = [], [], threading.Event()

        def ask(one):
            while not done.is_set():
                try:
                    answered.append(one.generate([1, 2])["z"])
                except client.ServingError as error:
                    failures.append(str(error))

        threads = [threading.Thread(target=ask, args=(one,)) for one in clients * 4]
        for thread in threads:
            thread.start()
        export_saved_models(model, tmp_path)
        deadline = time.time() + 60
        while "successfully loaded servable version {name: decoder version: 2}" not in (
            (tmp_path / "log").read_text().lower()
        ):
            assert time.time() < deadline and process.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.2)
        time.sleep(1)
        done.set()
        for thread in threads:
            thread.join()
        assert not failures and len(answered) > 100
        with pytest.raises(client.ServingError):
            clients[0].encode_png(b"a text of some length, which is not an image")
        assert process.poll() is None
        metrics = urllib.request.urlopen(f"http://localhost:{rest}/monitoring/prometheus/metrics").read()
        assert b"tensorflow" in metrics
    finally:
        process.terminate()
        process.wait(30)
