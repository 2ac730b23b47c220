"""All use of private API of Keras and TensorFlow.

Each function says on which versions it was tried, why no public way does, and what happens without it.
"""


def layers_of(model):
    """All layers of a model, however deep, without the model.

    Tried with Keras 3.15. `Model.layers` gives those of one level: not what is inside a layer, such as the layer that a
    `Bidirectional` wraps. Without it only these would be asked whether XLA suits them.
    """
    flatten = getattr(model, "_flatten_layers", None)
    if flatten is not None:
        return list(flatten(include_self=False))
    found = list(model.layers)
    for layer in found:
        found += getattr(layer, "layers", [])
    return found


def batches_since_saving(callback, unknown):
    """How many batches a `ModelCheckpoint` or a `BackupAndRestore` counted since it saved.

    Tried with Keras 3.15. They say how often they save, but not when they did. Without it a callback that was used in
    another `fit` before saves at other steps; `unknown` is what is then returned.
    """
    return getattr(callback, "_batches_seen_since_last_saving", unknown)


def profiles(callback):
    """Whether a `TensorBoard` profiles batches.

    Tried with Keras 3.15. It does not say with which `profile_batch` it was made. Without it `True`: training then runs
    step by step under every `TensorBoard`.
    """
    return getattr(callback, "_should_trace", True)
