"""All use of private API of Keras and TensorFlow.

Each says on which versions it was tried, why no public way does, and what happens without it; any other in the package
is found by `tests/test_architecture.py`. Nothing of theirs is imported here: `serving/verify.py` runs without Keras.
"""

from typing import Any


def layers_of(model: Any) -> list[Any]:
    """All layers of a model, however deep, without the model.

    Tried with Keras 3.8 to 3.16. `Model.layers` gives those of one level: not what is inside a layer, such as the
    layer that a `Bidirectional` wraps. Without it only these would be asked whether XLA suits them, and only their
    noise would be fixed in an evaluation.
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

    Tried with Keras 3.8 to 3.16. They say how often they save, but not when they did. Without it a callback that was
    used in another `fit` before saves at other steps; `unknown` is what is then returned.
    """
    return getattr(callback, "_batches_seen_since_last_saving", unknown)


def profiles(callback):
    """Whether a `TensorBoard` profiles batches.

    Tried with Keras 3.8 to 3.16. It does not say with which `profile_batch` it was made. Without it `True`: training
    then runs step by step under every `TensorBoard`.
    """
    return getattr(callback, "_should_trace", True)


class BuildsFromExample:
    """A `keras.Model` whose `fit` builds what is not built from an example of the model's own, instead of from data.

    Tried with Keras 3.8 to 3.16. Under a strategy `fit` averages the first batch over the replicas and builds metrics
    from that, which fails where their shares differ in size, and for a batch of several parts on several machines; no
    argument or hook turns it off. Without it, if Keras calls the method by another name, `fit` under a strategy fails
    on such data.
    """

    def example_batch(self):
        """A batch of one example, as `fit` takes it; None where that is not known yet."""
        return None

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        example = self.example_batch()
        super()._maybe_symbolic_build(*((iterator, data_batch) if example is None else (None, example)))


def take_reduced_gradients(optimizer):
    """Lets an optimizer apply the gradients that it is given, which have been summed over the replicas.

    Tried with Keras 3.8 to 3.16. By itself it sums over the replicas whatever it is given, after it has clipped each
    replica's share; no argument turns that off. Without it `compile` raises under a strategy of several replicas.
    """
    if not hasattr(optimizer, "_all_reduce_sum_gradients"):
        raise ValueError(
            "This Keras sums gradients over replicas in a way that keras_vae does not know. For several replicas use "
            "Keras 3.8 to 3.16."
        )
    optimizer._all_reduce_sum_gradients = list


def unchecked_call(session, feeds, fetches):
    """A function of the values of some tensors of a `tf.compat.v1.Session` that returns the values of others.

    Tried with TensorFlow 2.16 to 2.23. `Session.run` and `Session.make_callable` compare the shapes of the values
    with those of the placeholders in Python: a request of a wrong shape would never reach the graph, as it does in a
    server. Without it hostile requests fail before they are tried, and `verify_export` says so.

    Args:
        session: The session.
        feeds: Names of the tensors whose values the function takes, in order.
        fetches: Names of the tensors whose values it returns, a list.
    """
    from tensorflow.core.protobuf import config_pb2

    return session._make_callable_from_options(config_pb2.CallableOptions(feed=feeds, fetch=fetches))
