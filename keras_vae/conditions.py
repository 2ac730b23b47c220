"""Conditions: what encoder and decoder are given beside x and z, such as a class label.

All numbers of a conditional model are those of log p(x|condition); the condition itself costs nothing. A new condition
is one class and one row of `CONDITIONS` below.
"""

import abc
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_vae import named
from keras_vae.config import InputError
from keras_vae.options import PositiveInt

Tensor = Any


class Condition(keras.layers.Layer, abc.ABC):
    """Base class; a layer that turns conditions into the features that networks join, float [b, k].

    `field` is the name of a condition among the inputs of networks and served models; `event_shape` and `event_dtype`
    are the shape and the type of one.
    """

    field = "condition"
    event_shape: tuple[int, ...] = ()
    event_dtype = "float32"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.built = True

    @abc.abstractmethod
    def expected(self) -> str:
        """What is expected, for errors."""

    @abc.abstractmethod
    def supports(self, condition: Tensor) -> Tensor:
        """Whether every condition of a batch is a possible one: scalar bool tensor."""

    def check(self, condition: Any, count: int | None = None) -> None:
        """Raises InputError for conditions that are missing, impossible, or not as many as `count`."""
        if condition is None:
            self.refuse("none")
        values = np.asarray(condition)
        if (
            values.shape[1:] != self.event_shape
            or values.ndim != 1 + len(self.event_shape)
            or not self.is_typed(values)
        ):
            self.refuse(f"{values.dtype} of shape {values.shape}")
        if count not in (None, len(values)):
            self.refuse(f"{len(values)} {self.field}s for {count}")
        if values.size and not bool(self.supports(tf.cast(values, self.event_dtype))):
            self.refuse(f"{self.field}s from {values.min()} to {values.max()}")

    def check_spec(self, spec: tf.TensorSpec) -> None:
        """Raises InputError for a dataset that cannot hold such conditions."""
        right = spec.shape.is_compatible_with((None, *self.event_shape))
        if not right or (self.event_dtype == "int64" and not spec.dtype.is_integer):
            self.refuse(f"{spec.dtype.name} of shape {spec.shape}")

    def is_typed(self, values: np.ndarray) -> bool:
        """Whether an array has a type that conditions can be made of."""
        return values.dtype.kind in ("iu" if self.event_dtype == "int64" else "iuf")

    def refuse(self, received: str) -> None:
        raise InputError(f"{self.expected()} Received: {received}.")

    def tensor(self, condition: Any, count: int | None = None) -> Tensor:
        """Conditions as the networks take them; checked where that is possible without a graph."""
        if condition is None or tf.executing_eagerly():
            self.check(condition, count)
        return tf.cast(condition, self.event_dtype)


@keras.saving.register_keras_serializable(package="keras_vae")
class Label(Condition):
    """Class labels: integers from 0 to one less than the number of classes.

    The features are vectors with a 1 at the label and 0 elsewhere.

    Args:
        num_classes: Int, K, the number of classes.

    Example:

    >>> import numpy as np
    >>> from keras_vae.conditions import Label
    >>> Label(3)(np.array([2, 0])).numpy().tolist()
    [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]

    Reference:
        Kingma et al., Semi-supervised Learning with Deep Generative Models, 2014, equation 6 without the prior of y.
    """

    field = "label"
    event_dtype = "int64"

    def __init__(self, num_classes: PositiveInt = 10, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not (isinstance(num_classes, int) and num_classes >= 1):
            raise InputError(
                "Invalid value for argument `num_classes`. Expected an int of at least 1. "
                f"Received: num_classes={num_classes!r}"
            )
        self.num_classes = num_classes

    def call(self, labels: Any) -> Tensor:
        return ops.one_hot(labels, self.num_classes, dtype=self.compute_dtype)

    def expected(self) -> str:
        return f"A label is needed for each example: integers from 0 to {self.num_classes - 1}, of shape (n,)."

    def supports(self, condition: Any) -> Tensor:
        return tf.reduce_all((condition >= 0) & (condition < self.num_classes))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_classes": self.num_classes}


@keras.saving.register_keras_serializable(package="keras_vae")
class Vector(Condition):
    """Vectors of numbers, such as the columns of a table that are known. The features are the vector itself.

    Args:
        size: Int, the length of a vector.

    Example:

    >>> import numpy as np
    >>> from keras_vae.conditions import Vector
    >>> tuple(Vector(3)(np.zeros((2, 3), "float32")).shape)
    (2, 3)

    Reference:
        Sohn et al., Learning Structured Output Representation using Deep Conditional Generative Models, 2015.
    """

    def __init__(self, size: PositiveInt = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not (isinstance(size, int) and size >= 1):
            raise InputError(
                f"Invalid value for argument `size`. Expected an int of at least 1. Received: size={size!r}"
            )
        self.size = size
        self.event_shape = (size,)

    def call(self, vectors: Any) -> Tensor:
        return ops.cast(vectors, self.compute_dtype)

    def expected(self) -> str:
        return f"A condition is needed for each example: finite numbers of shape (n, {self.size})."

    def supports(self, condition: Any) -> Tensor:
        return tf.reduce_all(tf.math.is_finite(condition))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "size": self.size}


CONDITIONS = {"none": None, "label": Label, "vector": Vector}


def get(identifier: Any, **options: Any) -> Condition | None:
    """Returns a condition by name, made with `options`; a condition as it is; None for None or "none".

    Raises:
        InputError: for an unknown name.
    """
    if identifier is None or isinstance(identifier, Condition):
        return identifier
    made: Condition | None = named.make("condition", identifier, CONDITIONS, options)
    return made
