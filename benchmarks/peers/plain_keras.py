"""The way of the well-known Keras example: a train_step in Keras's own operations, and `fit` on an array."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from peers.fitting import passes_of_fit


class PlainVAE(keras.Model):
    def __init__(self, encoder, decoder, draws, binary):
        super().__init__()
        self.encoder, self.decoder, self.draws, self.binary = encoder, decoder, draws, binary
        self.seed_generator = keras.random.SeedGenerator(0)
        self.tracker = keras.metrics.Mean(name="loss")

    @property
    def metrics(self):
        return [self.tracker]

    def loss_of(self, x):
        if self.binary:
            x = ops.cast(keras.random.uniform(ops.shape(x), seed=self.seed_generator) < x, "float32")
        z_mean, z_log_var = self.encoder(x)
        shape = (self.draws, *ops.shape(z_mean))
        eps = keras.random.normal(shape, seed=self.seed_generator)
        z = z_mean + ops.exp(0.5 * z_log_var) * eps
        output = ops.reshape(self.decoder(ops.reshape(z, (-1, shape[-1]))), (self.draws, -1, 784))
        targets = ops.broadcast_to(ops.reshape(x, (1, -1, 784)), ops.shape(output))
        reconstruction = ops.sum(ops.binary_crossentropy(targets, output), axis=-1)
        if self.draws == 1:
            kl = -0.5 * ops.sum(1 + z_log_var - ops.square(z_mean) - ops.exp(z_log_var), axis=-1)
            return ops.mean(reconstruction[0] + kl)
        log_ratio = 0.5 * ops.sum(z_log_var + ops.square(eps) - ops.square(z), axis=-1)
        return ops.mean(np.log(self.draws) - ops.logsumexp(log_ratio - reconstruction, axis=0))

    def train_step(self, x):
        with tf.GradientTape() as tape:
            loss = self.loss_of(x)
        self.optimizer.apply_gradients(
            zip(tape.gradient(loss, self.trainable_weights), self.trainable_weights, strict=True)
        )
        self.tracker.update_state(loss)
        return {"loss": self.tracker.result()}


def train(work, images):
    keras.utils.set_random_seed(0)
    image, z = keras.Input((28, 28, 1)), keras.Input((work.latent_dim,))
    if work.network == "conv":
        x = layers.Conv2D(32, 3, activation="relu", strides=2, padding="same")(image)
        x = layers.Conv2D(64, 3, activation="relu", strides=2, padding="same")(x)
        x = layers.Dense(16, activation="relu")(layers.Flatten()(x))
        y = layers.Reshape((7, 7, 64))(layers.Dense(7 * 7 * 64, activation="relu")(z))
        y = layers.Conv2DTranspose(64, 3, activation="relu", strides=2, padding="same")(y)
        y = layers.Conv2DTranspose(32, 3, activation="relu", strides=2, padding="same")(y)
        y = layers.Conv2DTranspose(1, 3, activation="sigmoid", padding="same")(y)
    else:
        x, y = layers.Flatten()(image), z
        for units in work.hidden:
            x = layers.Dense(units, activation=work.activation)(x)
        for units in reversed(work.hidden):
            y = layers.Dense(units, activation=work.activation)(y)
        y = layers.Dense(784, activation="sigmoid")(y)
    encoder = keras.Model(image, [layers.Dense(work.latent_dim)(x), layers.Dense(work.latent_dim)(x)])
    model = PlainVAE(encoder, keras.Model(z, y), work.draws, work.binary)
    model.compile(optimizer=keras.optimizers.Adam(work.learning_rate))
    pixels = images[..., None].astype("float32") / 255
    return passes_of_fit(model, pixels, batch_size=work.batch_size, at_first_batch=True)
