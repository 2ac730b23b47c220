"""Runs scored on the same images are compared image by image."""

import json

import numpy as np
import pytest

from keras_vae import cards, cli
from keras_vae.config import Config, InputError
from keras_vae.files import write_json
from keras_vae.runs import Run

IMAGES = 400
PROTOCOL = {
    "dataset": "digits",
    "pixels_sha256": "0123",
    "nll_images": IMAGES,
    "nll_samples": 5,
    "estimator": "importance",
}
RNG = np.random.default_rng(3)
HARD = RNG.normal(-90, 25, IMAGES)  # log p(x): how hard each image is, for any model
LOG_MARGINALS = {"a": HARD + RNG.normal(0, 0.5, IMAGES), "b": HARD + 0.3 + RNG.normal(0, 0.5, IMAGES)}


def make_run(path, log_marginal, **protocol):
    protocol = {**PROTOCOL, **protocol}
    run = Run.create(path, Config(), {})
    results = {"nll": -float(log_marginal.mean()), "nll_standard_error": float(log_marginal.std(ddof=1) / 20)}
    units = {"nll": cards.NATS, "nll_standard_error": cards.NATS}
    card = {"protocol": protocol, "model": {"loss": "the negative ELBO"}, "results": results, "units": units}
    write_json(path / "evaluation.json", card)
    text = json.dumps(protocol, sort_keys=True)
    np.savez(path / "evaluation.npz", protocol=text, name="nll", log_marginal=log_marginal)
    return run


@pytest.fixture
def runs(tmp_path):
    return {name: make_run(tmp_path / name, values) for name, values in LOG_MARGINALS.items()}


def paired(runs):
    found = {name: cards.load(run) for name, run in runs.items()}
    return cards.paired(found, {name: run.read_estimates(found[name]) for name, run in runs.items()})


def test_the_paired_standard_error_is_that_of_the_differences(runs):
    (found,) = paired(runs).values()
    differences = LOG_MARGINALS["a"] - LOG_MARGINALS["b"]  # of minus log p
    assert found["difference"] == pytest.approx(differences.mean(), abs=1e-9)
    assert found["standard_error"] == pytest.approx(differences.std(ddof=1) / np.sqrt(IMAGES), rel=1e-9)
    unpaired = np.sqrt(sum(values.var(ddof=1) / IMAGES for values in LOG_MARGINALS.values()))
    assert found["standard_error"] < 0.05 * unpaired < abs(found["difference"]), "the truth of 0.3 nats is hidden else"


def test_compare_shows_the_difference_to_the_first_run(runs, capsys):
    paths = [str(run.path) for run in runs.values()]
    assert cli.main(["compare", *paths, "--format", "markdown"]) == 0
    header, _, first, second = capsys.readouterr().out.strip().splitlines()
    assert "nll minus that of the first run [nats per example] | its paired standard error" in header
    assert first.endswith("|  |  |") and [cell.strip() for cell in second.split("|")][-3].startswith("-0.29")
    assert cli.main(["compare", *paths, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["paired"].values()
    assert found == next(iter(paired(runs).values()))


def test_other_images_are_not_paired(tmp_path):
    for number, other in enumerate(({"pixels_sha256": "other"}, {"given": "the label"})):
        first = make_run(tmp_path / f"a{number}", LOG_MARGINALS["a"])
        second = make_run(tmp_path / f"b{number}", LOG_MARGINALS["b"], **other)
        assert paired({"a": first, "b": second}) == {}
    fewer = make_run(tmp_path / "fewer", LOG_MARGINALS["b"][:100], nll_images=100)
    assert paired({"a": first, "b": fewer}) == {}


def test_estimates_of_another_evaluation_or_none_leave_the_table_as_it_was(runs, capsys):
    paths = [str(run.path) for run in runs.values()]
    card = cards.load(runs["b"])
    write_json(runs["b"].path / "evaluation.json", {**card, "protocol": {**card["protocol"], "nll_samples": 6}})
    assert runs["b"].read_estimates(cards.load(runs["b"])) is None
    assert cli.main(["compare", *paths, "--allow-mixed"]) == 0 and "minus" not in capsys.readouterr().out
    (runs["a"].path / "evaluation.npz").unlink()
    assert runs["a"].read_estimates(cards.load(runs["a"])) is None and paired(runs) == {}


@pytest.mark.parametrize("damage", ["cut", "text", "shape", "type", "folder"])
def test_damaged_estimates_are_refused_in_one_line(damage, runs):
    path = runs["a"].path / "evaluation.npz"
    card = cards.load(runs["a"])
    content = {
        "protocol": json.dumps(card["protocol"], sort_keys=True),
        "name": "nll",
        "log_marginal": np.zeros(IMAGES),
    }
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-200])
    elif damage == "text":
        path.write_text("nothing")
    elif damage == "shape":
        np.savez(path, **{**content, "log_marginal": np.zeros((2, 3))})
    elif damage == "type":
        np.savez(path, **{**content, "log_marginal": np.full(IMAGES, "x")})
    else:
        path.unlink()
        path.mkdir()
        assert runs["a"].read_estimates(card) is None
        return
    with pytest.raises(InputError, match=r"Cannot read .*evaluation\.npz.*Write it again with") as error:
        runs["a"].read_estimates(card)
    assert "\n" not in str(error.value)
