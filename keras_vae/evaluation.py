"""Evaluation: what a trained model is worth, in numbers that say what they are.

The functions take arrays and callables; they know no model class and no trainer.
"""

import hashlib
import math

import numpy as np
import tensorflow as tf

from keras_vae import gaussian

ACTIVE_UNIT_VARIANCE = 0.01  # Burda et al., Importance Weighted Autoencoders, 2016, section 5.2


def log_marginal(
    images, *, encode, log_likelihood, log_prior, num_samples, seed=0, batch_size=100, chunk=50, progress=None
):
    """Importance-sampled estimate of log p(x) of each image: a lower bound in expectation, tighter with more samples.

    log p(x) is estimated by log(1/k sum_i p(x|z_i) p(z_i) / q(z_i|x)), z_i ~ q(z|x), k = num_samples. Batched over
    images and samples; memory grows with batch_size * chunk alone.

    Args:
        images: Float32 [n, ...], pixels in [0, 1].
        encode: Callable, x [b, ...] -> (z_mean, z_log_var), each [b, d].
        log_likelihood: Callable, (x [b, ...], z [s, b, d]) -> log p(x|z), [s, b], nats.
        log_prior: Callable, z [s, b, d] -> log p(z), [s, b], nats.
        num_samples: Int, k.
        seed: Int seed of the samples.
        batch_size: Int, images at a time.
        chunk: Int, samples at a time.
        progress: Callable, called with the number of images done after each batch, or None.

    Returns:
        Float32 [n], nats.

    Example:

    >>> import numpy as np, tensorflow as tf
    >>> from keras_vae import evaluation, gaussian
    >>> zeros = lambda x: tf.zeros((x.shape[0], 1))  # x does not depend on z, and q is the prior
    >>> estimate = evaluation.log_marginal(
    ...     np.zeros((2, 3), "float32"),
    ...     encode=lambda x: (zeros(x), zeros(x)),
    ...     log_likelihood=lambda x, z: tf.fill(tf.shape(z)[:-1], -7.0),
    ...     log_prior=lambda z: gaussian.log_prob(x=z, mean=0.0, log_var=tf.zeros_like(z)),
    ...     num_samples=10,
    ... )
    >>> estimate.tolist()
    [-7.0, -7.0]

    Reference:
        Burda et al., Importance Weighted Autoencoders, 2016, equation 8; Rezende et al., Stochastic Backpropagation,
        2014, appendix E.
    """
    chunk = min(chunk, num_samples)
    num_chunks = math.ceil(num_samples / chunk)

    @tf.function(reduce_retracing=True)
    def batch_log_marginal(x, first_image):
        z_mean, z_log_var = encode(x)

        def add_chunk(index, log_sum):
            chunk_seed = tf.random.fold_in(tf.random.fold_in([seed, 0], first_image), index)
            size = tf.minimum(chunk, num_samples - index * chunk)
            shape = tf.concat([[size], tf.shape(z_mean)], axis=0)
            z = z_mean + tf.exp(0.5 * z_log_var) * tf.random.stateless_normal(shape, chunk_seed)  # (s, b, d)
            log_posterior = gaussian.log_prob(x=z, mean=z_mean, log_var=z_log_var)
            log_weights = log_likelihood(x, z) + log_prior(z) - log_posterior  # (s, b)
            return index + 1, tf.reduce_logsumexp(tf.concat([log_sum[None], log_weights], axis=0), axis=0)

        start = tf.fill(tf.shape(x)[:1], -math.inf)
        _, log_sum = tf.while_loop(lambda index, _: index < num_chunks, add_chunk, (0, start), parallel_iterations=1)
        return log_sum - math.log(num_samples)

    estimates = []
    for first in range(0, len(images), batch_size):
        x = tf.convert_to_tensor(images[first : first + batch_size])
        estimates.append(batch_log_marginal(x, tf.constant(first)).numpy())
        if progress is not None:
            progress(first + x.shape[0])
    return np.concatenate(estimates)


def active_units(z_mean):
    """Which latent dimensions depend on the image: Var_x(E[z|x]) > 0.01.

    Args:
        z_mean: Float [n, d], one row for each image.

    Returns:
        Bool [d].

    Example:

    >>> import numpy as np
    >>> from keras_vae import evaluation
    >>> evaluation.active_units(np.array([[0.0, 1.0], [1.0, 1.0]])).tolist()
    [True, False]

    Reference:
        Burda et al., Importance Weighted Autoencoders, 2016, section 5.2.
    """
    return np.var(z_mean, axis=0) > ACTIVE_UNIT_VARIANCE


def mean_squared_error(images, reconstructions):
    """Mean squared error of a pixel; arrays [n, ...] of pixels in [0, 1]."""
    return float(np.mean(np.square(np.asarray(images, "float64") - reconstructions)))


