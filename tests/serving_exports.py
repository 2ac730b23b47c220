"""What the tests of serving share: a small export, and requests through the ways in which a server runs a graph."""

import json
import pathlib
import pickle
import subprocess
import sys

import numpy as np
from cases import Case, build

from keras_vae.serving import export_saved_models, verify

INVALID_ARGUMENT = 3
CONV_VAE = Case("served", {"network": "conv", "hidden": (4, 6), "decoder_channels": 5, "latent_dim": 3}, (8, 12, 3))


def export(directory, case=CONV_VAE):
    """Exports the untrained model of a case. Returns (model, `Export`, contract)."""
    model = build(case)
    export = export_saved_models(model, directory)
    return model, export, json.loads((pathlib.Path(directory) / "contract.json").read_text())


def all_signatures(contract):
    """Pairs (name of the model, name of the signature)."""
    return [(name, key) for name, entry in contract["models"].items() for key in entry["signatures"]]


def tensor_names(path, signature, side):
    """Name of an input or output -> name of its tensor in the graph."""
    proto = verify.Model(path).signatures[signature]
    return {name: info.name for name, info in getattr(proto, side).items()}


def run_c_api(path, requests, folder):
    """Answers (signature, dict of arrays) requests in a process of its own.

    Returns:
        Pair of the process's return code and a list of (status code, dict of arrays).
    """
    with verify.Model(path) as model:
        signatures = model.signatures
    feeds = [
        ({signatures[key].inputs[name].name: value for name, value in request.items()}, list(fetched(signatures[key])))
        for key, request in requests
    ]
    source, target = pathlib.Path(folder) / "requests.pkl", pathlib.Path(folder) / "answers.pkl"
    source.write_bytes(pickle.dumps(feeds))
    script = pathlib.Path(__file__).with_name("serving_c_api.py")
    command = [sys.executable, script, path, source, target]
    code = subprocess.run([str(part) for part in command], capture_output=True).returncode
    answers = []
    with open(target, "rb") as file:
        while file.peek(1):
            answers.append(pickle.load(file))
    named = [
        (status, dict(zip(signatures[key].outputs, arrays, strict=status == 0)))
        for (key, _), (status, arrays) in zip(requests, answers, strict=False)
    ]
    return code, named


def fetched(signature):
    return [info.name for info in signature.outputs.values()]


def assert_same(answer, expected, atol=1e-5):
    """Dicts of arrays are alike; bytes and integers exactly."""
    assert set(answer) == set(expected)
    for name, value in expected.items():
        if value.dtype.kind == "f":
            np.testing.assert_allclose(answer[name], value, rtol=1e-5, atol=atol, err_msg=name)
        else:
            np.testing.assert_array_equal(answer[name], value, err_msg=name)
