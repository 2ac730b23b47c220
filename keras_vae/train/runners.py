"""Which way training steps run: one by one, on several replicas, or many of them as one program of XLA."""

import inspect

import keras
import tensorflow as tf

from keras_vae import keras_private

STEPS_AT_ONCE = 64  # for one draw of z; with an MLP a tenth of a second, in which the start of a program is lost
MIN_STEPS_AT_ONCE = 16  # however many draws: a second of an IWAE with k = 50 and 100 images in a batch
MIN_TRAINING_STEPS = 1000  # from here on the seconds that compiling takes come back

ANYWHERE = ("CPU", "GPU")
# Layers of Keras that XLA computes more slowly than TensorFlow does on a CPU (docs/performance.md).
SLOW_ON_A_CPU = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv1D,
    keras.layers.SeparableConv2D,
    keras.layers.Dropout,
    keras.layers.AlphaDropout,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
)


def is_compiled(model, total_steps):
    """Whether XLA compiles the training of a model.

    Args:
        model: The compiled model.
        total_steps: Int, the steps of the whole training, or None if they cannot be counted.
    """
    if not model.jit_compile_steps or model.run_eagerly or model.distribute_strategy.num_replicas_in_sync > 1:
        return False
    if model.jit_compile_steps == "auto":
        return (total_steps or 0) >= MIN_TRAINING_STEPS and compiles_well(model)
    return True


def compiles_well(model):
    """Whether XLA is faster than TensorFlow's own operations for this model where it is, and known to take all of it.

    Every part of a model declares in `compiles_on` on which kinds of device that is so.
    """
    device = device_of(model)
    parts = _parts(model)
    if device == "CPU" and any(getattr(part, "compute_dtype", "float32") != "float32" for part in parts):
        return False  # which a CPU only emulates
    return not model.has_metrics and all(device in compiles_on(part) for part in parts)


def compiles_on(part):
    """The kinds of device on which XLA is known to be fast for a layer, an optimizer, an objective or a model.

    A class says so in an attribute `compiles_on`, a tuple of "CPU" and "GPU". Keras's classes and those of this package
    suit both unless they say otherwise; of all others nothing is known, also where they inherit the attribute.
    """
    cls = type(part)
    package = cls.__module__.partition(".")[0]
    if package == "keras":
        if isinstance(part, keras.layers.Lambda):
            return ()
        return ("GPU",) if isinstance(part, SLOW_ON_A_CPU) else ANYWHERE
    if package == "keras_vae" or "compiles_on" in vars(cls):
        return getattr(part, "compiles_on", ANYWHERE)
    return ()


def examples_are_independent(model):
    """Whether the loss of an example is the same whatever else is in its batch, known of every part of a model."""
    return not model.has_metrics and not any(map(couples_examples, _parts(model)))


def couples_examples(part):
    """Whether a layer, an objective or a model lets an example depend on the others of its batch, or may do so.

    A class says so in an attribute `couples_examples`. Those of Keras and of this package do not unless they say so.
    """
    cls = type(part)
    if cls.__module__.partition(".")[0] not in ("keras", "keras_vae") and "couples_examples" not in vars(cls):
        return not isinstance(part, keras.optimizers.Optimizer)
    coupled = isinstance(part, keras.layers.BatchNormalization) or getattr(part, "activity_regularizer", None)
    return bool(coupled) or getattr(part, "couples_examples", False)


def _parts(model):
    return [model, model.optimizer, *keras_private.layers_of(model)]


def device_of(model):
    """Kind of the device where the weights of a model are: "CPU" or "GPU"."""
    weights = model.trainable_variables or model.variables
    device = weights[0].value.device if weights else ""
    return tf.DeviceSpec.from_string(device or "").device_type or "CPU"


def steps_at_once(model, callbacks, steps_per_epoch):
    """How many steps a compiled program has room for: as many as pass at most before a callback looks."""
    draws = getattr(getattr(model, "objective", None), "num_samples", 1)
    limits = [max(MIN_STEPS_AT_ONCE, STEPS_AT_ONCE // draws), *map(interval, callbacks)]
    return max(1, min(limits + ([steps_per_epoch] if steps_per_epoch else [])))


def interval(callback):
    """How many steps pass at most between two batches after which a callback looks at the model or at the logs.

    A callback of anybody's can say so in an attribute `every`: 0 if it can wait for the end of the epoch.
    """
    if hasattr(callback, "every"):
        return callback.every or STEPS_AT_ONCE
    if isinstance(callback, keras.callbacks.TensorBoard):
        looks = callback.write_steps_per_second or keras_private.profiles(callback)
        often = 1 if looks else callback.update_freq
    elif isinstance(callback, (keras.callbacks.ModelCheckpoint, keras.callbacks.BackupAndRestore)):
        often = callback.save_freq
    else:
        often = "epoch"
    if _has_own_hooks(callback):
        return 1
    return often if isinstance(often, int) and often else STEPS_AT_ONCE


def steps_until(callback, steps_done):
    """How many steps from here a callback looks again, or None if not before the epoch ends.

    Args:
        callback: The callback.
        steps_done: Int, the steps of this call of `fit` so far.
    """
    every = interval(callback)
    if every == 1:
        return 1
    if hasattr(callback, "every"):
        return callback.every - getattr(callback, "step", 0) % callback.every if callback.every else None
    if isinstance(callback, (keras.callbacks.ModelCheckpoint, keras.callbacks.BackupAndRestore)):
        is_counting = isinstance(callback.save_freq, int) and callback.save_freq
        return max(1, every - keras_private.batches_since_saving(callback, every - 1)) if is_counting else None
    if isinstance(callback, keras.callbacks.TensorBoard) and callback.update_freq != "epoch":
        return every - steps_done % every
    return None


HOOKS = ("on_train_batch_begin", "on_train_batch_end", "on_batch_begin", "on_batch_end")
COUNTING = (
    keras.callbacks.TensorBoard,
    keras.callbacks.ModelCheckpoint,
    keras.callbacks.BackupAndRestore,
    keras.callbacks.ProgbarLogger,
)


def _has_own_hooks(callback):
    """Whether a callback has hooks of a batch that are not those of Keras."""
    for hook in HOOKS:
        own = inspect.getattr_static(callback, hook)
        bases = [inspect.getattr_static(base, hook) for base in (keras.callbacks.Callback, *COUNTING)]
        if own not in bases:
            return True
    return False
