"""Each test is named after the hazard it guards. Expected values are written again in plain numpy."""

import itertools
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_vae import data
from keras_vae.config import InputError
from keras_vae.data import Split, batches, binarize, load, open_dataset, to_pixels
from keras_vae.data.images import resize
from keras_vae.data.prepared import _unreachable

MNIST_FILES = [f"{split}-{kind}-ubyte.gz" for split in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]


@pytest.fixture
def no_network(monkeypatch):
    monkeypatch.delenv("KERAS_VAE_MNIST_DIR", raising=False)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there: refused at once


def numbered(n=23, name="train"):
    """Images whose every pixel is the image's number, so that a batch says which images it holds."""
    images = np.broadcast_to(np.arange(n, dtype=np.uint8)[:, None, None, None], (n, 4, 5, 1))
    return Split(np.ascontiguousarray(images), np.arange(n, dtype=np.int64) * 3, name)


def grey(value, n=64, size=8, name="train"):
    return Split(np.full((n, size, size, 1), value, np.float32), None, name)


def numbers_in(dataset):
    """One list of image numbers per batch of a dataset over `numbered`."""
    return [np.rint(x[:, 0, 0, 0] * 255).astype(int).tolist() for x in dataset.as_numpy_iterator()]


def same(left, right):
    left, right = list(left.as_numpy_iterator()), list(right.as_numpy_iterator())
    return len(left) == len(right) and all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))


def write_folder(folder, names, size=(6, 5), mode="L", seed=0):
    rng = np.random.default_rng(seed)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (size[1], size[0]) + ((3,) if mode == "RGB" else ()), np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return folder


# Batches


@pytest.mark.parametrize("name", sorted(set(data.__all__) - {"LazyImages", "MEMORY_LIMIT"}))
def test_public_names_have_an_example(name):
    assert ">>>" in getattr(data, name).__doc__  # test_docstrings.py runs it


@pytest.mark.parametrize("batch_size", [1, 5, 23, 100])
def test_every_image_once_per_epoch(batch_size):
    epoch = numbers_in(batches(numbered(), batch_size, shuffle=True))
    assert [len(b) for b in epoch[:-1]] == [min(batch_size, 23)] * (len(epoch) - 1)
    assert sorted(itertools.chain(*epoch)) == list(range(23))


def test_every_epoch_has_an_order_of_its_own_and_the_seed_decides_it():
    dataset = batches(numbered(), 23, shuffle=True, seed=1)
    first, second = numbers_in(dataset)[0], numbers_in(dataset)[0]
    assert first != second and first != list(range(23))
    assert numbers_in(batches(numbered(), 23, shuffle=True, seed=1))[0] == first
    assert numbers_in(batches(numbered(), 23, shuffle=True, seed=2))[0] != first


def test_the_global_seed_of_tensorflow_changes_nothing():
    def two_epochs():
        dataset = batches(numbered(), 5, shuffle=True, binarization="dynamic")
        return [x.tobytes() for _ in range(2) for x in dataset.as_numpy_iterator()]

    tf.random.set_seed(1)
    first = two_epochs()
    tf.random.set_seed(2)
    assert two_epochs() == first


def test_shuffled_positions_are_uniform():
    """The place of image 0 over 600 epochs: chi-square with 9 degrees of freedom, 99.99 % quantile 33.7."""
    stream = batches(numbered(10), 10, shuffle=True, first_step=0).take(600)
    places = [b.index(0) for b in numbers_in(stream)]
    counts = np.bincount(places, minlength=10)
    assert ((counts - 60) ** 2 / 60).sum() < 33.7


def test_labels_stay_with_their_images():
    for x, y in batches(numbered(), 5, shuffle=True, labels=True).as_numpy_iterator():
        assert y.dtype == np.int64
        np.testing.assert_array_equal(np.rint(x[:, 0, 0, 0] * 255) * 3, y)


