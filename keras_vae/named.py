"""Likelihoods, priors, objectives and the other members of an axis by name."""

from typing import Any

from keras_vae.config import InputError


def make(argument: str, identifier: Any, classes: dict[str, Any], options: dict[str, Any]) -> Any:
    """Makes the object of a name.

    Args:
        argument: What the name is of, for errors: "prior".
        identifier: A name, or a dict of the name and parameters: {"name": "vampprior", "num_components": 100}.
        classes: Dict, name -> class, or None for the name of nothing.
        options: Dict of more parameters.

    Raises:
        InputError: for an unknown name, or a parameter that the class does not take.
    """
    if isinstance(identifier, dict):
        options = {**identifier, **options}
        identifier = options.pop("name", None)
    if not isinstance(identifier, str) or identifier not in classes:
        expected = ", ".join(classes)
        raise InputError(f"Unknown {argument}. Expected one of: {expected}. Received: {argument}={identifier!r}")
    if classes[identifier] is None:
        return None
    try:
        return classes[identifier](**options)
    except TypeError as error:
        raise InputError(f"Cannot make {argument} {identifier}: {error}") from None
