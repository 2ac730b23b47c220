"""How many rows a request may have: what each signature computes with at most `REQUEST_BYTES` of memory.

A request is small where its answer is not: a seed is 8 bytes, and the convolutions that make an image of it hold some
hundred thousand. The limit follows from the graph: the tensors that it makes for one row, all of them, as if none were
freed before the end.
"""

import math
from dataclasses import replace

import tensorflow as tf

from keras_vae.serving import checks, signatures
from keras_vae.serving.verify import REQUEST_BYTES

TRACED_ROWS = 4096  # so many that weights and constants weigh nothing beside the rows

# Operations whose output shares the memory of an input, or of a weight.
WITHOUT_MEMORY = {
    "EnsureShape", "ExpandDims", "Identity", "IdentityN", "PartitionedCall", "ReadVariableOp", "Reshape", "Squeeze",
    "StatefulPartitionedCall", "StopGradient", "While", "StatelessWhile", "If", "StatelessIf",
}  # fmt: skip


def build(model, binarization="none"):
    """What `signatures.build` returns, with a limit of rows in each signature and in front of its function."""
    traced = signatures.build(model, binarization, rows=TRACED_ROWS)
    return {
        name: {key: _limited(entry, max_rows(traced[name][key])) for key, entry in entries.items()}
        for name, entries in signatures.build(model, binarization).items()
    }


def max_rows(signature):
    """The limit of a signature that was built for TRACED_ROWS rows: two digits of it, and at least 1."""
    rows = REQUEST_BYTES // max(1, row_bytes(signature))
    unit = 10 ** max(0, len(str(rows)) - 2)
    return max(1, rows // unit * unit)


def row_bytes(signature):
    """Bytes of all tensors that the graph of a signature makes for one row."""
    specs = {
        name: tf.TensorSpec((TRACED_ROWS, *field.shape), field.dtype, name) for name, field in signature.inputs.items()
    }
    graph = tf.function(signature.function, autograph=False).get_concrete_function(**specs).graph
    graph = graph.as_graph_def(add_shapes=True)
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    return sum(map(_output_bytes, nodes)) // TRACED_ROWS


def _output_bytes(node):
    if node.op in WITHOUT_MEMORY:
        return 0
    shapes = node.attr["_output_shapes"].list.shape
    numbers = sum(math.prod(TRACED_ROWS if dim.size < 0 else dim.size for dim in shape.dim) for shape in shapes)
    widths = [tf.as_dtype(value.type).size for value in node.attr.values() if value.WhichOneof("value") == "type"]
    return numbers * max(widths, default=4)


def _limited(signature, rows):
    def function(**inputs):
        for name, field in signature.inputs.items():
            inputs[name] = checks.rows(name, inputs[name], field.shape, rows)
        return signature.function(**inputs)

    return replace(signature, function=function, max_rows=rows)
