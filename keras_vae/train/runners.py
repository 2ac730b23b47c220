"""Which way training steps run: one by one, on several replicas, or several of them as one program of XLA."""

import keras
import tensorflow as tf

from keras_vae import keras_private
from keras_vae.layers import RandomLayer

STEPS_AT_ONCE = 64  # for one draw of z; with an MLP a tenth of a second, in which the start of a program is lost
MIN_STEPS_AT_ONCE = 16  # however many draws: a second of an IWAE with k = 50 and 100 images in a batch
MIN_TRAINING_STEPS = 1000  # from here on the seconds that compiling takes come back
PACKAGES = ("keras", "keras_vae")


def choose(model, steps_per_epoch, epochs, waits=()):
    """Whether XLA compiles the training of a model, and how many steps it runs at once: pair (bool, int).

    See `LatentModel.plan_execution` for the arguments.
    """
    compiled, asked = model.jit_compile_steps, model.steps_asked_for
    if compiled == "auto":
        compiled = (steps_per_epoch or 0) * epochs >= MIN_TRAINING_STEPS and compiles_well(model)
    if not compiled or model.run_eagerly or model.distribute_strategy.num_replicas_in_sync > 1:
        return False, asked
    draws = getattr(getattr(model, "objective", None), "num_samples", 1)
    limits = [max(MIN_STEPS_AT_ONCE, STEPS_AT_ONCE // draws), *waits, *([steps_per_epoch] if steps_per_epoch else [])]
    return True, asked if asked > 1 else max(1, min(limits))


def compiles_well(model):
    """Whether XLA is faster than TensorFlow's own operations for this model, and known to take all of it.

    On a CPU it is slow at convolutions and at the random numbers of Keras's layers (docs/performance.md), and nothing
    is known of code that is not Keras's or of this package.
    """
    parts = [model, model.optimizer, *keras_private.layers_of(model)]
    parts += [getattr(model, "objective", None)]
    known = all(type(part).__module__.split(".")[0] in PACKAGES for part in parts if part is not None)
    if not known or model.has_metrics or any(isinstance(part, keras.layers.Lambda) for part in parts):
        return False
    if tf.config.list_logical_devices("GPU"):
        return True
    plain = all(getattr(part, "compute_dtype", "float32") == "float32" for part in parts)
    return plain and not any(
        "Conv" in type(part).__name__ or (hasattr(part, "seed_generator") and not isinstance(part, RandomLayer))
        for part in parts
    )


def steps_between_calls(callback):
    """How many steps may pass between two calls of the batch hooks of a callback."""
    if getattr(callback, "_should_trace", False):  # TensorBoard with `profile_batch`
        return 1
    for name in ("every", "save_freq", "update_freq"):  # of this package, of ModelCheckpoint, of TensorBoard
        if hasattr(callback, name):
            every = getattr(callback, name)
            return every if isinstance(every, int) and every else STEPS_AT_ONCE
    if isinstance(callback, keras.callbacks.CallbackList):
        return min(map(steps_between_calls, callback.callbacks), default=STEPS_AT_ONCE)
    hooks = ("on_train_batch_begin", "on_train_batch_end", "on_batch_begin", "on_batch_end")
    base = keras.callbacks.Callback
    looks = any(hook in vars(callback) or getattr(type(callback), hook) is not getattr(base, hook) for hook in hooks)
    return 1 if looks and not isinstance(callback, keras.callbacks.ProgbarLogger) else STEPS_AT_ONCE
