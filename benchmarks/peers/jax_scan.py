"""JAX: a pass over the images as one jitted scan, with Adam written out and the images resident in memory."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

_CONV = ("NHWC", "HWIO", "NHWC")


def _dense(rng, n, m):
    limit = math.sqrt(6 / (n + m))
    return {"w": rng.uniform(-limit, limit, (n, m)).astype("float32"), "b": np.zeros(m, "float32")}


def _conv(rng, n, m):
    limit = math.sqrt(6 / (9 * (n + m)))
    return {"w": rng.uniform(-limit, limit, (3, 3, n, m)).astype("float32"), "b": np.zeros(m, "float32")}


def _parameters(work):
    rng = np.random.default_rng(0)
    if work.network == "conv":
        return {
            "trunk": [_conv(rng, 1, 32), _conv(rng, 32, 64), _dense(rng, 7 * 7 * 64, 16)],
            "heads": [_dense(rng, 16, work.latent_dim) for _ in range(2)],
            "decoder": [
                _dense(rng, work.latent_dim, 7 * 7 * 64),
                *[_conv(rng, n, m) for n, m in ((64, 64), (64, 32), (32, 1))],
            ],
        }
    encoder, decoder = (784, *work.hidden), (work.latent_dim, *reversed(work.hidden), 784)
    return {
        "trunk": [_dense(rng, n, m) for n, m in itertools.pairwise(encoder)],
        "heads": [_dense(rng, encoder[-1], work.latent_dim) for _ in range(2)],
        "decoder": [_dense(rng, n, m) for n, m in itertools.pairwise(decoder)],
    }


def _apply(layer, x):
    return x @ layer["w"] + layer["b"]


def _encode(work, parameters, x):
    if work.network == "conv":
        *convolutions, dense = parameters["trunk"]
        for layer in convolutions:
            x = lax.conv_general_dilated(x, layer["w"], (2, 2), "SAME", dimension_numbers=_CONV) + layer["b"]
            x = jax.nn.relu(x)
        x = jax.nn.relu(_apply(dense, x.reshape(len(x), -1)))
    else:
        x = x.reshape(len(x), -1)
        for layer in parameters["trunk"]:
            x = getattr(jax.nn, work.activation)(_apply(layer, x))
    return [_apply(head, x) for head in parameters["heads"]]


def _decode(work, parameters, z):
    if work.network == "conv":
        dense, *transposed, last = parameters["decoder"]
        x = jax.nn.relu(_apply(dense, z)).reshape(-1, 7, 7, 64)
        for layer in transposed:
            x = jax.nn.relu(lax.conv_transpose(x, layer["w"], (2, 2), "SAME", dimension_numbers=_CONV) + layer["b"])
        x = lax.conv_transpose(x, last["w"], (1, 1), "SAME", dimension_numbers=_CONV) + last["b"]
        return x.reshape(len(x), -1)
    *hidden, last = parameters["decoder"]
    for layer in hidden:
        z = getattr(jax.nn, work.activation)(_apply(layer, z))
    return _apply(last, z)


def _loss(work, parameters, batch, key):
    key, binary_key = jax.random.split(key)
    x = batch.astype(jnp.float32) * (1 / 255)
    if work.binary:
        x = jax.random.bernoulli(binary_key, x).astype(jnp.float32)
    mean, log_var = _encode(work, parameters, x)
    eps = jax.random.normal(key, (work.draws, *mean.shape))
    z = mean + jnp.exp(0.5 * log_var) * eps
    logits = _decode(work, parameters, z.reshape(-1, work.latent_dim)).reshape(work.draws, len(x), 784)
    reconstruction = jnp.sum(jax.nn.softplus(logits) - x.reshape(len(x), 784) * logits, -1)
    if work.draws == 1:
        return jnp.mean(reconstruction[0] + 0.5 * jnp.sum(mean**2 + jnp.exp(log_var) - 1 - log_var, -1))
    log_ratio = 0.5 * jnp.sum(log_var + eps**2 - z**2, -1)
    return jnp.mean(math.log(work.draws) - jax.nn.logsumexp(log_ratio - reconstruction, 0))


def train(work, images):
    resident = jnp.asarray(images[..., None])
    steps = len(images) // work.batch_size

    @functools.partial(jax.jit, donate_argnums=0)
    def one_pass(state, key):
        order_key, noise_key = jax.random.split(key)
        order = jax.random.permutation(order_key, len(images))[: steps * work.batch_size]

        def step(state, given):
            (parameters, first, second, count), (index, key) = state, given
            loss, gradients = jax.value_and_grad(functools.partial(_loss, work))(parameters, resident[index], key)
            count += 1
            first = jax.tree.map(lambda m, g: m + (g - m) * 0.1, first, gradients)
            second = jax.tree.map(lambda v, g: v + (g * g - v) * 0.001, second, gradients)
            rate = work.learning_rate * jnp.sqrt(1 - 0.999**count) / (1 - 0.9**count)
            parameters = jax.tree.map(lambda p, m, v: p - rate * m / (jnp.sqrt(v) + 1e-7), parameters, first, second)
            return (parameters, first, second, count), loss

        given = (order.reshape(steps, work.batch_size), jax.random.split(noise_key, steps))
        state, losses = lax.scan(step, state, given)
        return state, losses.mean()

    parameters = jax.tree.map(jnp.asarray, _parameters(work))
    zeros = jax.tree.map(jnp.zeros_like, parameters)
    state = (parameters, zeros, jax.tree.map(jnp.zeros_like, parameters), jnp.zeros(()))
    key = jax.random.key(0)
    while True:
        key, pass_key = jax.random.split(key)
        state, loss = one_pass(state, pass_key)
        yield float(loss)