@pytest.mark.parametrize("binarization", ["none", "threshold", "dynamic", "fixed"])
@pytest.mark.parametrize("start", [3, 5, 12])
def test_a_resumed_stream_gives_the_same_batches(binarization, start):
    split, options = grey(0.5, n=23), {"shuffle": True, "seed": 4, "binarization": binarization}
    split = Split(split.images * np.linspace(0, 1, 23, dtype=np.float32)[:, None, None, None])
    whole = batches(split, 5, first_step=0, **options).skip(start).take(7)
    assert same(whole, batches(split, 5, first_step=start, **options).take(7))


def test_the_stream_is_the_epochs_one_after_the_other():
    options = {"shuffle": True, "binarization": "dynamic", "seed": 3}
    epochs, stream = batches(grey(0.5, n=23), 5, **options), batches(grey(0.5, n=23), 5, first_step=0, **options)
    joined = list(epochs.as_numpy_iterator()) + list(epochs.as_numpy_iterator())
    assert all(np.array_equal(a, b) for a, b in zip(joined, stream.take(10).as_numpy_iterator(), strict=True))


def test_keras_sees_the_number_of_steps():
    assert batches(numbered(), 5, shuffle=True).cardinality() == 5
    assert batches(numbered(), 5).cardinality() == 5
    assert batches(numbered(), 5, first_step=2).cardinality() == tf.data.INFINITE_CARDINALITY
    assert batches(numbered(), 5, shuffle=True).element_spec == tf.TensorSpec((None, 4, 5, 1), tf.float32)


# Pixels and binarisation


def test_preprocessing_is_the_same_eagerly_and_in_tf_data():
    every = Split(np.arange(256, dtype=np.uint8).reshape(4, 8, 8, 1))
    x = next(batches(every, 4).as_numpy_iterator())
    np.testing.assert_array_equal(x, to_pixels(every.images))
    np.testing.assert_allclose(x.ravel(), np.arange(256) / 255, rtol=1e-6)
    assert x.min() == 0 and x.max() == 1 and x.dtype == np.float32
    x = next(batches(every, 4, binarization="threshold").as_numpy_iterator())
    np.testing.assert_array_equal(x, binarize(to_pixels(every.images), "threshold"))
    np.testing.assert_array_equal(x.ravel(), np.arange(256) > 127)
    near = np.nextafter(np.float32(0.5), np.float32([0, 0.5, 1]))
    np.testing.assert_array_equal(binarize(near, "threshold"), [0, 0, 1])


def test_dynamic_draws_differ_between_epochs_and_have_the_pixel_as_mean():
    """0.3 over 64 * 64 pixels and 50 visits: the standard error of the mean is 0.001."""
    dataset = batches(grey(0.3), 64, shuffle=True, binarization="dynamic")
    visits = np.stack([next(dataset.as_numpy_iterator()) for _ in range(50)])
    assert set(np.unique(visits)) == {0, 1}
    assert abs(visits.mean() - 0.3) < 0.005
    agreement = (visits[0] == visits[1]).mean()
    assert abs(agreement - (0.3**2 + 0.7**2)) < 0.05  # what independent draws give
    rows = visits[0].reshape(64, 64)
    assert abs((rows[:-1] == rows[1:]).mean() - (0.3**2 + 0.7**2)) < 0.05  # images do not share their draws


def test_batches_of_one_epoch_do_not_share_their_draws():
    first, second = batches(grey(0.5), 32, binarization="dynamic").as_numpy_iterator()
    assert 0.4 < (first == second).mean() < 0.6


def test_black_and_white_pixels_are_never_drawn_wrong():
    for binarization in ("dynamic", "fixed", "threshold"):
        for value in (0.0, 1.0):
            drawn = next(batches(grey(value), 64, binarization=binarization).as_numpy_iterator())
            assert (drawn == value).all()


def test_evaluation_repeats_itself():
    dataset = batches(grey(0.5, name="test"), 10, binarization="dynamic")
    assert same(dataset, dataset)


