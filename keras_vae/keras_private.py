"""All use of private API of Keras and TensorFlow.

Each function says on which versions it was tried, why no public way does, and what happens without it.
"""


def layers_of(model):
    """All layers of a model, however deep, with the metrics' left out.

    Tried with Keras 3.15. `Model.layers` gives those of one level: not what is inside a layer, such as the layer that a
    `Bidirectional` wraps. Without it training is not compiled by itself.
    """
    return list(model._flatten_layers(include_self=False))
