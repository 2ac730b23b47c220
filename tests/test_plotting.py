"""Pictures are tested by what can be read off them: planted constants, colours, labels and pixels."""

import doctest
import io
import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

import keras_vae
from keras_vae import plotting


def flat(*values, shape=(8, 8, 1)):
    """One constant image a value."""
    return np.stack([np.full(shape, value) for value in values])


def lattice(values, shape=(8, 8, 1)):
    """[rows, columns] of values -> [rows, columns, h, w, c] of constant images."""
    return np.stack([flat(*row, shape=shape) for row in values])


def drawn(figure, rows, columns):
    """The value in the middle of each tile, read from the picture that the axes hold: [rows, columns]."""
    canvas = np.asarray(figure.axes[0].images[0].get_array())[..., 0] / 255
    y = ((np.arange(rows) + 0.5) * canvas.shape[0] / rows).astype(int)
    x = ((np.arange(columns) + 0.5) * canvas.shape[1] / columns).astype(int)
    return canvas[np.ix_(y, x)]


def rendered(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=plotting.DPI)
    return np.asarray(Image.open(buffer).convert("RGB"))


def x_labels(axes):
    return [label.get_text() for label in axes.get_xticklabels()]


def y_labels(axes):
    return [label.get_text() for label in axes.get_yticklabels()]


HISTORY = {
    "epoch": [1, 2, 3],
    "loss": [200.0, 150.0, 140.0],
    "reconstruction_loss": [190.0, 130.0, 115.0],
    "kl_loss": [10.0, 20.0, 25.0],
    "val_loss": [160.0, 145.0, 138.0],
    "val_reconstruction_loss": [145.0, 124.0, 113.0],
    "val_kl_loss": [15.0, 21.0, 25.0],
}

FIGURES = {  # every kind of figure, also at its extremes, as a function of title and footnote
    "samples": lambda **text: plotting.samples(flat(*[0.5] * 7), **text),
    "one colour sample": lambda **text: plotting.samples(flat(0.5, shape=(32, 32, 3)), **text),
    "not square": lambda **text: plotting.samples(flat(0.1, 0.5, 0.9, shape=(5, 9, 1)), **text),
    "reconstructions": lambda **text: plotting.reconstructions(flat(0.1, 0.2), flat(0.3, 0.4), **text),
    "interpolations": lambda **text: plotting.interpolations(lattice([[0.1, 0.5, 0.9]]), **text),
    "one step": lambda **text: plotting.interpolations(lattice([[0.1]]), **text),
    "class samples": lambda **text: plotting.class_samples(lattice([[0.1, 0.5], [0.9, 0.3]]), **text),
    "traversals": lambda **text: plotting.traversals(lattice([[0.1, 0.9]]), [19], [12.3], [-3, 3], **text),
    "manifold": lambda **text: plotting.manifold(lattice(np.eye(9)), np.arange(9) - 4, **text),
    "training": lambda **text: plotting.training_curves(HISTORY, **text),
    "one epoch": lambda **text: plotting.training_curves({"epoch": [1], "loss": [9.0]}, **text),
    "compared": lambda **text: plotting.compared_curves({"a run": HISTORY, "a longer name of a run": HISTORY}, **text),
    "latent space": lambda **text: plotting.latent_space(np.eye(10)[:, :2], np.arange(10), **text),
    "colour bar": lambda **text: plotting.latent_space(np.eye(20)[:, :2], np.arange(20), **text),
    "kl": lambda **text: plotting.kl_per_dimension(np.arange(100.0), threshold=0.01, **text),
    "two bars": lambda **text: plotting.kl_per_dimension([3.0, 1.0], active=[True, False], **text),
}
every_figure = pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES.keys())


# Arrays and files


def test_grid_puts_images_in_reading_order():
    grid = plotting.image_grid(flat(0.0, 0.2, 0.4, 0.6, 0.8, 1.0, shape=(3, 5, 1)), columns=3)
    assert grid.dtype == np.uint8 and grid.shape == (3 + 2 + 3, 5 + 2 + 5 + 2 + 5)
    assert grid[::5, ::7].tolist() == [[0, 51, 102], [153, 204, 255]]