def test_fixed_draws_depend_on_neither_order_nor_batch_size_nor_visit(monkeypatch):
    monkeypatch.setattr("keras_vae.data.pipeline.BLOCK", 7)
    labelled = Split(grey(0.5, n=23).images, np.arange(23))

    def drawn(batch_size, shuffle, seed=0):
        dataset = batches(labelled, batch_size, shuffle=shuffle, labels=True, binarization="fixed", seed=seed)
        next(iter(dataset))
        x, y = (np.concatenate(part) for part in zip(*dataset.as_numpy_iterator(), strict=True))
        return x[np.argsort(y)]

    expected = drawn(23, False)
    assert set(np.unique(expected)) == {0, 1} and abs(expected.mean() - 0.5) < 0.05
    np.testing.assert_array_equal(drawn(4, True), expected)
    assert 0.4 < (drawn(23, False, seed=1) == expected).mean() < 0.6
    assert 0.4 < (expected[:7] == expected[7:14]).mean() < 0.6  # blocks do not share their draws


@pytest.mark.parametrize("binarization", ["dynamic", "fixed"])
def test_train_and_test_do_not_share_their_draws(binarization):
    train, test = (
        next(batches(grey(0.5, name=name), 64, binarization=binarization).as_numpy_iterator())
        for name in ("train", "test")
    )
    assert 0.4 < (train == test).mean() < 0.6


def test_binarize_is_a_function_of_its_seed():
    x = np.full((100, 100), 0.25, np.float32)
    np.testing.assert_array_equal(binarize(x, "dynamic", 7), binarize(x, "dynamic", (7, 0)))
    assert not np.array_equal(binarize(x, "dynamic", 7), binarize(x, "dynamic", 8))
    np.testing.assert_array_equal(binarize(x, "none"), x)


@pytest.mark.parametrize(
    "options, named",
    [({"batch_size": 0}, "batch_size"), ({"batch_size": 2.0}, "batch_size"), ({"seed": -1}, "seed"),
     ({"first_step": -1}, "first_step"), ({"binarization": "otsu"}, "threshold, dynamic, fixed"),
     ({"labels": True}, "labels")],
)  # fmt: skip
def test_bad_arguments_are_named(options, named):
    with pytest.raises(InputError, match=named):
        batches(grey(0.5), **{"batch_size": 4, **options})


def test_integers_of_numpy_are_integers():
    def two_batches(integer):
        options = {"seed": integer(3), "first_step": integer(7), "shuffle": True, "binarization": "dynamic"}
        return batches(grey(0.5, n=23), integer(5), **options).take(2)

    assert same(two_batches(int), two_batches(np.int32))


# Splits


@pytest.mark.parametrize("test_fraction, held_out", [(1e-6, 1), (0.25, 10), (0.999, 39)])
def test_train_and_test_share_no_image(tmp_path, test_fraction, held_out):
    images = np.arange(40 * 4, dtype=np.uint8).reshape(40, 2, 2)
    np.save(tmp_path / "a.npy", images)
    for seed in (0, 1):
        opened = open_dataset(tmp_path / "a.npy", test_fraction=test_fraction, seed=seed)
        train, test = ({image.tobytes() for image in split.images} for split in (opened.train, opened.test))
        assert len(test) == held_out and not train & test
        assert train | test == {image.tobytes() for image in images}


def test_the_seed_decides_what_is_held_out(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(160, dtype=np.uint8).reshape(40, 2, 2))
    held_out = [open_dataset(tmp_path / "a.npy", seed=seed).test.images.tobytes() for seed in (0, 0, 1)]
    assert held_out[0] == held_out[1] != held_out[2]


def test_digits_do_not_depend_on_the_seed_of_the_run():
    first, second = open_dataset("digits"), open_dataset("digits", seed=5, test_fraction=0.5)
    np.testing.assert_array_equal(first.test.images, second.test.images)
    assert len(first.train) == 1500 and first.fallback is None
    assert first.train.images.max() == 255 and not first.train.images[:, :4].any()
    assert 0.1 < to_pixels(first.train.images).mean() < 0.2  # 0.13 for MNIST


def test_digits_keep_their_labels():
    """Class means of the training images recognise the test images, which needs labels that go with the images."""
    digits = open_dataset("digits")
    x, y = to_pixels(digits.train.images).reshape(1500, -1), digits.train.labels
    means = np.stack([x[y == digit].mean(0) for digit in range(10)])
    test = to_pixels(digits.test.images).reshape(297, -1)
    nearest = ((test[:, None] - means) ** 2).sum(-1).argmin(1)
    assert (nearest == digits.test.labels).mean() > 0.85


