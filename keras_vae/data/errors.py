"""What the modules of this package need to raise `InputError`."""

import numpy as np

from keras_vae.config import InputError


class Unavailable(InputError):
    """A data set that is neither prepared nor to be had from elsewhere."""


def check_int(name, value, minimum):
    """Returns an int, numpy's included, as Python's."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not minimum <= value < 2**31:
        raise InputError(f"Invalid value for {name}: expected an int from {minimum} to 2**31 - 1. Received: {value!r}")
    return int(value)


def first_line(error):
    """What an `InputError` quotes of another error."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:300]}"
