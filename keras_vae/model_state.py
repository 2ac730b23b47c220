"""Every variable of a model as numpy arrays, and back: what a checkpoint holds of it, on one replica or many."""

import weakref

import keras
import numpy as np
import tensorflow as tf

from keras_vae.config import InputError


def state_of(model):
    """Every variable of a built and compiled model and of its optimizer, and the metrics of each replica.

    Under a strategy of several machines all workers must call this.

    Returns:
        Dict: name -> array. The metrics have a leading dimension, one row for each replica.
    """
    strategy, metrics = model.distribute_strategy, _metric_variables(model)
    arrays = {f"variable-{number}": keras.ops.convert_to_numpy(v) for number, v in enumerate(_variables(model))}

    if strategy.num_replicas_in_sync == 1:
        rows = [keras.ops.convert_to_numpy(variable)[None] for variable in metrics]
    else:
        if model not in _PER_REPLICA:
            _PER_REPLICA[model] = _per_replica_function(strategy, metrics)
        rows = [strategy.experimental_local_results(row)[0].numpy() for row in _PER_REPLICA[model]()]
    return arrays | {f"metric-{number}": row for number, row in enumerate(rows)}


def set_state(model, arrays):
    """Gives a model the state that `state_of` returned, whatever the number of replicas then and now.

    Raises:
        InputError: if it is the state of another model.
    """
    variables = _variables(model)
    found = [arrays[name].shape for name in sorted(arrays, key=_number) if name.startswith("variable-")]
    if found != [tuple(variable.shape) for variable in variables]:
        raise InputError("The checkpoint is that of another model: its variables have other shapes.")
    with model.distribute_strategy.scope():
        for number, variable in enumerate(variables):
            variable.assign(arrays[f"variable-{number}"])
    set_metrics(model, arrays)


def set_metrics(model, arrays):
    """The part of `set_state` that concerns metrics, which Keras resets when an epoch begins."""
    strategy, metrics = model.distribute_strategy, _metric_variables(model)
    replicas = strategy.num_replicas_in_sync
    rows = [arrays[f"metric-{number}"] for number in range(len(metrics))]
    if rows and len(rows[0]) != replicas:  # sums over examples: all of it on the first replica is the same
        rows = [np.concatenate([row.sum(0, keepdims=True), np.zeros((replicas - 1, *row.shape[1:]))]) for row in rows]

    @tf.function(autograph=False)
    def assign():
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        for variable, row in zip(metrics, rows, strict=True):
            variable.assign(tf.gather(tf.constant(row, variable.dtype), replica))

    strategy.run(assign)


# model -> its function, which is traced once
_PER_REPLICA: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def _per_replica_function(strategy, metrics):
    """The value of each metric variable on each replica: [replicas, ...], the same in every process."""

    def rows():
        context = tf.distribute.get_replica_context()
        mine = tf.one_hot(context.replica_id_in_sync_group, context.num_replicas_in_sync)
        placed = [tf.tensordot(tf.cast(mine, variable.dtype), variable.value, axes=0) for variable in metrics]
        return [context.all_reduce(tf.distribute.ReduceOp.SUM, row) for row in placed]  # x + 0 is exact

    return tf.function(lambda: strategy.run(rows), autograph=False)


def _variables(model):
    return [*model.variables, *model.optimizer.variables]


def _metric_variables(model):
    return [variable for metric in model.metrics for variable in metric.variables]


def _number(name):
    return int(name.rpartition("-")[2])