def test_load_shuffles_train_and_keeps_the_order_of_test():
    train, test = load("digits", batch_size=50, labels=True)
    digits = open_dataset("digits")
    np.testing.assert_array_equal(np.concatenate([y for _, y in test.as_numpy_iterator()]), digits.test.labels)
    seen = np.concatenate([y for _, y in train.as_numpy_iterator()])
    assert not np.array_equal(seen, digits.train.labels) and sorted(seen) == sorted(digits.train.labels)


# Names


def test_an_unknown_name_lists_what_is_accepted():
    with pytest.raises(InputError, match=r"digits.*folder.*Close matches.*fashion_mnist"):
        open_dataset("fashion_mnits")


def test_a_missing_path_is_not_taken_for_a_name(tmp_path):
    for path in (tmp_path / "nowhere", "nowhere.npz", "./mnist-images"):
        with pytest.raises(InputError, match="no file or folder"):
            open_dataset(path)
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(InputError, match=r"\.npy or an .npz"):
        open_dataset(tmp_path / "a.txt")


@pytest.mark.parametrize("dataset, named", [("iris", "single images"), ("rock_paper_scissors:9.9.9", "9.9.9"),
                                            ("caltech101", "--image-size")])  # fmt: skip
def test_sets_that_cannot_be_used_are_refused_before_a_download(tmp_path, dataset, named):
    with pytest.raises(InputError, match=named):
        open_dataset(dataset, data_dir=tmp_path)


@pytest.mark.parametrize("options", [{"image_size": 0}, {"test_fraction": 0}, {"test_fraction": 1}, {"seed": "a"}])
def test_bad_options_are_named(options):
    with pytest.raises(InputError, match=next(iter(options))):
        open_dataset("digits", **options)


# Folders


def test_a_folder_is_read_as_it_is(tmp_path):
    write_folder(tmp_path, ["b/1.PNG", "a/x/2.png", "b/0.png", "a/._3.png"])
    (tmp_path / "a" / "notes.txt").write_text("not an image")
    opened = open_dataset(tmp_path, test_fraction=0.3)
    assert opened.event_shape == (5, 6, 1) and opened.class_names == ("a", "b") and opened.name == tmp_path.name
    for split in (opened.train, opened.test):
        for image, label in zip(split.images, split.labels, strict=True):
            files = [path for path in tmp_path.rglob("[0-2].*")]
            source = next(path for path in files if np.array_equal(np.asarray(Image.open(path)), image[..., 0]))
            assert source.relative_to(tmp_path).parts[0] == opened.class_names[label]


def test_labels_need_all_images_in_sub_folders(tmp_path):
    assert open_dataset(write_folder(tmp_path, ["a/1.png", "b/2.png", "3.png"])).train.labels is None


def test_folders_called_train_and_test_are_splits_not_classes(tmp_path):
    write_folder(tmp_path, ["train/a/1.png", "train/b/2.png", "test/b/3.png"])
    opened = open_dataset(tmp_path)
    assert len(opened.train) == 2 and opened.class_names == ("a", "b") and opened.test.labels.tolist() == [1]
    np.testing.assert_array_equal(opened.test.images[0, ..., 0], np.asarray(Image.open(tmp_path / "test/b/3.png")))


def test_a_corrupt_png_is_named(tmp_path):
    write_folder(tmp_path, ["1.png", "2.png", "3.png"], size=(40, 40))
    whole = (tmp_path / "2.png").read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"not a png"):
        (tmp_path / "2.png").write_bytes(damaged)
        with pytest.raises(InputError, match=r"2\.png"):
            open_dataset(tmp_path)


def test_the_first_file_of_another_size_is_named(tmp_path):
    write_folder(tmp_path, ["1.png", "2.png"])
    write_folder(tmp_path, ["3.png", "4.png"], size=(7, 5))
    with pytest.raises(InputError, match=r"6x5.*3\.png is 7x5.*--image-size"):
        open_dataset(tmp_path)
    assert open_dataset(tmp_path, image_size=4).event_shape == (4, 4, 1)


