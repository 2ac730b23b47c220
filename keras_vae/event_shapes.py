"""What an example is by its event shape: a vector, a sequence or an image. Standard library only."""

from keras_vae.config import InputError

KINDS = {1: "vector", 2: "sequence", 3: "image"}  # number of event dimensions -> what an example is


def kind_of(event_shape: tuple[int, ...]) -> str:
    """What an example of that shape is: "vector" [n], "sequence" [t, n] or "image" [h, w, c].

    Raises:
        InputError: for any other shape.

    Example:

    >>> from keras_vae.event_shapes import kind_of
    >>> kind_of((30,)), kind_of((24, 1)), kind_of((28, 28, 1))
    ('vector', 'sequence', 'image')
    """
    if len(event_shape) not in KINDS:
        raise InputError(
            "Expected the shape of a vector (n,), a sequence (t, n) or an image (h, w, c). "
            f"Received: event_shape={tuple(event_shape)}"
        )
    return KINDS[len(event_shape)]


def input_name(event_shape: tuple[int, ...]) -> str:
    """Name of x among the inputs of networks and served models: "image" for images, else "x"."""
    return "image" if len(event_shape) == 3 else "x"
