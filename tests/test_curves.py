"""Curves, histograms and tables of examples that are no images: what is drawn is what was given."""

import numpy as np
import pytest

from keras_vae import VAE, figures, networks, plotting
from keras_vae.report.columns import column_rows


def segments(collection):
    return [np.asarray(path.vertices) for path in collection.get_paths()]


def test_each_curve_is_drawn_in_a_panel_of_its_own_on_one_scale():
    curves = np.stack([np.full((5, 1), value) for value in (0.0, 1.0, 3.0)])
    figure = plotting.curve_panels(curves, over=curves + 1, columns=3)
    frames, below, over = figure.axes[0].collections
    low, high = 0.0, 4.0
    for collection, shift in ((below, 0), (over, 1)):
        for line, frame, value in zip(segments(collection), segments(frames), (0, 1, 3), strict=True):
            inside = (line[:, 1] - frame[:, 1].min() - 0.06) / 0.88  # a margin of 6 % on each side
            np.testing.assert_allclose(inside, (value + shift - low) / (high - low), atol=1e-9)
            assert frame[:, 0].min() < line[:, 0].min() and line[:, 0].max() < frame[:, 0].max()
    assert "from 0 to 4" in figure.get_suptitle()


def test_a_family_is_coloured_by_its_values():
    curves = np.zeros((2, 3, 4, 2)) + np.array([0.0, 1.0, 2.0])[:, None, None]
    figure = plotting.curve_families(curves, ["a", "b"], values=[-1, 0, 5])
    lines = figure.axes[0].collections[1]
    assert lines.get_array().tolist() == [-1, -1, 0, 0, 5, 5] * 2
    assert [text.get_text() for text in figure.axes[0].texts] == ["a", "b"]


def test_a_histogram_has_the_shares_of_planted_values():
    original = np.repeat([[0.0], [1.0]], 50, axis=0)
    drawn = np.concatenate([np.zeros((25, 1)), np.ones((75, 1))])
    figure = plotting.histograms(original, drawn)
    _, filled, outline = figure.axes[0].collections
    heights = [(each[:, 1].max() - each[:, 1].min()) for each in (segments(filled)[0], segments(outline)[0])]
    assert heights[0] / heights[1] == pytest.approx(50 / 75)


def test_many_columns_and_values_are_thinned_out_and_the_title_says_so():
    wide = np.random.default_rng(0).normal(size=(20, 40))
    assert "columns 0 to 29 of 40" in plotting.histograms(wide, wide).get_suptitle()
    many = np.zeros((2, 5, 9))
    assert "values 0 to 3 of 9" in plotting.curve_panels(many).get_suptitle()
    assert len(plotting.curve_bundles({"test": many, "drawn": many}).axes) == 8


@pytest.mark.parametrize("curves", [np.zeros((2, 5)), np.zeros((0, 5, 1)), np.full((2, 5, 1), np.nan)])
def test_what_are_no_curves_is_refused(curves):
    with pytest.raises(ValueError, match="curves"):
        plotting.curve_panels(curves)


def test_pictures_are_scaled_to_the_range_of_the_data_and_channels_stand_side_by_side():
    images = np.zeros((1, 2, 3, 4), "float32") + np.array([-2.0, 0.0, 2.0, 5.0], "float32")
    pictures = figures.pictures(images, value_range=(-2.0, 2.0))
    assert pictures.shape == (1, 2, 12, 1)
    assert pictures[0, 0, :, 0].tolist() == [0.0] * 3 + [0.5] * 3 + [1.0] * 6
    np.testing.assert_array_equal(figures.pictures(images[..., :3] / 2 + 0.5), np.clip(images[..., :3] / 2 + 0.5, 0, 1))


def test_the_table_of_columns_has_the_moments_of_data_and_draws():
    encoder, decoder = networks.build("mlp", (3,), 2, hidden=(4,))
    vae = VAE(encoder, decoder, likelihood="gaussian", seed=0)
    last = decoder.layers[-2]
    last.kernel.assign(np.zeros(last.kernel.shape))
    last.bias.assign([10.0, 20.0, 30.0])
    x = np.random.default_rng(0).normal([10, 20, 33], [1, 5, 1], size=(4000, 3)).astype("float32")
    rows = column_rows(vae, x)
    means = [[float(row[name]) for row in rows] for name in ("mean", "drawn_mean", "stddev", "drawn_stddev")]
    for got, expected in zip(means, ([10, 20, 33], [10, 20, 30], [1, 5, 1], [1, 1, 1]), strict=True):
        np.testing.assert_allclose(got, expected, atol=0.3)
    assert [row["explained"] for row in rows][:2] == ["0 %", "0 %"] and int(rows[2]["explained"][:-2]) < -800
    assert float(rows[1]["high"]) == pytest.approx(20 + 1.645 * 5, abs=0.5)


@pytest.mark.parametrize("shape", [(7,), (6, 2), (4, 6, 4), (4, 6, 3)])
def test_a_picture_can_be_made_of_examples_of_any_shape(shape):
    x = np.random.default_rng(0).normal(size=(5, *shape)).astype("float32")
    for picture in (figures.picture(x, (-3, 3)), figures.picture(x, (-3, 3), over=x)):
        assert picture.dtype == np.uint8 and np.ptp(picture) > 50