@pytest.mark.parametrize("files", [[], ["1.png"]])
def test_a_folder_with_too_few_images_is_refused(tmp_path, files):
    with pytest.raises(InputError, match="at least 2"):
        open_dataset(write_folder(tmp_path, files))


def test_one_colour_image_makes_all_of_them_rgb(tmp_path):
    write_folder(tmp_path, ["1.png", "2.png"])
    assert open_dataset(tmp_path).event_shape == (5, 6, 1)
    write_folder(tmp_path, ["3.png"], mode="RGB")
    assert open_dataset(tmp_path).event_shape == (5, 6, 3)


def test_16_bits_palettes_and_bilevel_images_keep_their_brightness(tmp_path):
    half = np.full((5, 6), 0.5)
    Image.fromarray((half * 65535).astype(np.uint16)).save(tmp_path / "sixteen.png")
    Image.fromarray((half * 255).astype(np.uint8)).save(tmp_path / "eight.png")
    images = open_dataset(tmp_path).train.images, open_dataset(tmp_path).test.images
    assert np.abs(np.concatenate(images).astype(int) - 127.5).max() <= 1
    Image.fromarray(np.full((5, 6), 65535, np.uint16)).save(tmp_path / "sixteen.png")
    opened = open_dataset(tmp_path)
    assert max(opened.train.images.max(), opened.test.images.max()) == 255
    palette = Image.new("P", (6, 5), 1)
    palette.putpalette([0, 0, 0, 200, 100, 50])
    palette.save(tmp_path / "sixteen.png")
    Image.new("1", (6, 5), 1).save(tmp_path / "eight.png")
    opened = open_dataset(tmp_path)
    colours = {tuple(image[0, 0].tolist()) for split in (opened.train, opened.test) for image in split.images}
    assert colours == {(200, 100, 50), (255, 255, 255)}


@pytest.mark.parametrize("image_size", [None, 4])
def test_a_streamed_folder_gives_the_same_batches(tmp_path, image_size):
    write_folder(tmp_path, [f"{label}/{number}.png" for label in "ab" for number in range(6)])
    options = {"shuffle": True, "labels": True, "binarization": "dynamic"}
    held, streamed = (open_dataset(tmp_path, image_size=image_size, memory_limit=limit) for limit in (10**9, 10))
    assert isinstance(held.train.images, np.ndarray) and not isinstance(streamed.train.images, np.ndarray)
    for name in ("train", "test"):
        pair = getattr(held, name), getattr(streamed, name)
        np.testing.assert_array_equal(to_pixels(pair[0].images), to_pixels(pair[1].images))
        left, right = (batches(split, 4, **options).as_numpy_iterator() for split in pair)
        for (x, y), (other_x, other_y) in zip(left, right, strict=True):
            np.testing.assert_array_equal(x, other_x)
            np.testing.assert_array_equal(y, other_y)
    with pytest.raises(InputError, match="fit in memory"):
        batches(streamed.train, 4, binarization="fixed")


def test_resizing_keeps_what_is_in_the_picture():
    ramp = np.tile(np.linspace(0, 1, 32, dtype=np.float32)[:, None, None], (2, 1, 32, 1))
    expected = (np.arange(8) * 4 + 1.5) / 31  # the mean of four neighbours
    for images in (ramp, (ramp * 255).round().astype(np.uint8)):
        resized = np.asarray(resize(images, 8))
        assert resized.dtype == np.uint8
        np.testing.assert_allclose(resized[0, 1:-1, 3, 0] / 255, expected[1:-1], atol=0.005)


