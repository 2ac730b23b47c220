"""Random numbers: one interface for training, scoring and serving, which differ in where the numbers come from.

Whatever draws asks a `Noise` for standard normals or uniform numbers of a shape, under the name of a stream. Two
streams are independent; the same stream asked twice gives the same numbers.
"""

import abc
import hashlib
from typing import Any

import keras
import tensorflow as tf

Tensor = Any
RNG = "philox"  # the one that TensorFlow would choose on a CPU by itself; in a program of XLA it would take a slow one


class Noise(abc.ABC):
    """Base class: a source of random numbers.

    Shapes are (s, b, ...): s samples for each of b rows. `keras_vae.serving.noise.RowNoise` makes each row from a seed
    of its own and needs to know which axis that is.
    """

    @abc.abstractmethod
    def __call__(self, shape: tuple[Any, ...], stream: str) -> Tensor:
        """Standard normals.

        Args:
            shape: Tuple (s, b, ...) of ints, or of scalar int tensors.
            stream: Name of the use that the numbers are put to.

        Returns:
            Float32 of that shape.
        """

    @abc.abstractmethod
    def uniform(self, shape: tuple[Any, ...], stream: str) -> Tensor:
        """Uniform numbers in [0, 1). Arguments and result as for standard normals."""

    def within(self, scope: str) -> "Noise":
        """The same source for a part of a model, such as an upper layer: its streams are independent of the others."""
        return _Scoped(self, scope)


class _Scoped(Noise):
    def __init__(self, noise: Noise, scope: str) -> None:
        self.noise = noise
        self.scope = scope

    def __call__(self, shape: tuple[Any, ...], stream: str) -> Tensor:
        return self.noise(shape, f"{self.scope}/{stream}")

    def uniform(self, shape: tuple[Any, ...], stream: str) -> Tensor:
        return self.noise.uniform(shape, f"{self.scope}/{stream}")


class SeedNoise(Noise):
    """Noise that is a function of one seed, for a batch as a whole.

    Args:
        seed: Int32 [2].

    Example:

    >>> import numpy as np
    >>> from keras_vae.noise import SeedNoise
    >>> noise = SeedNoise([1, 2])
    >>> bool(np.all(noise((1, 3), "prior") == noise((1, 3), "prior")))
    True
    >>> bool(np.any(noise((1, 3), "prior") == noise((1, 3), "posterior")))
    False
    """

    def __init__(self, seed: Tensor) -> None:
        self.seed = seed

    def __call__(self, shape: tuple[Any, ...], stream: str) -> Tensor:
        return tf.random.stateless_normal(shape, seed=self._seed_of(stream), alg=RNG)

    def uniform(self, shape: tuple[Any, ...], stream: str) -> Tensor:
        return tf.random.stateless_uniform(shape, seed=self._seed_of(stream), alg=RNG)

    def _seed_of(self, stream: str) -> Tensor:
        low, high = stream_number(stream) & 0x7FFFFFFF, stream_number(stream) >> 33
        return tf.bitwise.bitwise_xor(tf.cast(self.seed, tf.int32), tf.constant([low, high], tf.int32))


def get(identifier: Noise | int | None = None) -> Noise:
    """Returns noise by an int seed, or the noise itself; for None, noise by Keras's global seed, fresh at each call.

    Example:

    >>> import numpy as np
    >>> from keras_vae import noise
    >>> bool(np.all(noise.get(7)((1, 3), "prior") == noise.get(7)((1, 3), "prior")))
    True
    """
    if isinstance(identifier, Noise):
        return identifier
    if identifier is None:
        return SeedNoise(keras.random.randint((2,), 0, 2**31 - 1, dtype="int32"))
    seed = int(identifier)
    return SeedNoise([seed & 0x7FFFFFFF, (seed >> 31) & 0x7FFFFFFF])


def stream_number(stream: str) -> int:
    """64 bits that stand for the name of a stream."""
    return int.from_bytes(hashlib.sha256(stream.encode()).digest()[:8], "big")
