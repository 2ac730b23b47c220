"""This package, as a user calls it: `fit` on its own pipeline, without a flag."""

from contextlib import nullcontext

from keras_vae import VAE, networks, objectives
from keras_vae.data import batches
from keras_vae.data.images import Split
from peers.fitting import passes_of_fit


def train(work, images, jit_compile="auto", policy="float32", mirrored=False):
    import keras
    import tensorflow as tf

    keras.config.set_dtype_policy(policy)
    keras.utils.set_random_seed(0)
    with tf.distribute.MirroredStrategy().scope() if mirrored else nullcontext():
        vae = _compiled(work, jit_compile)
    split = Split(images[..., None], None, "train")
    data = batches(split, work.batch_size, shuffle=True, binarization="dynamic" if work.binary else "none")
    return passes_of_fit(vae, data)


def _compiled(work, jit_compile):
    import keras

    options = {"dense": 16} if work.network == "conv" else {}
    encoder, decoder = networks.build(
        work.network,
        (28, 28, 1),
        work.latent_dim,
        hidden=work.hidden,
        activation=work.activation,
        initializer="glorot_uniform",
        **options,
    )
    vae = VAE(encoder, decoder, objective=objectives.IWAE(work.draws) if work.draws > 1 else "elbo", seed=0)
    vae.compile(keras.optimizers.Adam(work.learning_rate), jit_compile=jit_compile)
    return vae