# Arrays


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(9, 3, 4), (9, 3, 4, 1), (9, 3, 4, 4), (9, 5)])
@pytest.mark.parametrize("limit", [10**9, 10])
def test_npy_numbers_arrive_unchanged(tmp_path, dtype, shape, limit):
    values = np.random.default_rng(0).random(shape)
    array = (values * 255).astype(dtype) if dtype == "uint8" else values.astype(dtype)
    np.save(tmp_path / "a.npy", array)
    opened = open_dataset(tmp_path / "a.npy", memory_limit=limit)
    assert isinstance(opened.train.images, np.ndarray) == (limit > 10)
    got = np.concatenate([to_pixels(opened.train.images), to_pixels(opened.test.images)])
    is_8_bit = dtype == "uint8" and len(shape) > 2  # 8-bit [n, h, w] are grey images
    expected = array.astype(np.float32) / (255 if is_8_bit else 1)
    assert got.shape == (*shape, 1) if is_8_bit and len(shape) == 3 else shape
    order = np.argsort(got.reshape(9, -1)[:, 0]), np.argsort(expected.reshape(9, -1)[:, 0])
    got = got.reshape(shape)
    np.testing.assert_allclose(got[order[0]], expected[order[1]], rtol=1e-6)
    first = next(batches(opened.train, 3).as_numpy_iterator())
    np.testing.assert_array_equal(first, to_pixels(opened.train.images)[:3])


@pytest.mark.parametrize("limit", [10**9, 10])
@pytest.mark.parametrize("kind", ["int64", "bool", "float32"])
def test_integers_and_bools_are_numbers_as_they_are(tmp_path, kind, limit):
    array = (np.arange(8).reshape(4, 2) - 3).astype(kind)
    np.savez(tmp_path / "a.npz", x=array, y=np.arange(4)) if limit > 10 else np.save(tmp_path / "a.npy", array)
    opened = open_dataset(tmp_path / ("a.npz" if limit > 10 else "a.npy"), test_fraction=0.5, memory_limit=limit)
    got = np.concatenate([opened.train.images[:], opened.test.images[:]])
    assert opened.event_shape == (2,) and got.dtype == np.float32
    np.testing.assert_array_equal(np.sort(got.ravel()), np.sort(array.astype("float32").ravel()))
    assert (opened.train.labels is None) == (limit == 10)


@pytest.mark.parametrize("limit", [10**9, 10])
@pytest.mark.parametrize(
    "array, named",
    [(np.full((4, 2, 2), np.nan), "nan"), (np.full((4, 2), np.inf, np.float32), "inf.*NaN or infinite"),
     (np.full((4, 2), 1e300), "range of float32"), (np.zeros((4, 2, 2), complex), "complex"),
     (np.zeros(4, "f4"), r"vectors \[n, d\].*\(4,\)"), (np.zeros((4, 1, 3, 8, 8), "f4"), r"\(4, 1, 3, 8, 8\)"),
     (np.zeros((1, 2, 2), "f4"), "at least 2"), (np.zeros((0, 2, 2), "f4"), r"\(0, 2, 2\)"),
     (np.eye(4, dtype="u1")[None].repeat(4, 0), "Multiply them by 255"),
     (np.full((4, 2, 2), "a", object), "object|Object"), (np.float32(1), r"\(\)")],
)  # fmt: skip
def test_arrays_that_no_likelihood_takes_are_refused(tmp_path, array, named, limit):
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(InputError, match=named):
        open_dataset(tmp_path / "a.npy", memory_limit=limit)


def test_one_bad_value_deep_in_the_file_is_found(tmp_path):
    array = np.zeros((2500, 2, 2), np.float32)
    array[2100, 1, 1] = np.nan
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(InputError, match="sequences 2000 to 2499"):
        open_dataset(tmp_path / "a.npy")


def test_what_is_resized_are_pixels(tmp_path):
    np.save(tmp_path / "grey.npy", np.random.default_rng(0).random((4, 6, 6)))
    assert open_dataset(tmp_path / "grey.npy", image_size=3).event_shape == (3, 3, 1)
    np.save(tmp_path / "real.npy", np.full((4, 6, 6), 2.0))
    np.save(tmp_path / "vectors.npy", np.zeros((4, 6)))
    for name, named in (("real", "pixels in .0, 1.*Leave out image_size"), ("vectors", "is for images")):
        with pytest.raises(InputError, match=named):
            open_dataset(tmp_path / f"{name}.npy", image_size=3)