def test_gaps_are_two_pixels_that_differ_from_black_and_from_white():
    for value in (0.0, 1.0):
        row = plotting.image_grid(flat(value, value, shape=(4, 4, 1)), columns=2)[0]
        assert np.flatnonzero(row != 255 * value).tolist() == [4, 5]


@pytest.mark.parametrize("count, rows, columns", [(1, 1, 1), (7, 3, 3), (10, 2, 5), (12, 3, 4), (100, 10, 10)])
def test_default_grid_is_near_square(count, rows, columns):
    grid = plotting.image_grid(np.zeros([count, 4, 4, 1]))
    assert grid.shape == (rows * 6 - 2, columns * 6 - 2)


def test_grid_keeps_the_order_of_colour_channels():
    images = np.zeros([1, 2, 2, 3])
    images[..., 0], images[..., 2] = 1.0, 0.4
    assert plotting.image_grid(images).tolist() == [[[255, 0, 102]] * 2] * 2


def test_bright_pixels_do_not_wrap_around():
    assert plotting.image_grid(flat(1.0 + 5e-6))[0, 0] == 255
    assert plotting.image_grid(flat(0.999))[0, 0] == 255


@pytest.mark.parametrize("bad", [-0.01, 1.01, 255.0, np.nan, np.inf])
def test_out_of_range_pixels_are_refused(bad):
    images = flat(0.5, 0.5)
    images[1, 3, 3, 0] = bad
    with pytest.raises(ValueError, match=r"`images`.*\[0, 1\].*Received"):
        plotting.image_grid(images)
    with pytest.raises(ValueError, match="`corrupted`"):
        plotting.reconstructions(flat(0, 0), flat(0, 0), corrupted=images)


@pytest.mark.parametrize("shape", [(8, 8), (4, 8, 8), (4, 8, 8, 2), (4, 8, 8, 4), (0, 8, 8, 1), (2, 2, 8, 8, 1)])
def test_wrong_ranks_are_refused_with_the_shape_received(shape):
    with pytest.raises(ValueError) as error:
        plotting.image_grid(np.zeros(shape))
    assert "[n, h, w, c]" in str(error.value) and str(list(shape)) in str(error.value)


@pytest.mark.parametrize("columns", [0, -1, 1.5])
def test_impossible_columns_are_refused(columns):
    with pytest.raises(ValueError, match="`columns`"):
        plotting.image_grid(flat(0.5), columns=columns)


def test_png_reads_back_as_written(tmp_path):
    for name, shape in (("grey.png", (4, 6, 1)), ("colour.png", (4, 6, 3))):
        grid = plotting.image_grid(np.random.default_rng(0).random((5, *shape)))
        plotting.save_png(grid, tmp_path / name)
        assert np.array_equal(np.asarray(Image.open(tmp_path / name)), grid)


@pytest.mark.parametrize("array", [np.zeros([4, 4]), np.zeros([4, 4, 1], np.uint8), np.zeros([4], np.uint8)])
def test_arrays_that_are_no_picture_are_refused_and_leave_no_file(tmp_path, array):
    with pytest.raises(ValueError, match="`array`"):
        plotting.save_png(array, tmp_path / "x.png")
    assert os.listdir(tmp_path) == []


def test_an_interrupted_save_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "figure.png"
    path.write_bytes(b"old")
    figure = plotting.samples(flat(0.5))

    def interrupted(file, **options):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(figure, "savefig", interrupted)
    with pytest.raises(KeyboardInterrupt):
        plotting.save(figure, path)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["figure.png"]


def test_save_replaces_the_old_file_and_honours_dpi_and_umask(tmp_path):
    path = tmp_path / "figure.png"
    figure = plotting.kl_per_dimension([1.0])
    plotting.save(figure, path)
    plotting.save(figure, path, dpi=60)
    (tmp_path / "plain").touch()
    assert Image.open(path).size == tuple((figure.get_size_inches() * 60).astype(int))
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_name_that_promises_another_format_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"`path`.*\.png"):
        plotting.save(plotting.samples(flat(0.5)), tmp_path / "figure.pdf")


