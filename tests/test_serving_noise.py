"""Noise by seed: the same row in every batch, and rows of different seeds independent."""

import math

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from keras_vae.noise import stream_number
from keras_vae.serving import noise

MASK = 2**64 - 1


def mix(x):
    """SplitMix64's output function in Python's own integers."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def bits_by_hand(seed, stream, count):
    key = mix((seed & MASK) ^ stream_number(stream))
    return [mix((key + i * 0x9E3779B97F4A7C15) & MASK) for i in range(1, count + 1)]


def normal_by_hand(seed, stream, count):
    pairs = [((b >> 32) + 0.5, (b & 0xFFFFFFFF) + 0.5) for b in bits_by_hand(seed, stream, count)]
    return [math.sqrt(-2 * math.log(high / 2**32)) * math.cos(2 * math.pi * low / 2**32) for high, low in pairs]


SEEDS = (0, 1, 2, 7, 2**31, 2**32, 2**32 + 1, 2**53 - 1, 2**63 - 1, -1, -(2**63))


def draw(seeds, stream="prior", count=4):
    return noise.normal(tf.constant(seeds, tf.int64), stream, count).numpy()


@pytest.mark.parametrize("stream", ["posterior", "prior", "component", "upper/prior"])
def test_bits_are_those_of_the_reference(stream):
    bits = noise.bits(tf.constant(SEEDS, tf.int64), stream, 5).numpy()
    assert bits.tolist() == [bits_by_hand(seed, stream, 5) for seed in SEEDS]


def test_normal_is_box_and_mullers():
    np.testing.assert_allclose(draw(SEEDS), [normal_by_hand(seed, "prior", 4) for seed in SEEDS], rtol=1e-6, atol=1e-7)


def test_known_values_never_change():
    # part of the serving contract: a seed gives the same image as it gave a year ago
    np.testing.assert_allclose(draw([7], count=3)[0], KNOWN, rtol=1e-6)


KNOWN = [0.9451868534088135, 0.9916068911552429, -0.6857726573944092]


def test_a_row_does_not_depend_on_its_batch():
    seeds = np.arange(257)
    together = draw(seeds, count=7)
    alone = np.concatenate([draw([seed], count=7) for seed in seeds])
    shuffled = draw(seeds[::-1], count=7)[::-1]
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(together, shuffled)


def test_graph_and_eager_draw_the_same():
    compiled = tf.function(lambda seed: noise.normal(seed, "posterior", 9))
    np.testing.assert_array_equal(compiled(tf.constant(SEEDS, tf.int64)), draw(SEEDS, "posterior", 9))


def test_the_high_half_of_a_seed_counts():
    seeds = [low + high * 2**32 for low in range(4) for high in range(4)]
    assert len({tuple(row) for row in draw(seeds)}) == len(seeds)


def test_streams_differ():
    rows = [draw([3], stream) for stream in ("posterior", "prior", "component", "upper/prior", "upper/upper/prior")]
    assert len({row.tobytes() for row in rows}) == len(rows)


SEQUENCES = {
    "consecutive": np.arange(200_000),
    "multiples of 2^32": np.arange(200_000) << 32,
    "multiples of the step": (np.arange(200_000, dtype=np.uint64) * np.uint64(noise.STEP)).astype(np.int64),
    "one bit each, and neighbours": np.unique([(1 << bit) + offset for bit in range(53) for offset in range(4000)]),
}


@pytest.mark.parametrize("seeds", SEQUENCES.values(), ids=SEQUENCES.keys())
def test_neighbouring_seeds_give_independent_normals(seeds):
    draws = draw(seeds, count=3).astype(np.float64)  # fixed seeds: the outcome is always the same
    n = len(draws)
    for column in draws.T:
        assert abs(column.mean()) < 4 / math.sqrt(n)
        assert abs(column.var() - 1) < 4 * math.sqrt(2 / n)
        assert abs(scipy.stats.skew(column)) < 4 * math.sqrt(6 / n)
        assert abs(scipy.stats.kurtosis(column)) < 4 * math.sqrt(24 / n)
        assert scipy.stats.kstest(column, "norm").pvalue > 1e-4
    # between the dimensions of a row, and between the rows of seeds that follow each other
    columns = [*draws.T, *draws[1:].T, *(draws[1:] ** 2).T]
    length = n - 1
    correlations = np.corrcoef([column[:length] for column in columns])
    np.fill_diagonal(correlations, 0)
    correlations[range(6, 9), range(3, 6)] = correlations[range(3, 6), range(6, 9)] = 0  # a column and its own square
    assert np.abs(correlations).max() < 5 / math.sqrt(n)


def test_uniform_is_uniform_and_inside_the_interval():
    drawn = noise.uniform(tf.range(100_000, dtype=tf.int64), "component", 1).numpy()[:, 0]
    assert 0 < drawn.min() and drawn.max() < 1
    assert scipy.stats.kstest(drawn, "uniform").pvalue > 1e-3


def test_two_streams_of_one_seed_are_independent():
    seeds = np.arange(100_000)
    correlation = np.corrcoef(draw(seeds, "posterior", 1)[:, 0], draw(seeds, "prior", 1)[:, 0])[0, 1]
    assert abs(correlation) < 4 / math.sqrt(len(seeds))


def test_row_noise_of_any_shape_is_that_of_the_row_alone():
    seeds = tf.constant(SEEDS, tf.int64)
    for draw_of in (lambda rows: rows, lambda rows: rows.within("upper")):
        together = draw_of(noise.RowNoise(seeds))((3, len(SEEDS), 2, 5), "posterior")
        assert together.shape == (3, len(SEEDS), 2, 5)
        for row in (0, 4):
            alone = draw_of(noise.RowNoise(seeds[row : row + 1]))((3, 1, 2, 5), "posterior")
            np.testing.assert_array_equal(together[:, row], alone[:, 0])
        assert len(np.unique(together)) == together.numpy().size
    assert noise.RowNoise(seeds).uniform((1, len(SEEDS)), "component").shape == (1, len(SEEDS))
