"""What training on several replicas takes that Keras has not."""

import keras
import tensorflow as tf

from keras_vae import keras_private


def distributed_function(model, step):
    """What Keras calls for `steps_per_execution` steps of a model under a strategy of several replicas.

    Keras's own function cannot reduce the logs of several machines, nor loop over a distributed iterator.

    Args:
        model: The model.
        step: Its `train_step` or `test_step`.

    Returns:
        Callable: iterator -> dict of the metrics so far, over the examples of all replicas.
    """

    def step_on(batch):
        # Keras's data sets have an empty Optional where there is nothing
        return step(tf.nest.map_structure(lambda p: None if isinstance(p, tf.experimental.Optional) else p, batch))

    def one_step(iterator):
        model.distribute_strategy.run(step_on, args=(next(iterator),))
        return model.get_metrics_result()  # outside of the replicas: sums over all of them

    compiled = one_step if model.run_eagerly else tf.function(one_step, reduce_retracing=True, autograph=False)

    def several_steps(iterator):
        is_distributed = isinstance(iterator, (tf.data.Iterator, tf.distribute.DistributedIterator))
        logs = None
        for _ in range(model.steps_per_execution):
            try:
                logs = (compiled if is_distributed else one_step)(iterator)
            except (StopIteration, tf.errors.OutOfRangeError):
                break
        if logs is None:
            raise StopIteration
        return logs

    return several_steps


def prepare(strategy, optimizer, metrics=()):
    """Prepares an optimizer for gradients that the step has summed over the replicas.

    Raises:
        ValueError: for what is known to fail, or to train wrongly, under a strategy.
    """
    if isinstance(strategy, (tf.distribute.ParameterServerStrategy, tf.distribute.experimental.CentralStorageStrategy)):
        raise ValueError(
            f"{type(strategy).__name__} is not supported: each step needs the sum over all replicas. Use "
            "MirroredStrategy on one machine, MultiWorkerMirroredStrategy on several."
        )
    if strategy.num_replicas_in_sync == 1:
        return
    scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    inner = optimizer.inner_optimizer if scaled else optimizer
    if inner.gradient_accumulation_steps:
        raise ValueError(
            "gradient_accumulation_steps does not work under a strategy of several replicas: Keras cannot add up "
            "gradients there. Use a larger batch, or one replica."
        )
    made = [
        variable
        for metric in keras.tree.flatten(metrics)
        if isinstance(metric, keras.Metric)
        for variable in metric.variables
    ]
    if not all(isinstance(variable.value, tf.distribute.DistributedValues) for variable in [inner.iterations, *made]):
        raise ValueError(
            "The optimizer or a metric was made outside of the strategy under which the model was built. Make it "
            "inside the scope of the same strategy, or give compile its name."
        )
    keras_private.take_reduced_gradients(inner)


def all_reduce_sum(value):
    """Sum over the replicas of a tensor or a list of tensors; `value` itself where there is one replica."""
    if num_replicas() == 1:
        return value
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, value)


def num_replicas():
    return tf.distribute.get_strategy().num_replicas_in_sync