# Figures of images


def test_samples_are_in_reading_order():
    values = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert np.allclose(drawn(plotting.samples(flat(*values)), 2, 3).ravel(), values)


def test_originals_are_above_reconstructions():
    figure = plotting.reconstructions(flat(0.2, 0.4), flat(0.6, 0.8))
    assert np.allclose(drawn(figure, 2, 2), [[0.2, 0.4], [0.6, 0.8]])
    assert y_labels(figure.axes[0]) == ["original", "reconstruction"]
    ticks = figure.axes[0].transData.transform([(0, y) for y in figure.axes[0].get_yticks()])[:, 1]
    assert ticks[0] > ticks[1]  # "original" is written higher on the page


def test_corrupted_images_are_between_originals_and_reconstructions():
    figure = plotting.reconstructions(flat(0.2), flat(0.8), corrupted=flat(0.4))
    assert np.allclose(drawn(figure, 3, 1).ravel(), [0.2, 0.4, 0.8])
    assert y_labels(figure.axes[0]) == ["original", "noisy", "denoised"]


def test_unequal_shapes_are_refused_by_name():
    with pytest.raises(ValueError, match="`reconstructions`"):
        plotting.reconstructions(flat(0.2, 0.3), flat(0.2))
    with pytest.raises(ValueError, match="`corrupted`"):
        plotting.reconstructions(flat(0.2), flat(0.2), corrupted=flat(0.2, shape=(4, 4, 1)))


