"""Cards and their tables: what each number is called, and that unlike ones are not put side by side."""

import copy
import csv
import io
import json

import keras
import numpy as np
import pytest

from keras_vae import cards, evaluation
from keras_vae.config import Config, InputError, ModelConfig
from keras_vae.models import build_model
from keras_vae.runs import Run

BINARY = np.random.default_rng(0).integers(0, 2, (20, 8, 8, 1)).astype("float32")
PROTOCOL = {"dataset": "digits", "pixels_sha256": "0123", "binarization": "threshold", "estimator": "importance"}


def card_of(images=BINARY, **values):
    keras.utils.set_random_seed(0)
    model = build_model(ModelConfig(hidden=(8,), latent_dim=2, **values), (8, 8, 1), seed=0)
    results = evaluation.evaluate(model, images)
    return evaluation.card(model, images, results, protocol=PROTOCOL, versions={"keras": "3"})


@pytest.fixture(scope="module")
def card():
    return card_of()


def test_every_result_has_a_unit_and_the_card_survives_json(card):
    assert all(card["units"].values())
    assert json.loads(json.dumps(card)) == card
    assert card["protocol"]["likelihood"] == "bernoulli" and card["model"]["objective"] == "elbo"


@pytest.mark.parametrize(
    "values, images, is_elbo",
    [
        ({}, BINARY, True),
        ({}, 0.5 * BINARY, False),
        ({"likelihood": "gaussian"}, 0.5 * BINARY, True),
        ({"beta": 4.0}, BINARY, False),
        ({"free_bits": 0.1}, BINARY, False),
        ({"objective": "iwae"}, BINARY, False),
        ({"objective": "beta_tc", "beta": 6.0}, BINARY, False),
        ({"objective": "dreg"}, BINARY, False),
        ({"prior": "vampprior", "prior_components": 2}, BINARY, True),
    ],
    ids=str,
)
def test_only_the_elbo_is_called_the_elbo(values, images, is_elbo):
    model = build_model(ModelConfig(hidden=(8,), latent_dim=2, **values), (8, 8, 1), seed=0)
    assert (evaluation.loss_meaning(model, images) == "the negative ELBO") == is_elbo


def test_unlike_protocols_are_refused_and_the_difference_is_said(card):
    other = copy.deepcopy(card)
    other["protocol"] |= {"binarization": "dynamic", "pixels_sha256": "4567"}
    with pytest.raises(InputError, match="binarization: threshold in a, dynamic in b; pixels_sha256") as error:
        cards.compare({"a": card, "b": other})
    assert "--allow-mixed" in str(error.value)
    header, first, second = cards.compare({"a": card, "b": other}, allow_mixed=True)
    assert header[:3] == ["run", "binarization", "pixels_sha256"]
    assert first[1] == "threshold" and second[1] == "dynamic"


def test_losses_of_different_objectives_are_not_put_in_one_column(card):
    header = cards.compare({"a": card, "b": card_of(beta=4.0)})[0]
    assert "elbo [nats per example]" in header and "loss [nats per image]" not in header
    assert "loss [nats per example]" in cards.compare({"a": card, "b": card})[0]


def test_a_table_says_the_same_in_each_format(card):
    table = cards.compare({"a,b": card})
    assert list(csv.reader(io.StringIO(cards.written(table, "csv")))) == table
    markdown = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in cards.written(table, "markdown").split("\n")
    ]
    assert [markdown[0], *markdown[2:]] == table
    text = cards.written(table, "text").split("\n")
    assert len(text) == len(table[0])
    assert all(line.startswith(name) and line.endswith(cell) for line, name, cell in zip(text, *table))


def test_a_card_of_an_earlier_version_is_refused_with_the_way_out(tmp_path):
    (tmp_path / "evaluation.json").write_text('{"protocol": {}, "results": {}}')
    with pytest.raises(InputError, match="keras-vae evaluate"):
        cards.load(Run(tmp_path, Config(), {}))


def conditional_card():
    keras.utils.set_random_seed(0)
    config = ModelConfig(condition="label", num_classes=2, hidden=(8,), latent_dim=2)
    model, labels = build_model(config, (8, 8, 1), seed=0), np.arange(20) % 2
    results = evaluation.evaluate(model, BINARY, labels=labels, nll_samples=5)
    return evaluation.card(model, BINARY, results, protocol=PROTOCOL, versions={})


def test_a_likelihood_given_the_label_does_not_stand_beside_one_that_is_not(card):
    given = conditional_card()
    assert {"conditional_nll", "conditional_elbo"} <= set(given["results"])
    assert not {"nll", "elbo"} & set(given["results"])
    assert given["model"]["loss"] == "the negative ELBO, given the label"
    with pytest.raises(InputError, match="given: nothing in a, the label in b"):
        cards.compare({"a": card, "b": given})
    header, _, row = cards.compare({"a": card, "b": given}, allow_mixed=True)
    assert row[header.index("elbo [nats per example]")] == "" and "loss [nats per image]" not in header


def test_what_is_no_likelihood_is_called_a_score(card):
    results = card_of(0.5 * BINARY)["results"]
    assert results["score"] == pytest.approx(-(results["reconstruction_loss"] + results["kl_loss"]))
    assert "elbo" not in results and "score" not in card["results"]


def test_the_loss_of_beta_tc_is_evaluated_in_one_batch_size_which_the_card_names():
    images = np.random.default_rng(1).integers(0, 2, (300, 8, 8, 1)).astype("float32")
    keras.utils.set_random_seed(0)
    model = build_model(ModelConfig(hidden=(8,), latent_dim=2, objective="beta_tc", beta=6.0), (8, 8, 1), seed=0)
    assert "q(z) from batches of 500 images" in evaluation.loss_meaning(model, images)
    with evaluation.fixed_noise(model, 0):
        whole = model.loss_terms(images, training=False)["loss"]
    assert evaluation.evaluate(model, images)["loss"] == pytest.approx(np.mean(whole), rel=1e-5)
