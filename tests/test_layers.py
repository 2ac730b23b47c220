"""Sampling and the corruptions: what they draw, with which gradient, and Keras's own layer checks.

And the transposed convolution, which is Keras's own function in another form.
"""

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from keras.src.testing import TestCase as KerasTestCase

from keras_vae.layers import Conv2DTranspose, GaussianCorruption, MaskingCorruption, Sampling, get_corruption

DRAWS = 100_000


def constant_inputs(mean, log_var, count=DRAWS):
    return tf.fill([count, 1], float(mean)), tf.fill([count, 1], float(log_var))


# -- Sampling: the distribution ---------------------------------------------------------------------------------


@pytest.mark.parametrize("mean, log_var", [(0.0, 0.0), (2.0, -3.0), (-1.0, 1.5)])
def test_z_is_distributed_as_q(mean, log_var):
    z, _ = Sampling(seed=3)(constant_inputs(mean, log_var))
    std = np.exp(0.5 * log_var)
    z = z.numpy()[:, 0]
    assert z.mean() == pytest.approx(mean, abs=5 * std / np.sqrt(DRAWS))
    assert z.std() == pytest.approx(std, rel=5 / np.sqrt(2 * DRAWS))
    assert scipy.stats.kstest(z, scipy.stats.norm(mean, std).cdf).pvalue > 1e-4


def test_std_is_not_exp_of_log_var():
    z, _ = Sampling(seed=3)(constant_inputs(0.0, 2.0))
    right, wrong = np.exp(0.5 * 2.0), np.exp(2.0)
    assert abs(z.numpy().std() - right) < 0.01 * abs(wrong - right)