def test_manifold_has_z1_growing_upward():
    figure = plotting.manifold(lattice([[0.0, 0.2], [0.4, 0.6], [0.8, 1.0]]), ticks=[-1, 1], row_ticks=[-2, 0, 2])
    assert np.allclose(drawn(figure, 3, 2), [[0.8, 1.0], [0.4, 0.6], [0.0, 0.2]])
    axes = figure.axes[0]
    heights = axes.transData.transform([(0, y) for y in axes.get_yticks()])[:, 1]
    assert [label for _, label in sorted(zip(heights, y_labels(axes)))] == ["−2.00", "0", "2.00"]
    assert x_labels(axes) == ["−1.00", "1.00"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("z[0]", "z[1]")


def test_manifold_writes_five_uneven_ticks_at_the_middle_of_their_tiles():
    ticks = np.linspace(-2, 2, 21) ** 3
    axes = plotting.manifold(lattice(np.zeros([21, 21])), ticks).axes[0]
    tile = axes.images[0].get_size()[1] / 21
    assert x_labels(axes) == ["−8.00", "−1.00", "0", "1.00", "8.00"]
    assert np.allclose(axes.get_xticks(), (np.array([0, 5, 10, 15, 20]) + 0.5) * tile - 0.5)
    assert np.allclose(axes.get_yticks(), axes.get_xticks()) and y_labels(axes) == x_labels(axes)[::-1]


def test_manifold_refuses_ticks_that_would_turn_it_upside_down():
    with pytest.raises(ValueError, match="`row_ticks`.*increasing"):
        plotting.manifold(lattice(np.zeros([2, 2])), [-1, 1], [1, -1])
    with pytest.raises(ValueError, match=r"`ticks`.*\[2\].*\[3\]"):
        plotting.manifold(lattice(np.zeros([2, 2])), [-1, 0, 1])


def test_samples_of_a_class_are_the_row_that_bears_its_name():
    values = [[0.0, 0.2, 0.4], [1.0, 0.8, 0.6]]
    figure = plotting.class_samples(lattice(values), class_names=["shirt", "shoe"])
    assert np.allclose(drawn(figure, 2, 3), values)
    assert y_labels(figure.axes[0]) == ["shirt", "shoe"]
    with pytest.raises(ValueError, match="`class_names`.*2 names"):
        plotting.class_samples(lattice(values), class_names=["shirt"])


def test_interpolation_frames_its_first_and_last_column():
    figure = plotting.interpolations(lattice([[0.0, 0.2, 0.4, 0.6], [1.0, 0.8, 0.6, 0.4]]))
    axes = figure.axes[0]
    assert np.allclose(drawn(figure, 2, 4), [[0.0, 0.2, 0.4, 0.6], [1.0, 0.8, 0.6, 0.4]])
    height, width = axes.images[0].get_size()
    framed = [
        [patch.get_path().transformed(patch.get_patch_transform()).contains_point((x * width / 8, height / 2))]
        for patch in axes.patches
        for x in (1, 3, 5, 7)
    ]
    assert sorted(np.reshape(framed, (2, 4)).tolist()) == [[False, False, False, True], [True, False, False, False]]
    assert x_labels(axes) == ["from", "to"]


def test_traversals_name_each_row_and_each_value():
    figure = plotting.traversals(lattice([[0.0, 0.5, 1.0], [0.2, 0.4, 0.6]]), [7, 12], [3.14, 0.04], [-2.5, 0, 2.5])
    assert np.allclose(drawn(figure, 2, 3), [[0.0, 0.5, 1.0], [0.2, 0.4, 0.6]], atol=1 / 255)
    assert y_labels(figure.axes[0]) == ["z[7]  3.1 nats", "z[12]  0.0 nats"]
    assert x_labels(figure.axes[0]) == ["−2.50", "0", "2.50"]
    pitch = (figure.axes[0].images[0].get_size()[1] + 3) / 3  # an image and the gap of 3 pixels after it
    assert np.allclose(figure.axes[0].get_xticks(), (np.arange(3) + 0.5) * pitch - 2)


@pytest.mark.parametrize("dims, kl, values", [([1, 2], [1], [0, 1]), ([1], [1, 2], [0, 1]), ([1], [np.nan], [0, 1])])
def test_traversal_labels_that_do_not_fit_the_rows_are_refused(dims, kl, values):
    with pytest.raises(ValueError, match="`dims`|`kl`"):
        plotting.traversals(lattice([[0.0, 1.0]]), dims, kl, values)


def test_labels_of_narrow_columns_do_not_touch():
    figure = plotting.traversals(np.zeros([1, 40, 28, 28, 1]), [0], [1.0], np.linspace(-3, 3, 40))
    rendered(figure)
    boxes = [label.get_window_extent() for label in figure.axes[0].get_xticklabels()]
    assert len(boxes) > 5
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))


@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (32, 32, 3), (7, 13, 3), (200, 90, 1)])
def test_pixels_are_not_blurred_when_written(shape):
    figure = plotting.reconstructions(*np.random.default_rng(0).random((2, 3, *shape)), title="a b c", footnote="d e f")
    canvas = np.asarray(figure.axes[0].images[0].get_array())
    page = rendered(figure)
    box = figure.axes[0].get_window_extent()
    top, left = page.shape[0] - round(box.y1), round(box.x0)
    shown = page[top : top + canvas.shape[0], left : left + canvas.shape[1]]
    assert np.array_equal(shown, canvas)


# Charts


def test_validation_curve_is_labelled_test():
    figure = plotting.training_curves(HISTORY)
    legend = figure.axes[-1].get_legend()
    colors = {text.get_text(): line.get_color() for text, line in zip(legend.get_texts(), legend.get_lines())}
    assert colors == {"train": plotting.TRAIN, "test": plotting.TEST} and plotting.TRAIN != plotting.TEST
    for axes, name in zip(figure.axes, ("loss", "reconstruction_loss", "kl_loss"), strict=True):
        shown = {line.get_color(): line.get_ydata().tolist() for line in axes.get_lines()}
        assert shown == {colors["train"]: HISTORY[name], colors["test"]: HISTORY[f"val_{name}"]}
    assert figure.axes[0].get_ylabel() == "nats per example"