def pixel_hash(images):
    """The first 16 hexadecimal digits of the SHA-256 of an array's bytes and shape: which images these are."""
    digest = hashlib.sha256(repr((images.shape, str(images.dtype))).encode())
    digest.update(np.ascontiguousarray(images))
    return digest.hexdigest()[:16]


def batched(function, *arrays, batch_size=500):
    """Applies `function` to batches of arrays [n, ...] and joins its results, an array or a tuple of arrays."""
    compiled = tf.function(function, reduce_retracing=True)
    parts = []
    for first in range(0, len(arrays[0]), batch_size):
        parts.append(compiled(*(tf.convert_to_tensor(array[first : first + batch_size]) for array in arrays)))
    joined = tf.nest.map_structure(lambda *values: np.concatenate([value.numpy() for value in values]), *parts)
    return joined


def evaluate(model, images, *, nll_samples=0, nll_images=None, seed=0, progress=None):
    """Scores a model on test images.

    Args:
        model: A model of this package, or one with the same methods.
        images: Float32 [n, ...], pixels in [0, 1], binarised as the model was trained.
        nll_samples: Int, importance samples for each image; 0 for no estimate of the likelihood.
        nll_images: Int, on how many of the images, from the first on; None for all.
        seed: Int seed of the importance samples.
        progress: Callable, called with the number of images done by importance sampling, or None.

    Returns:
        Dict of floats: loss, reconstruction_loss, kl_loss and elbo in nats per image, mse per pixel, and so on.
        `elbo` is minus (reconstruction_loss + kl_loss), whatever the weight of the KL in the loss. What importance
        sampling estimates is called `nll` only where p(x|z) is a likelihood of these pixels: grey pixels under a
        Bernoulli likelihood have none, and there elbo is missing as well. For an autoencoder: the share of code
        values that are 0, and for a denoising one the mse of corrupted images before and after.

    Example:

    >>> import keras_vae, numpy as np
    >>> from keras_vae import evaluation
    >>> vae = keras_vae.VAE.from_preset("mlp")
    >>> results = evaluation.evaluate(vae, np.zeros((4, 28, 28, 1), "float32"), nll_samples=10)
    >>> results["nll"] <= -results["elbo"] + 1
    True
    """
    losses = batched(lambda x: model.loss_terms(x, training=False), images)
    results = {name: float(np.mean(values, dtype="float64")) for name, values in losses.items()}
    reconstructions = batched(model.reconstruct, images)
    results["mse"] = mean_squared_error(images, reconstructions)
    results |= model.likelihood.statistics()
    if "kl_loss" not in losses:
        results["zero_codes"] = float(np.mean(batched(model.encode, images) == 0))
        if model.corruption is not None:
            corrupted = batched(model.corrupt, images)
            results["corrupted_mse"] = mean_squared_error(images, corrupted)
            results["restored_mse"] = mean_squared_error(images, batched(model.reconstruct, corrupted))
        return results

    is_likelihood = has_likelihood(model, images)
    if is_likelihood:
        results["elbo"] = -(results["reconstruction_loss"] + results["kl_loss"])
    z_mean, z_log_var = batched(model.encode, images)
    active = active_units(z_mean)
    results["active_units"] = int(active.sum())
    results["latent_dim"] = z_mean.shape[1]
    results["kl_per_dimension"] = (
        np.asarray(gaussian.kl_per_dimension(z_mean=z_mean, z_log_var=z_log_var)).mean(axis=0).tolist()
    )
    if nll_samples:
        scored = images[:nll_images]
        estimates = log_marginal(
            scored,
            encode=model.encode,
            log_likelihood=lambda x, z: decoder_log_prob(model, x, z),
            log_prior=model.prior.log_prob,
            num_samples=nll_samples,
            seed=seed,
            progress=progress,
        )
        name = "nll" if is_likelihood else "importance_weighted_loss"
        results[name] = -float(estimates.mean(dtype="float64"))
        results[f"{name}_standard_error"] = (
            float(estimates.std(ddof=1) / math.sqrt(len(scored))) if scored[1:].size else 0.0
        )
        results[f"{name}_samples"] = nll_samples
        results[f"{name}_images"] = len(scored)
    return results


def has_likelihood(model, images):
    """Whether p(x|z) is a likelihood of these pixels: a Bernoulli one has none for grey pixels."""
    if model.likelihood.support == "binary":
        return bool(np.all((images == 0) | (images == 1)))
    return True


def decoder_log_prob(model, x, z):
    """log p(x|z) of x [b, ...] under each of z [s, b, d]. Returns [s, b], nats."""
    params = tf.cast(model.decoder(tf.reshape(z, (-1, z.shape[-1])), training=False), "float32")
    return model.likelihood.log_prob(x, tf.reshape(params, tf.concat([tf.shape(z)[:-1], tf.shape(params)[1:]], axis=0)))
