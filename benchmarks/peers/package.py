"""This package, as a user calls it: `fit` on its own pipeline, without a flag."""

from keras_vae import VAE, networks, objectives
from keras_vae.data import batches
from keras_vae.data.images import Split
from peers.fitting import passes_of_fit


def train(work, images):
    import keras

    keras.utils.set_random_seed(0)
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
    vae.compile(keras.optimizers.Adam(work.learning_rate))
    split = Split(images[..., None], None, "train")
    data = batches(split, work.batch_size, shuffle=True, binarization="dynamic" if work.binary else "none")
    return passes_of_fit(vae, data)