def test_an_autoencoder_has_no_kl_panel():
    history = {name: values for name, values in HISTORY.items() if "kl" not in name}
    titles = [axes.get_title(loc="left") for axes in plotting.training_curves(history).axes]
    assert titles == ["loss", "reconstruction"]


def test_a_run_without_test_set_promises_no_test_curve():
    legend = plotting.training_curves({"loss": [3.0, 2.0]}).axes[-1].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["train"]


def test_one_epoch_leaves_a_visible_mark():
    page = rendered(plotting.training_curves({"epoch": [1], "loss": [100.0]}))
    blue = np.all(page == [int(plotting.TRAIN[k : k + 2], 16) for k in (1, 3, 5)], axis=-1)
    middle = blue[:, : int(0.7 * page.shape[1])]  # left of the legend
    assert middle.sum() >= 9


def test_a_far_first_epoch_does_not_squash_the_others():
    axes = plotting.training_curves({"loss": [5000.0] + [100.0 - k for k in range(19)]}).axes[0]
    low, high = axes.get_ylim()
    assert low < 82.0 and 100.0 < high < 200.0
    assert "5000" in axes.get_title(loc="right")


@pytest.mark.parametrize("losses", [[90.0, 2.0, 1.5], list(np.linspace(200, 100, 50)), [5.0] * 8, [0.1, 20, 24, 25]])
def test_ordinary_curves_are_shown_whole(losses):
    axes = plotting.training_curves({"kl_loss": losses}).axes[0]
    low, high = axes.get_ylim()
    assert low < min(losses) and max(losses) < high and axes.get_title(loc="right") == ""


@pytest.mark.parametrize("losses", [[np.nan] * 6, [3.0, 2.0, np.inf, np.nan, np.nan, np.nan]])
def test_a_diverged_run_can_still_be_drawn(losses):
    axes = plotting.training_curves({"loss": losses}).axes[0]
    assert np.isfinite(axes.get_ylim()).all()
    assert rendered(axes.figure).min() < 255


def test_each_compared_run_has_its_own_colour_and_only_its_own_epochs():
    short = {"val_loss": [9.0], "loss": [8.0]}
    figure = plotting.compared_curves({"long": HISTORY, "short": short, "none": {}})
    legend = figure.axes[-1].get_legend()
    colors = {text.get_text(): line.get_color() for text, line in zip(legend.get_texts(), legend.get_lines())}
    assert list(colors) == ["long", "short"] and len(set(colors.values())) == 2
    shown = {line.get_color(): line.get_xydata().tolist() for line in figure.axes[0].get_lines()}
    assert shown == {colors["long"]: [[1, 160.0], [2, 145.0], [3, 138.0]], colors["short"]: [[1, 9.0]]}
    assert [len(axes.get_lines()) for axes in figure.axes] == [2, 1, 1]


def test_useless_histories_are_refused():
    with pytest.raises(ValueError, match="`histories`.*val_loss"):
        plotting.compared_curves({"a": {"loss": [1.0]}})
    with pytest.raises(ValueError, match="`history`.*accuracy"):
        plotting.training_curves({"accuracy": [1.0]})
    with pytest.raises(ValueError, match="val_loss"):
        plotting.training_curves({"loss": [1.0, 2.0], "val_loss": [1.0]})


def scatter_colors(figure):
    dots = figure.axes[0].collections[0]
    where = map(tuple, np.asarray(dots.get_offsets()).tolist())
    return dict(zip(where, (to_hex(color) for color in dots.get_facecolors())))


def test_each_class_keeps_its_colour_in_every_figure():
    z = np.arange(20.0).reshape(10, 2)
    every = scatter_colors(plotting.latent_space(z, np.arange(10)))
    assert [every[tuple(point)] for point in z.tolist()] == plotting.PALETTE
    assert len(set(plotting.PALETTE)) == 10
    few = plotting.latent_space(z[[3, 8]], [3, 8], class_names=list("abcdefghij"))
    assert scatter_colors(few) == {tuple(z[3]): plotting.PALETTE[3], tuple(z[8]): plotting.PALETTE[8]}
    legend = few.axes[0].get_legend()
    named = {text.get_text(): line.get_color() for text, line in zip(legend.get_texts(), legend.get_lines())}
    assert named == {"d": plotting.PALETTE[3], "i": plotting.PALETTE[8]}


