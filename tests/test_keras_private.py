"""What rests on the inside of Keras holds also where Keras or a layer names it otherwise."""

import keras
import numpy as np

import keras_vae
from keras_vae import networks
from keras_vae.evaluation.scores import fixed_noise


class Renamed(keras.random.SeedGenerator):
    """As another Keras might name it."""

    def __init__(self, seed):
        super().__init__(seed)
        self.state = keras.Variable(self.state, dtype=self.state.dtype, trainable=False, name="mine")


def test_the_noise_of_an_evaluation_is_fixed_whatever_the_name_of_its_variable():
    networks_of = networks.build("linear", (4, 4, 1), 2, heads={"z": (2,)})
    corruption = keras_vae.layers.GaussianCorruption(0.5, seed=1)
    corruption.seed_generator = Renamed(1)
    model, x = keras_vae.Autoencoder(*networks_of, corruption=corruption), np.full((2, 4, 4, 1), 0.5, "float32")
    with fixed_noise(model, 3):
        first, second = (model.corrupt(x).numpy() for _ in range(2))
    state = corruption.seed_generator.state.numpy()
    with fixed_noise(model, 3):
        again = model.corrupt(x).numpy()
    np.testing.assert_array_equal(again, first)
    assert np.any(second != first) and np.all(corruption.seed_generator.state.numpy() == state)
