"""Trains a VAE on vectors and one on sequences, and shows what it makes of them.

    python examples/vectors_and_sequences.py

Both are made here, so that nothing is downloaded. It takes less than a minute.
"""

import keras
import numpy as np

import keras_vae

rng = np.random.default_rng(0)
angles = rng.uniform(0, 2 * np.pi, (1000, 1))
VECTORS = np.concatenate([np.cos(angles), np.sin(angles), np.cos(2 * angles)], axis=1).astype("float32")  # [1000, 3]
SEQUENCES = np.sin(np.linspace(0, 2 * np.pi, 24) + angles).astype("float32")[..., None]  # [1000, 24, 1]


def train(x, epochs=30):
    """A VAE of examples of any event shape, whose values have any real numbers."""
    keras.utils.set_random_seed(0)
    vae = keras_vae.VAE.from_preset(
        "mlp", event_shape=x.shape[1:], latent_dim=2, hidden=(64,), likelihood="gaussian", scale=0.2, learn_scale=True
    )
    vae.compile(keras.optimizers.Adam(3e-3))
    vae.fit(x[:900], validation_data=x[900:], epochs=epochs, batch_size=64, verbose=0)
    return vae


def main(epochs=30):
    for name, x in (("vectors", VECTORS), ("sequences", SEQUENCES)):
        vae, test = train(x, epochs), x[900:]
        loss = vae.evaluate(test, verbose=0, return_dict=True)["loss"]
        error = np.mean((np.asarray(vae.reconstruct(test)) - test) ** 2)
        print(f"{name} {test.shape}: loss {loss:.2f} nats, mean squared error {error:.3f}, variance {test.var():.3f}")
        print(f"  drawn from the prior: {vae.generate(4, seed=1).shape}")


if __name__ == "__main__":
    main()