def test_the_last_class_does_not_cover_the_first():
    labels = np.repeat([0, 1], 500)
    figure = plotting.latent_space(np.random.default_rng(0).normal(size=(1000, 2)), labels)
    colors = [to_hex(color) for color in figure.axes[0].collections[0].get_facecolors()]
    assert 200 < colors[:500].count(plotting.PALETTE[0]) < 300


def test_many_classes_get_a_colour_bar_that_orders_them():
    z = np.arange(24.0).reshape(12, 2)
    figure = plotting.latent_space(z, np.arange(12))
    dots = figure.axes[0].collections[0]
    assert {tuple(point): value for point, value in zip(np.asarray(dots.get_offsets()).tolist(), dots.get_array())} == {
        tuple(point): label for label, point in enumerate(z.tolist())
    }
    assert len(figure.axes) == 2 and figure.axes[0].get_legend() is None


@pytest.mark.parametrize("count", [20, 2000])
def test_outliers_do_not_squash_the_picture_and_are_counted(count):
    z = np.random.default_rng(0).normal(size=(count, 2))
    z[0] = 1e4, 0
    figure = plotting.latent_space(z)
    axes = figure.axes[0]
    for low, high in (axes.get_xlim(), axes.get_ylim()):
        assert high - low < 15
    assert f"of {count} points lie outside" in axes.get_title(loc="left")
    assert int(axes.get_title(loc="left").split()[0]) < 2 + 0.01 * count


@pytest.mark.parametrize("z", [[[1.0, 2.0]], [[0.0, 0.0], [100.0, 1.0]], np.random.default_rng(0).random((500, 2))])
def test_without_outliers_every_point_is_inside(z):
    axes = plotting.latent_space(np.array(z)).axes[0]
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    assert np.all((left < np.array(z)[:, 0]) & (np.array(z)[:, 0] < right))
    assert np.all((bottom < np.array(z)[:, 1]) & (np.array(z)[:, 1] < top))
    assert axes.get_title(loc="left") == "" and np.isclose(right - left, top - bottom)


def test_a_projection_is_not_called_z():
    figure = plotting.latent_space(np.eye(2), projection="PCA of 20 dimensions")
    assert "PCA of 20 dimensions" in figure.get_suptitle()
    assert "z[" not in figure.axes[0].get_xlabel() + figure.axes[0].get_ylabel()
    plain = plotting.latent_space(np.eye(2)).axes[0]
    assert (plain.get_xlabel(), plain.get_ylabel()) == ("z[0]", "z[1]")


def test_latent_points_that_are_no_plane_are_refused():
    for z in (np.zeros([5, 3]), np.zeros([5]), np.zeros([0, 2]), np.array([[np.nan, 0.0]])):
        with pytest.raises(ValueError, match="`z`"):
            plotting.latent_space(z)
    with pytest.raises(ValueError, match="`labels`"):
        plotting.latent_space(np.eye(2), labels=[1])
    with pytest.raises(ValueError, match="`class_names`.*class 2"):
        plotting.latent_space(np.eye(2), labels=[0, 2], class_names=["a", "b"])


def test_bars_are_sorted_and_inactive_ones_grey():
    figure = plotting.kl_per_dimension([0.5, 3.0, 0.1, 2.0], active=[False, True, False, True])
    bars = figure.axes[0].patches
    assert [bar.get_height() for bar in bars] == [3.0, 2.0, 0.5, 0.1]
    assert x_labels(figure.axes[0]) == ["1", "3", "0", "2"]
    assert [to_hex(bar.get_facecolor()) for bar in bars] == [plotting.TRAIN] * 2 + [plotting.FAINT] * 2
    assert "2 of 4 active" in figure.get_suptitle() and "5.6 nats" in figure.get_suptitle()


