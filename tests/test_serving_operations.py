"""Nothing runs of an export whose graph holds an operation that no network needs."""

import json
import pathlib

import keras
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from keras_vae.serving import operations, verify


def read(path):
    return saved_model_pb2.SavedModel.FromString((pathlib.Path(path) / "saved_model.pb").read_bytes())


def save(path, module, function):
    """A SavedModel whose signature `serve` is `function`."""
    spec = tf.TensorSpec((None, 3), tf.float32, "z")
    tf.saved_model.save(module, str(path), {"serve": tf.function(function, input_signature=[spec], autograph=False)})
    return str(path)


@pytest.mark.parametrize("place", ["a signature", "a branch that is not taken", "a resource that is made on loading"])
def test_an_export_that_writes_a_file_is_refused_before_it_runs(place, tmp_path):
    target, module = tmp_path / "overwritten", tf.Module()

    def write(z):
        with tf.control_dependencies([tf.io.write_file(str(target), "x")]):
            return tf.identity(z)

    def serve(z):
        if place == "a resource that is made on loading":
            return {"image": z}
        return {
            "image": write(z) if place == "a signature" else tf.cond(tf.shape(z)[0] < 0, lambda: write(z), lambda: z)
        }

    if place == "a resource that is made on loading":
        (tmp_path / "keys").write_text("a\n")
        keys = tf.lookup.TextFileInitializer(
            str(tmp_path / "keys"), tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64,
            tf.lookup.TextFileIndex.LINE_NUMBER,
        )  # fmt: skip
        module.table = tf.lookup.StaticHashTable(keys, -1)
    path = tmp_path / "decoder" / "1"
    save(path, module, serve)
    contract = {"signatures": {}}
    (path / "assets.extra").mkdir()
    (path / verify.CONTRACT).write_text(json.dumps(contract))
    failures = verify.check_version(str(path), contract)
    assert failures and all(failure.endswith(("by its name.", "nothing was run.")) for failure in failures)
    wanted = "objects that are made" if "resource" in place else "operation WriteFile is not on the list"
    assert any(wanted in failure for failure in failures)
    assert not target.exists()


def test_a_request_that_would_save_is_refused(tmp_path):
    """Every SavedModel has a function that writes its variables: no signature may lead to it."""
    module = tf.Module()
    module.weight = tf.Variable(1.0)
    saved_model = read(save(tmp_path, module, lambda z: {"image": z * module.weight}))
    assert operations.refused(saved_model) == []
    meta_graph = saved_model.meta_graphs[0]
    meta_graph.signature_def["serve"].outputs["image"].name = meta_graph.saver_def.save_tensor_name
    assert operations.refused(saved_model) == ["a request would save or restore the variables: nothing was run."]


def test_an_operation_in_a_function_that_nobody_calls_is_refused(tmp_path):
    saved_model = read(save(tmp_path, tf.Module(), lambda z: {"image": z}))
    function = saved_model.meta_graphs[0].graph_def.library.function.add()
    function.signature.name = "nobody_calls_this"
    function.node_def.add(name="read", op="ReadFile")
    (failure,) = operations.refused(saved_model)
    assert failure.startswith("operation ReadFile is not on the list")
    assert operations.refused(saved_model, allowed=["ReadFile"]) == []


def test_a_function_that_calls_itself_is_no_endless_loop(tmp_path):
    saved_model = read(save(tmp_path, tf.Module(), lambda z: {"image": z}))
    function = saved_model.meta_graphs[0].graph_def.library.function.add()
    function.signature.name = "again"
    function.node_def.add(name="call", op="PartitionedCall").attr["f"].func.name = "again"
    assert operations.refused(saved_model) == []


LAYERS = {
    "LSTM": lambda x: keras.layers.LSTM(3, return_sequences=True)(x),
    "GRU": lambda x: keras.layers.GRU(3)(x),
    "bidirectional": lambda x: keras.layers.Bidirectional(keras.layers.SimpleRNN(3))(x),
    "attention": lambda x: keras.layers.MultiHeadAttention(2, 3)(x, x),
    "normalisation": lambda x: keras.layers.LayerNormalization()(keras.layers.BatchNormalization()(x)),
    "convolutions": lambda x: keras.layers.Conv1DTranspose(3, 3)(keras.layers.Conv1D(4, 3, dilation_rate=2)(x)),
    "gelu": lambda x: keras.layers.Activation("gelu")(x),
    "pooling": lambda x: keras.layers.UpSampling1D()(keras.layers.MaxPooling1D()(x)),
    "embedding": lambda x: keras.layers.Embedding(5, 3)(keras.ops.cast(x, "int32")),
}


@pytest.mark.parametrize("layer", LAYERS)
def test_layers_of_keras_are_on_the_list(layer):
    inputs = keras.Input((8, 4))
    model = keras.Model(inputs, LAYERS[layer](inputs))
    function = tf.function(lambda x: model(x, training=False), autograph=False)
    graph = function.get_concrete_function(tf.TensorSpec((None, 8, 4))).graph.as_graph_def()
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    assert {node.op for node in nodes} <= operations.ALLOWED
