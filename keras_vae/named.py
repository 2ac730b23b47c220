"""Likelihoods, priors, objectives and corruptions by name."""

from keras_vae.config import InputError


def make(argument, identifier, classes, options):
    """Makes the object of a name.

    Args:
        argument: What the name is of, for errors: "prior".
        identifier: A name, or a dict of the name and parameters: {"name": "vampprior", "num_components": 100}.
        classes: Dict, name -> class.
        options: Dict of more parameters.

    Raises:
        InputError: for an unknown name.
    """
    if isinstance(identifier, dict):
        options = {**identifier, **options}
        identifier = options.pop("name", None)
    if identifier not in list(classes):
        expected = ", ".join(classes)
        raise InputError(f"Unknown {argument}. Expected one of: {expected}. Received: {argument}={identifier!r}")
    return classes[identifier](**options)
