"""What the page of a run says: nothing twice, names whole and known, and counts in words."""

import numpy as np
import pytest
from PIL import Image

from keras_vae import cards, plotting, report
from keras_vae.files import write_json
from keras_vae.models import build_model
from keras_vae.presets import get_preset
from keras_vae.report.explorer import explorer_data
from keras_vae.runs import Run

RESULTS = {"loss": 158.5, "elbo": -158.5, "mse": 0.1, "nll": 150.0, "nll_standard_error": 0.5, "active_units": 2}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    data = {"name": "d", "train_images": 5, "test_images": 5, "event_shape": [8, 8, 1]}
    config = get_preset("mlp").config.replace(hidden=(4,), latent_dim=2)
    run = Run.create(tmp_path_factory.mktemp("runs") / "run", config, {"data": data})
    write_json(run.path / "evaluation.json", {"protocol": {}, "results": RESULTS})
    pixels = np.random.default_rng(0).uniform(size=(8, 8, 8, 1)).astype("float32")
    (run.path / "figures").mkdir()
    plotting.save(plotting.samples(pixels), run.path / "figures" / "samples.png")
    return run, report.write_report(run, build_model(config.model, (8, 8, 1)), pixels, None).read_text()


def test_a_headline_is_not_said_twice_with_another_sign(page):
    headlines = page[1].split('class="headlines"')[1].split("</ul>")[0]
    assert "158.50" in headlines and "150.00" in headlines and headlines.count("158.50") == 1


def test_what_explains_a_result_stands_behind_it():
    results = {"nll": 1.0, "mse": 2.0, "nll_bits_per_dimension": 3.0, "other": 4.0, "nll_standard_error": 5.0}
    names = [name for name, *_ in cards.rows({"results": results, "units": {}})]
    assert names == ["nll", "nll_bits_per_dimension", "nll_standard_error", "mse", "other"]


def test_names_break_behind_underscores_alone_and_counts_have_their_number(page):
    text = page[1]
    assert "nll_<wbr>standard_<wbr>error" in text and "overflow-wrap: anywhere" not in text.split("dd {")[0]
    assert "1 errors" not in text and "1 warnings" not in text and "Audit: " in text


def test_an_entry_of_the_menu_is_called_what_it_leads_to(page):
    assert '<a href="#numbers">What it is worth</a>' in page[1] and ">What it is worth</h2>" in page[1]


def test_a_figure_can_be_read_on_white_and_on_black(page):
    image = Image.open(page[0].path / "figures" / "samples.png")
    assert image.mode == "RGBA" and image.getpixel((0, 0))[3] == 0
    assert f"--width: {image.width}px" in page[1]


def test_classes_are_called_by_their_names():
    config = get_preset("mlp").config.replace(hidden=(4,), latent_dim=2)
    pixels = np.zeros((4, 8, 8, 1), "float32")
    model = build_model(config.model, (8, 8, 1))
    data = explorer_data(model, pixels, np.array([0, 1, 0, 1]), class_names=("cat", "dog"))
    assert data["names"] == ["cat", "dog"] and set(data["labels"]) == {0, 1}


def test_a_traversal_shows_the_image_that_it_starts_from():
    images, base = np.zeros((2, 3, 4, 4, 1)), np.ones((4, 4, 1))
    axes = plotting.traversals(images, [0, 1], None, [-1, 0, 1], base).axes[0]
    assert next(label.get_text() for label in axes.get_xticklabels()) == "base"
    assert np.asarray(axes.images[0].get_array())[2, 2, 0] == 255


def test_colour_is_not_called_grey_and_columns_no_pixels():
    assert cards.pixels("none", (8, 8, 3)) == "colour pixels" and cards.pixels("none", (8, 8, 1)) == "grey pixels"
    assert cards.pixels("none", (8, 1)) == cards.pixels("none", (3,)) == "values as they are"