def test_latent_dimensions_and_examples_are_independent():
    z, _ = Sampling(seed=3)((tf.zeros([DRAWS // 4, 4]), tf.zeros([DRAWS // 4, 4])))
    correlation = np.corrcoef(z.numpy().T) - np.eye(4)
    assert np.abs(correlation).max() < 5 / np.sqrt(DRAWS // 4)
    flat = z.numpy()[:, 0]
    assert abs(np.corrcoef(flat[1:], flat[:-1])[0, 1]) < 5 / np.sqrt(DRAWS // 4)


def test_noise_is_fresh_at_each_call_and_repeats_with_the_seed():
    inputs = constant_inputs(0, 0, count=1000)
    first, second = Sampling(seed=5), Sampling(seed=5)
    draws = [first(inputs)[0].numpy() for _ in range(3)]
    for draw in draws:
        np.testing.assert_array_equal(second(inputs)[0].numpy(), draw)
    assert abs(np.corrcoef(draws[0][:, 0], draws[1][:, 0])[0, 1]) < 0.2
    assert abs(np.corrcoef(draws[0][:, 0], Sampling(seed=6)(inputs)[0].numpy()[:, 0])[0, 1]) < 0.2


def test_noise_is_fresh_at_each_call_of_a_compiled_function():
    layer, inputs = Sampling(seed=5), constant_inputs(0, 0, count=1000)
    layer.build(((None, 1), (None, 1)))
    draw = tf.function(lambda: layer(inputs)[0])
    first, second = draw().numpy(), draw().numpy()
    assert abs(np.corrcoef(first[:, 0], second[:, 0])[0, 1]) < 0.2


def test_without_a_seed_two_layers_differ():
    inputs = constant_inputs(0, 0, count=1000)
    first, second = (Sampling()(inputs)[0].numpy()[:, 0] for _ in range(2))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.2


# -- Sampling: the gradient -------------------------------------------------------------------------------------

# f, d/dm E[f(z)], d/dv E[f(z)] for z ~ N(m, exp(v)), in closed form
EXPECTATIONS = {
    "quadratic": (lambda z: 2 * z**2 - z, lambda m, v: 4 * m - 1, lambda m, v: 2 * np.exp(v)),
    "cosine": (
        tf.cos,
        lambda m, v: -np.sin(m) * np.exp(-0.5 * np.exp(v)),
        lambda m, v: -0.5 * np.exp(v) * np.cos(m) * np.exp(-0.5 * np.exp(v)),
    ),
}


@pytest.mark.parametrize("name", EXPECTATIONS)
@pytest.mark.parametrize("mean, log_var", [(0.7, -0.5), (-0.4, 0.6)])
def test_gradient_of_an_expectation_is_the_closed_form(name, mean, log_var):
    function, by_mean, by_log_var = EXPECTATIONS[name]
    inputs = constant_inputs(mean, log_var)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        z, _ = Sampling(seed=11)(inputs)
        total = tf.reduce_sum(function(z))
    for gradient, expected in zip(tape.gradient(total, inputs), (by_mean, by_log_var), strict=True):
        gradient = gradient.numpy()
        assert gradient.mean() == pytest.approx(expected(mean, log_var), abs=5 * gradient.std() / np.sqrt(DRAWS))


@pytest.mark.parametrize("log_var", [-1e4, -100.0, -30.0, 30.0, 100.0, 1e4])
def test_extreme_log_variances_stay_finite_and_are_pulled_back(log_var):
    inputs = (tf.constant([[0.5, -1.0]]), tf.fill([1, 2], log_var))
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        z, kl_loss = Sampling(seed=1)(inputs)
        loss = tf.reduce_sum(kl_loss)
    by_mean, by_log_var = tape.gradient(loss, inputs)
    for tensor in (z, kl_loss, by_mean, by_log_var):
        assert np.all(np.isfinite(tensor))
    assert np.all(np.sign(by_log_var) == np.sign(log_var))  # descent leads back to 0
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        loss = tf.reduce_sum(tf.square(Sampling(seed=1)(inputs)[0]))
    assert all(np.all(np.isfinite(gradient)) for gradient in tape.gradient(loss, inputs))


def test_kl_of_ordinary_log_variances_is_untouched_by_the_bound():
    mean, log_var = np.float32([[0.3, -2.0, 1.0]]), np.float32([[-12.0, 3.0, -0.1]])
    _, kl_loss = Sampling()((mean, log_var))
    mean, log_var = mean.astype("float64"), log_var.astype("float64")
    expected = 0.5 * np.sum(np.exp(log_var) + mean**2 - 1 - log_var, axis=-1)
    np.testing.assert_allclose(kl_loss, expected, rtol=1e-5)


def test_sampling_computes_in_float32_under_mixed_precision():
    keras.config.set_dtype_policy("mixed_float16")
    z, kl_loss = Sampling(seed=1)((tf.zeros([2, 3], tf.float16), tf.fill([2, 3], tf.constant(15.0, tf.float16))))
    assert z.dtype == kl_loss.dtype == "float32"
    # exp(15) is not a float16
    np.testing.assert_allclose(kl_loss, 1.5 * (np.exp(15.0) - 1 - 15), rtol=1e-5)


# -- corruptions ------------------------------------------------------------------------------------------------


def test_gaussian_corruption_is_gaussian_noise():
    x = np.full((DRAWS, 1), 0.6, "float32")
    noisy = GaussianCorruption(0.3, seed=2)(x).numpy()[:, 0]
    assert scipy.stats.kstest(noisy, scipy.stats.norm(0.6, 0.3).cdf).pvalue > 1e-4


def test_masking_sets_the_share_to_zero_and_leaves_the_rest():
    x = np.random.default_rng(0).uniform(0.1, 1, size=(DRAWS, 1)).astype("float32")
    masked = MaskingCorruption(0.3, seed=2)(x).numpy()
    assert np.mean(masked == 0) == pytest.approx(0.3, abs=5 * np.sqrt(0.21 / DRAWS))
    np.testing.assert_array_equal(masked[masked != 0], x[masked != 0])


@pytest.mark.parametrize("layer_class", [GaussianCorruption, MaskingCorruption])
def test_corruption_of_rate_zero_changes_nothing(layer_class):
    x = np.random.default_rng(0).uniform(size=(3, 4, 4, 2)).astype("float32")
    np.testing.assert_array_equal(layer_class(0.0)(x), x)


@pytest.mark.parametrize("layer_class", [GaussianCorruption, MaskingCorruption])
def test_corruption_is_fresh_at_each_call_and_repeats_with_the_seed(layer_class):
    x = np.full((50, 10), 0.5, "float32")
    first, second = layer_class(0.5, seed=4), layer_class(0.5, seed=4)
    draws = [first(x).numpy() for _ in range(2)]
    assert np.mean(draws[0] != draws[1]) > 0.3
    for draw in draws:
        np.testing.assert_array_equal(second(x), draw)


@pytest.mark.parametrize("rate", [-0.1, float("nan")])
@pytest.mark.parametrize("layer_class", [GaussianCorruption, MaskingCorruption])
def test_bad_rate_is_refused_by_name(layer_class, rate):
    with pytest.raises(ValueError, match="`rate`"):
        layer_class(rate)


def test_masking_more_than_everything_is_refused():
    with pytest.raises(ValueError, match="`rate`"):
        MaskingCorruption(1.5)


def test_unknown_corruption_is_refused_with_the_choices():
    with pytest.raises(ValueError, match="gaussian, masking"):
        get_corruption("salt")


# -- Keras's own checks -----------------------------------------------------------------------------------------


def test_sampling_passes_the_layer_checks_of_keras():
    KerasTestCase().run_layer_test(
        Sampling,
        init_kwargs={"seed": 1},
        input_shape=((2, 3), (2, 3)),
        expected_output_shape=((2, 3), (2,)),
        expected_output_dtype=("float32", "float32"),
        expected_num_trainable_weights=0,
        expected_num_non_trainable_weights=0,
        expected_num_seed_generators=1,
        expected_num_losses=0,
        run_training_check=False,  # Keras's loss adds up one output; ours are two of different shapes
    )


@pytest.mark.parametrize("layer_class", [GaussianCorruption, MaskingCorruption])
def test_corruption_passes_the_layer_checks_of_keras(layer_class):
    KerasTestCase().run_layer_test(
        layer_class,
        init_kwargs={"rate": 0.3, "seed": 1},
        input_shape=(2, 4, 4, 1),
        expected_output_shape=(2, 4, 4, 1),
        expected_num_trainable_weights=0,
        expected_num_non_trainable_weights=0,
        expected_num_seed_generators=1,
        expected_num_losses=0,
    )


def test_sampling_works_inside_a_functional_model():
    z_mean, z_log_var = keras.Input((3,)), keras.Input((3,))
    z, kl_loss = Sampling(seed=1)([z_mean, z_log_var])
    model = keras.Model([z_mean, z_log_var], [z, kl_loss])
    z, kl_loss = model([np.full((2, 3), 5.0, "float32"), np.full((2, 3), -18.0, "float32")])
    np.testing.assert_allclose(z, np.full((2, 3), 5.0), atol=1e-3)
    np.testing.assert_allclose(kl_loss, np.full(2, 1.5 * (25 - 1 + 18)), rtol=1e-5)


# -- the transposed convolution -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-5), ("mixed_float16", 5e-3)])
@pytest.mark.parametrize(
    ("options", "has_faster_form"),
    [
        ({"filters": 1, "kernel_size": 3}, True),
        ({"filters": 3, "kernel_size": 3, "activation": "relu"}, True),
        ({"filters": 1, "kernel_size": 5, "use_bias": False}, True),
        ({"filters": 2, "kernel_size": (3, 1), "activation": "tanh"}, True),
        ({"filters": 1, "kernel_size": 1}, True),
        ({"filters": 1, "kernel_size": 2}, False),
        ({"filters": 1, "kernel_size": 3, "strides": 2}, False),
        ({"filters": 8, "kernel_size": 3}, False),
    ],
)
def test_another_form_of_a_transposed_convolution_is_another_function(options, has_faster_form, dtype, tolerance):
    keras.utils.set_random_seed(0)
    options = {"padding": "same", "bias_initializer": "random_normal", "dtype": dtype, **options}
    layer, expected = Conv2DTranspose(**options), keras.layers.Conv2DTranspose(**options)
    x = tf.constant(np.random.default_rng(0).normal(size=(4, 5, 7, 6)), "float32")
    for each in (layer, expected):
        each.build(x.shape)
    expected.set_weights(layer.get_weights())

    def outputs_and_gradients(layer):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.cast(layer(x), "float32")
            loss = tf.reduce_sum(y * tf.cos(tf.range(tf.size(y), dtype="float32")).numpy().reshape(y.shape))
        return [y, *tape.gradient(loss, [x, *(variable.value for variable in layer.weights)])]

    for ours, theirs in zip(outputs_and_gradients(layer), outputs_and_gradients(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance * np.abs(theirs).max())
    graph = tf.function(layer).get_concrete_function(x).graph
    assert any(operation.type == "MatMul" for operation in graph.get_operations()) == has_faster_form


def test_weights_of_keras_do_not_load(tmp_path):
    def decoder(cls):
        return keras.Sequential([keras.Input((4, 4, 8)), cls(8, 3, strides=2), cls(1, 3, padding="same")])

    theirs, ours = decoder(keras.layers.Conv2DTranspose), decoder(Conv2DTranspose)
    theirs.save_weights(tmp_path / "decoder.weights.h5")
    ours.load_weights(tmp_path / "decoder.weights.h5")
    x = np.ones((1, 4, 4, 8), "float32")
    np.testing.assert_allclose(ours(x), theirs(x), rtol=1e-5, atol=1e-5)


def test_the_transposed_convolution_is_a_keras_layer():
    KerasTestCase().run_layer_test(
        Conv2DTranspose,
        init_kwargs={"filters": 1, "kernel_size": 3, "padding": "same"},
        input_shape=(2, 6, 6, 4),
        expected_output_shape=(2, 6, 6, 1),
        expected_num_trainable_weights=2,
        expected_num_non_trainable_weights=0,
        supports_masking=False,
        custom_objects={"Conv2DTranspose": Conv2DTranspose},
    )