def test_npz_train_and_test_stay_what_they_are(tmp_path):
    split, test = numbered(20), numbered(6, name="test")
    np.savez(tmp_path / "a.npz", x_train=split.images[..., 0], y_train=split.labels[:, None],
             x_test=test.images[..., 0] + 100, y_test=test.labels)  # fmt: skip
    opened = open_dataset(tmp_path / "a.npz")
    np.testing.assert_array_equal(opened.train.images, split.images)
    np.testing.assert_array_equal(opened.test.images, test.images + 100)
    assert opened.train.labels.tolist() == split.labels.tolist() and opened.test.labels.tolist() == test.labels.tolist()


def test_npz_labels_follow_the_held_out_images(tmp_path):
    split = numbered(20)
    np.savez(tmp_path / "a.npz", images=split.images, labels=split.labels.astype(np.int32))
    opened = open_dataset(tmp_path / "a.npz", test_fraction=0.4)
    for part in (opened.train, opened.test):
        np.testing.assert_array_equal(part.images[:, 0, 0, 0].astype(int) * 3, part.labels)


def test_npz_files_that_say_too_little_are_refused(tmp_path):
    images = numbered(20).images
    for arrays, named in [({"a": images, "b": images}, "Found: a, b"), ({"images": images, "labels": images}, "labels"),
                          ({"images": images, "labels": np.zeros(20)}, "float64"),
                          ({"x_train": images, "x_test": images[:, :3]}, "differ")]:  # fmt: skip
        np.savez(tmp_path / "a.npz", **arrays)
        with pytest.raises(InputError, match=named):
            open_dataset(tmp_path / "a.npz")
    with pytest.raises(InputError, match="limit of 10"):
        open_dataset(tmp_path / "a.npz", memory_limit=10)


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_truncated_arrays_are_refused(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    images = np.random.default_rng(0).integers(0, 256, (50, 8, 8), np.uint8)
    np.save(path, images) if suffix == "npy" else np.savez_compressed(path, images=images)
    whole = path.read_bytes()
    middle = whole[: len(whole) // 2] + bytes(40) + whole[len(whole) // 2 + 40 :]
    for content in [whole[: len(whole) // 2], b"", b"garbage", *([middle] if suffix == "npz" else [])]:
        path.write_bytes(content)
        with pytest.raises(InputError, match="Cannot read"):
            open_dataset(path)


# MNIST


@pytest.mark.slow
def test_mnist_is_mnist(mnist_data_dir):
    """The numbers of images per class and the mean pixels are well known; 206 nats is for independent pixels."""
    mnist = open_dataset("mnist", data_dir=mnist_data_dir, mnist_dir="/not/looked/at")
    assert (len(mnist.train), len(mnist.test), mnist.event_shape) == (60000, 10000, (28, 28, 1))
    assert mnist.train.images.dtype == np.uint8 and "3.0.1" in mnist.source and str(mnist_data_dir) in mnist.source
    assert np.bincount(mnist.train.labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(mnist.test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert abs(to_pixels(mnist.train.images).mean() - 0.1307) < 1e-4
    x = to_pixels(mnist.test.images).astype(np.float64)
    entropy = -(x * np.log(x + 1e-300) + (1 - x) * np.log(1 - x + 1e-300)).sum((1, 2, 3)).mean()
    assert abs(entropy - 45.53) < 0.01


@pytest.mark.slow
def test_every_mnist_image_once_per_epoch(mnist_data_dir):
    train = open_dataset("auto", data_dir=mnist_data_dir).train
    seen = Split(train.images, np.arange(60000))
    order = np.concatenate([y for _, y in batches(seen, 128, shuffle=True, labels=True).as_numpy_iterator()])
    np.testing.assert_array_equal(np.sort(order), np.arange(60000))
    assert np.abs(np.corrcoef(order, np.arange(60000))[0, 1]) < 0.02


@pytest.mark.slow
def test_a_damaged_prepared_copy_is_named(mnist_data_dir, tmp_path):
    shutil.copytree(mnist_data_dir / "mnist", tmp_path / "mnist")
    record = next((tmp_path / "mnist").rglob("*test.tfrecord*"))
    record.write_bytes(record.read_bytes()[:-1000])
    with pytest.raises(InputError, match=f"Damaged.*{tmp_path}"):
        open_dataset("mnist", data_dir=tmp_path)


@pytest.fixture
def mnist_links(mnist_dir, tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    for name in MNIST_FILES:
        (folder / name).symlink_to(Path(mnist_dir) / name)
    return folder


@pytest.mark.parametrize("dataset", ["mnist", "auto"])
def test_truncated_mnist_gz_is_refused(mnist_links, tmp_path, dataset):
    damaged = mnist_links / MNIST_FILES[0]
    content = damaged.read_bytes()
    damaged.unlink()
    damaged.write_bytes(content[:-100])
    with pytest.raises(InputError, match=f"{MNIST_FILES[0]}.*expected {len(content)} bytes"):
        open_dataset(dataset, mnist_dir=mnist_links, data_dir=tmp_path / "out")
    damaged.write_bytes(content[:-1] + b"x")
    with pytest.raises(InputError, match=MNIST_FILES[0]):
        open_dataset(dataset, mnist_dir=mnist_links, data_dir=tmp_path / "out")


@pytest.mark.parametrize("dataset", ["mnist", "auto"])
def test_missing_mnist_files_are_named(tmp_path, monkeypatch, dataset):
    (tmp_path / MNIST_FILES[2]).write_bytes(b"")
    monkeypatch.setenv("KERAS_VAE_MNIST_DIR", str(tmp_path))
    with pytest.raises(InputError, match=MNIST_FILES[0]) as caught:
        open_dataset(dataset, data_dir=tmp_path / "out")
    assert MNIST_FILES[2] not in str(caught.value)


def test_mnist_out_of_reach_names_the_ways_out_before_a_download_is_retried_for_minutes(
    no_network, tmp_path, monkeypatch
):
    def download(*_, **__):
        raise AssertionError("tensorflow-datasets was asked to download")

    monkeypatch.setattr("tensorflow_datasets.core.DatasetBuilder.download_and_prepare", download)
    with pytest.raises(InputError, match=r"data_dir.*--mnist-dir.*KERAS_VAE_MNIST_DIR.*network"):
        open_dataset("mnist", data_dir=tmp_path)


def test_auto_without_mnist_is_digits_and_says_why(no_network, tmp_path):
    opened = open_dataset("auto", data_dir=tmp_path)
    assert opened.name == "digits" and "cannot be downloaded" in opened.fallback and "\n" not in opened.fallback


def test_a_silent_network_is_given_up(monkeypatch):
    monkeypatch.setattr("requests.head", lambda *args, **kwargs: threading.Event().wait())
    monkeypatch.setattr("threading.Thread.join", lambda self, timeout=None: None)
    assert "no answer" in _unreachable("http://127.0.0.1:9")


def test_a_data_dir_that_cannot_be_written_is_named(mnist_dir, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="data_dir"):
        open_dataset("auto", mnist_dir=mnist_dir, data_dir=tmp_path / "file" / "deeper")


@pytest.mark.slow
def test_an_interrupted_preparation_leaves_nothing_that_is_used(mnist_dir, tmp_path):
    code = f"from keras_vae.data import load; load('mnist', mnist_dir={str(mnist_dir)!r}, data_dir={str(tmp_path)!r})"
    command = [sys.executable, "-c", code]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[1], stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 60
        while not list(tmp_path.glob("mnist/incomplete.*/*")):
            assert process.poll() is None and time.monotonic() < until, "preparation ended before it was killed"
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    with pytest.raises(InputError, match="lacks"):  # it would not be looked for if the half copy were used
        open_dataset("mnist", data_dir=tmp_path, mnist_dir=tmp_path)


@pytest.mark.slow
def test_no_chatter_on_stdout(mnist_data_dir, capfd):
    open_dataset("mnist", data_dir=mnist_data_dir)
    assert capfd.readouterr().out == ""
