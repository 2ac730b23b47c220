"""Trains models on some devices, with fixed noise, and saves what came of it. A process of its own:

    python tests/training_on_devices.py none|mirrored|multiworker FILE NAME ...

NAME is a case of tests/cases.py or one of the names below. FILE becomes an .npz: name/weight0, name/log-loss, ...
"""

import contextlib
import sys
from unittest import mock

import keras
import numpy as np
import tensorflow as tf
from cases import CASES, build, images, inputs, labels

from keras_vae import NonFiniteLossError, distribution

MLP = next(case for case in CASES if case.name == "mlp")


def fixed_noise():
    """The same for every replica. For built models: Keras draws weights with these functions."""
    patches = contextlib.ExitStack()
    zeros = lambda shape, seed, dtype="float32", alg=None: tf.zeros(shape, dtype)  # noqa: E731
    same = lambda shape, seed, alg=None: tf.fill(shape, 0.7)  # noqa: E731
    patches.enter_context(mock.patch.object(tf.random, "stateless_normal", zeros))
    patches.enter_context(mock.patch.object(tf.random, "stateless_uniform", same))
    return patches


def adam():
    return keras.optimizers.Adam(1e-2, global_clipnorm=0.5)


def scaled():
    """What Keras makes of an optimizer under mixed_float16."""
    return keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(1e-2, clipnorm=0.5))


def callbacks():
    """The first acts at the end of the second epoch, the other at the end of the third."""
    slower = keras.callbacks.ReduceLROnPlateau("val_loss", patience=1, min_delta=1e3)
    return [slower, keras.callbacks.EarlyStopping("val_loss", patience=2, min_delta=1e3)]


# name -> arguments of `train`
OPTIONS = {
    "steps-per-execution": {"steps_per_execution": 2, "metrics": ["mse"]},
    "adam-clipped": {"optimizer": adam},
    "float16-clipped": {"optimizer": scaled},
    "empty-replica": {"count": 9},
    "weighted": {"weights": np.linspace(0, 2, 21, dtype="float32"), "optimizer": lambda: keras.optimizers.SGD(1e-2)},
    "callbacks": {"epochs": 5, "callbacks": callbacks},
    "jit": {"jit_compile": True},
    "eager": {"run_eagerly": True},
}


def train(
    case, *, count=21, epochs=1, optimizer=lambda: keras.optimizers.SGD(1e-3), callbacks=None, weights=None, **options
):
    """Batches of 8, the last one smaller. Returns what training, evaluation and prediction came to."""
    with strategy.scope():
        model = build(case)
        model.compile(optimizer(), **options)
    start = [weight.numpy() for weight in model.trainable_weights]
    x = images(case, count)
    y = labels(case, count)
    fit = {"callbacks": callbacks(), "validation_data": (x[:10],)} if callbacks else {}
    both = {"sample_weight": weights, "batch_size": 8, "verbose": 0}
    with fixed_noise():
        logs = model.fit(x, *y, shuffle=False, epochs=epochs, **both, **fit).history
        logs |= {f"test_{k}": v for k, v in model.evaluate(x, *y, return_dict=True, **both).items()}
        logs["predicted"] = model.predict(inputs(case, x), batch_size=8, verbose=0)
    end = [weight.numpy() for weight in model.trainable_weights]
    moved = max(np.abs(before - after).max() for before, after in zip(start, end))
    found = {f"weight{number}": weight for number, weight in enumerate(end)}
    return {**found, **{f"log-{name}": value for name, value in logs.items()}, "moved": moved}


def exploding(optimizer, what):
    """A model whose loss or whose gradient alone is infinite for images whose first pixel is 1, and three batches:
    one such image is in the second, in the share of the last replica."""

    @tf.custom_gradient
    def explode(loss, marked):
        infinite = tf.where(marked, np.inf, loss)
        value = infinite if what == "loss" else tf.identity(loss)
        return value, lambda up: (tf.where(marked, np.inf, up) if what == "gradient" else up, None)

    with strategy.scope():
        model = build(MLP)
        model.compile(optimizer)
    terms = model.loss_terms

    def loss_terms(x, training):
        found = terms(x, training=training)
        return found | {"loss": explode(found["loss"], x[:, 0, 0, 0] == 1)}

    model.loss_terms = loss_terms
    x = images(MLP, 24)
    x[15, 0, 0, 0] = 1
    return model, np.split(x, 3)