def test_a_mask_has_the_last_word_over_a_threshold():
    by_mask = plotting.kl_per_dimension([2.0, 1.0], threshold=1.5, active=[False, True])
    by_threshold = plotting.kl_per_dimension([2.0, 1.0], threshold=1.5)
    assert [to_hex(bar.get_facecolor()) for bar in by_mask.axes[0].patches] == [plotting.FAINT, plotting.TRAIN]
    assert [to_hex(bar.get_facecolor()) for bar in by_threshold.axes[0].patches] == [plotting.TRAIN, plotting.FAINT]
    assert "active" not in by_threshold.get_suptitle()
    assert set(by_threshold.axes[0].get_lines()[0].get_ydata()) == {1.5}


@pytest.mark.parametrize("kl", [[], [[1.0]], [1.0, np.nan]])
def test_kl_that_is_no_finite_vector_is_refused(kl):
    with pytest.raises(ValueError, match="`kl`"):
        plotting.kl_per_dimension(kl)


# What holds for every figure


@every_figure
@pytest.mark.parametrize("words", [1, 30])
def test_title_and_footnote_are_on_the_page_and_overlap_nothing(draw, words):
    title = " ".join(["title"] * words) + r" $\frac{$ costs"  # dollars are not mathematics, which would fail here
    footnote = " ".join(["footnote"] * words) + r" $\nonsense$"
    figure = draw(title=title, footnote=footnote)
    page = rendered(figure)
    edges = np.concatenate([page[:3].ravel(), page[-3:].ravel(), page[:, :3].ravel(), page[:, -3:].ravel()])
    assert np.all(edges == 255)
    renderer = figure.canvas.get_renderer()
    texts = figure.findobj(lambda artist: hasattr(artist, "get_text") and artist.get_text().strip())
    box = {text.get_text()[:5]: text.get_window_extent(renderer) for text in texts}
    for part in (box["title"], box["footn"]):
        assert part.x0 >= 0 and part.y0 >= 0 and part.x1 <= page.shape[1] and part.y1 <= page.shape[0]
    below, above = page.shape[0] - box["footn"].y1, page.shape[0] - box["title"].y0
    blank = [int(above) + 2, int(below) - 2]  # rows under the title and over the footnote
    assert blank[0] < blank[1] and np.all(page[blank] == 255)
    assert not np.all(page[blank[0] : blank[1]] == 255)


def test_no_pyplot_state_is_touched():
    program = (  # without keras_vae/__init__.py, which imports tensorflow
        "import sys, types, numpy as np; package = types.ModuleType('keras_vae');"
        f"package.__path__ = [{os.path.dirname(keras_vae.__file__)!r}]; sys.modules['keras_vae'] = package;"
        "from keras_vae import plotting;"
        "plotting.samples(np.zeros([4, 8, 8, 1])); plotting.latent_space(np.eye(2), [0, 1]);"
        "plotting.training_curves({'loss': [1.0]}); plotting.kl_per_dimension([1.0]);"
        "print([m for m in ('matplotlib.pyplot', 'tensorflow', 'keras') if m in sys.modules])"
    )
    environment = {key: value for key, value in os.environ.items() if key not in ("DISPLAY", "MPLBACKEND")}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_arguments_are_not_written_to():
    images, kl, history = flat(0.2, 0.4), np.array([1.0, 2.0]), {name: list(v) for name, v in HISTORY.items()}
    for array in (images, kl):
        array.setflags(write=False)
    plotting.reconstructions(images, images, images)
    plotting.kl_per_dimension(kl, active=kl > 1)
    plotting.training_curves(history)
    assert history == HISTORY


def test_examples_in_docstrings_run():
    names = {getattr(plotting, name).__module__ for name in plotting.__all__ if callable(getattr(plotting, name))}
    results = [doctest.testmod(sys.modules[name]) for name in names]
    assert sum(result.attempted for result in results) >= 9 and not any(result.failed for result in results)
