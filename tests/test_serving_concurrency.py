"""Many threads at once get the answers that one would get."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from serving_exports import all_signatures, assert_same

from keras_vae.serving import verify

REQUESTS, THREADS = 20, 16
# to each signature
some_calls = pytest.mark.parametrize("calls", [300, pytest.param(2000, marks=pytest.mark.slow)])


def requests_for(entry, generator):
    """Different requests to a signature, of one to three rows."""
    golden = verify.golden_request(entry)
    for number in range(REQUESTS):
        rows = generator.integers(0, 2, 1 + number % 3)
        request = {name: value[rows] for name, value in golden.items()}
        for name, value in request.items():
            if name == "seed":
                request[name] = generator.integers(0, 2**53, len(value))
            elif name == "z":
                request[name] = generator.normal(size=value.shape).astype("float32")
            elif value.dtype == np.float32:
                request[name] = generator.random(value.shape, "float32")
        yield request


@some_calls
def test_concurrent_calls_on_every_signature(calls, exported):
    _, written, contract = exported
    generator = np.random.default_rng(0)
    with ThreadPoolExecutor(THREADS) as pool:
        for name, signature in all_signatures(contract):
            entry = contract["models"][name]["signatures"][signature]
            requests = list(requests_for(entry, generator))
            with verify.Model(written.paths[name]) as model:
                expected = [model.run(signature, request) for request in requests]
                order = generator.integers(0, REQUESTS, calls)
                answers = pool.map(lambda i: model.run(signature, requests[i]), order)  # noqa: B023
                for i, answer in zip(order, answers, strict=True):
                    assert_same(answer, expected[i])


@some_calls
def test_refusals_among_the_calls_disturb_no_other(calls, exported):
    _, written, contract = exported
    entry = contract["models"]["encoder"]["signatures"]["sample"]
    good = verify.golden_request(entry)
    bad = {**good, "image": good["image"][0]}

    with verify.Model(written.paths["encoder"]) as model, ThreadPoolExecutor(THREADS) as pool:
        expected = model.run("sample", good)

        def ask(number):
            try:
                return model.run("sample", bad if number % 2 else good)
            except Exception as error:
                return type(error).__name__

        for number, answer in enumerate(pool.map(ask, range(calls))):
            if number % 2:
                assert answer == "InvalidArgumentError"
            else:
                assert_same(answer, expected)