def float16():
    """Weights, loss scale and counters after each of the three steps."""
    keras.config.set_dtype_policy("mixed_float16")
    model, batches = exploding("sgd", "gradient")
    found = {}
    for number, batch in enumerate(batches):
        model.fit(batch, batch_size=8, verbose=0)
        found[f"weights{number}"] = flat(model)
        found[f"scale{number}"] = model.optimizer.dynamic_scale.numpy()
        found[f"steps{number}"] = model.step.numpy(), model.optimizer.iterations.numpy()
    keras.config.set_dtype_policy("float32")
    return found


def float32(what):
    """The error of the second step, and the weights before and after it."""
    model, batches = exploding("sgd", what)
    model.fit(batches[0], batch_size=8, verbose=0)
    before, message = flat(model), ""
    try:
        model.fit(np.concatenate(batches[1:]), shuffle=False, batch_size=8, verbose=0)
    except NonFiniteLossError as error:
        message = str(error)
    return {"message": message, "before": before, "after": flat(model)}


def flat(model):
    return np.concatenate([weight.numpy().ravel() for weight in model.trainable_weights])


def noise():
    """What `Sampling` draws in two steps on each replica: [steps * replicas, n]."""
    with strategy.scope():
        sampling = build(MLP).sampling
    zeros = (tf.zeros([500, 3]), tf.zeros([500, 3]))
    draw = tf.function(lambda: strategy.run(lambda: sampling(zeros)[0]))
    return {"draws": [np.ravel(z) for _ in range(2) for z in strategy.experimental_local_results(draw())]}


def refusals():
    """The messages of what cannot work under a strategy."""
    outside, metric, found = keras.optimizers.SGD(), keras.metrics.MeanSquaredError(), {}

    def refused(name, optimizer, **options):
        try:
            build(MLP).compile(optimizer, **options)
        except ValueError as error:
            found[name] = str(error)

    with strategy.scope():
        refused("optimizer", outside)
        refused("metric", "sgd", metrics=[metric])
        refused("accumulation", keras.optimizers.SGD(gradient_accumulation_steps=2))
    return found


def reductions():
    """How many numbers a step sums over the replicas, and how many a gradient has."""
    with strategy.scope():
        model = build(MLP)
        model.compile(keras.optimizers.Adam(clipnorm=1.0))
    summed, reduce = [], tf.distribute.ReplicaContext.all_reduce

    def spy(context, operation, value, **options):
        summed.extend(int(np.prod(part.shape)) for part in tf.nest.flatten(value))
        return reduce(context, operation, value, **options)

    with mock.patch.object(tf.distribute.ReplicaContext, "all_reduce", spy):
        model.fit(images(MLP, 8), batch_size=8, verbose=0)
    replicas = strategy.num_replicas_in_sync
    return {"summed": sum(summed) // replicas, "gradient": sum(int(np.prod(w.shape)) for w in model.trainable_weights)}


# name -> what is not a training that ends well
OTHERS = {
    "float16": float16,
    "infinite-gradient": lambda: float32("gradient"),
    "infinite-loss": lambda: float32("loss"),
    "noise": noise,
    "refusals": refusals,
    "reductions": reductions,
}


def found(name):
    if name in OTHERS:
        return OTHERS[name]()
    case = next((case for case in CASES if case.name == name), MLP)
    return train(case, **OPTIONS.get(name, {"run_eagerly": kind == "none"}))  # a graph costs more than it saves


if __name__ == "__main__":
    kind, target, *names = sys.argv[1:]
    if kind == "mirrored":
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = distribution.choose(kind)
    np.savez(target, **{f"{name}/{key}": value for name in names for key, value in found(name).items()})
