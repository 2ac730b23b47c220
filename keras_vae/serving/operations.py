"""The operations that the graph of an export may hold. Without keras, as verify.py.

A SavedModel is a program: an operation of it can write a file, and one that nobody asked for can hide in any function.
So the list has what networks compute with, and nothing of a stranger's graph runs that holds another.
"""

ALLOWED = frozenset(
    """
    Abs Acos Acosh Add AddN AddV2 All Any ApproximateEqual ArgMax ArgMin Asin Asinh Assert Atan Atan2 Atanh AvgPool
    AvgPool3D BatchMatMul BatchMatMulV2 BatchMatMulV3 BatchToSpaceND Betainc BiasAdd BiasAddV1 Bincount Bitcast
    BitwiseAnd BitwiseOr BitwiseXor BroadcastArgs BroadcastTo Bucketize Case Cast Ceil CheckNumerics Cholesky
    ClipByValue Concat ConcatV2 Conj Const Conv Conv2D Conv2DBackpropInput Conv2DBackpropInputV2 Conv3D
    Conv3DBackpropInputV2 Cos Cosh Cross Cumprod Cumsum CumulativeLogsumexp DecodePng DecodeRaw DenseBincount
    DepthToSpace DepthwiseConv2dNative Diag DiagPart Digamma DisableCopyOnRead Div DivNoNan DynamicPartition
    DynamicStitch Einsum Elu EmptyTensorList EncodePng EnsureShape Equal Erf Erfc Erfinv Exp ExpandDims Expm1
    ExtractImagePatches ExtractJpegShape FFT FFT2D Fill Floor FloorDiv FloorMod FusedBatchNorm FusedBatchNormV2
    FusedBatchNormV3 Gather GatherNd GatherV2 Greater GreaterEqual IFFT IFFT2D IRFFT IRFFT2D Identity IdentityN If
    Igamma Igammac Imag InvertPermutation Invert IsFinite IsInf IsNan L2Loss LRN LeakyRelu LeftShift Less LessEqual
    Lgamma LinSpace Log Log1p LogSoftmax LogicalAnd LogicalNot LogicalOr MatMul MatrixBandPart MatrixDeterminant
    MatrixDiag MatrixDiagPart MatrixDiagPartV2 MatrixDiagPartV3 MatrixDiagV2 MatrixDiagV3 MatrixInverse MatrixSetDiag
    MatrixSetDiagV2 MatrixSetDiagV3 MatrixSolve MatrixTriangularSolve Max MaxPool MaxPool3D MaxPoolV2 Maximum Mean Min
    Minimum MirrorPad Mod Mul MulNoNan Ndtri Neg NextAfter NoOp NotEqual OneHot OnesLike Pack Pad PadV2
    PartitionedCall Placeholder PlaceholderWithDefault Polygamma Pow PreventGradient Prod Qr RFFT RFFT2D Range Rank
    ReadVariableOp Real RealDiv Reciprocal Relu Relu6 Reshape ResizeArea ResizeBicubic ResizeBilinear
    ResizeNearestNeighbor ResourceGather ResourceGatherNd Reverse ReverseSequence ReverseV2 RightShift Rint Roll Round
    Rsqrt ScaleAndTranslate ScatterNd SegmentMax SegmentMean SegmentMin SegmentProd SegmentSum Select SelectV2 Selu
    Shape ShapeN Sigmoid Sign Sin Sinh Size Slice Snapshot Softmax Softplus Softsign SpaceToBatchND SpaceToDepth Split
    SplitV Sqrt Square SquaredDifference Squeeze StatefulPartitionedCall StatelessCase StatelessIf
    StatelessRandomGetAlg StatelessRandomGetKeyCounter StatelessRandomNormal StatelessRandomNormalV2
    StatelessRandomUniform StatelessRandomUniformFullIntV2 StatelessRandomUniformIntV2 StatelessRandomUniformV2
    StatelessTruncatedNormalV2 StatelessWhile StaticRegexFullMatch StopGradient StridedSlice StringJoin StringLength
    Sub Substr Sum Svd Tan Tanh TensorListConcatV2 TensorListElementShape TensorListFromTensor TensorListGather
    TensorListGetItem TensorListLength TensorListPopBack TensorListPushBack TensorListReserve TensorListResize
    TensorListSetItem TensorListSplit TensorListStack TensorScatterAdd TensorScatterMax TensorScatterMin
    TensorScatterSub TensorScatterUpdate Tile TopKV2 Transpose TruncateDiv TruncateMod Unique UniqueV2 Unpack
    UnsortedSegmentMax UnsortedSegmentMin UnsortedSegmentProd UnsortedSegmentSum UpperBound VarHandleOp VariableShape
    Where While Xdivy Xlog1py Xlogy ZerosLike Zeta
    """.split()
)

# What TensorFlow writes into every SavedModel to read its variables, and to save them again, which nothing here does.
RESTORE = ALLOWED | {"AssignVariableOp", "RestoreV2"}
SAVE = ALLOWED | {"MergeV2Checkpoints", "SaveV2", "ShardedFilename"}

# What a SavedModel may hold beside its graph: `tf.saved_model.load` runs the initializers of other things.
OBJECTS = {"user_object", "variable", "bare_concrete_function", "function", "constant"}


def refused(saved_model, allowed=()):
    """What must not run of a SavedModel: a list of failures, one line each.

    Args:
        saved_model: A SavedModel message.
        allowed: Names of operations that are allowed as well.
    """
    return [failure for meta_graph in saved_model.meta_graphs for failure in _refused(meta_graph, frozenset(allowed))]


def _refused(meta_graph, allowed):
    graph = meta_graph.graph_def
    functions = {function.signature.name: function.node_def for function in graph.library.function}
    save = meta_graph.saver_def.save_tensor_name.partition(":")[0]
    restore = meta_graph.saver_def.restore_op_name
    saves, restores = ([node for node in graph.node if node.name == name] for name in (save, restore))
    others = [node for node in graph.node if node.name not in (save, restore)]
    # the functions of the saver, and all others, those among them that nobody calls
    of_save, of_restore = _called(saves, functions), _called(restores, functions)
    called = _called(others, functions) | (set(functions) - of_save - of_restore)
    found = _operations([others, saves, restores, *(functions[name] for name in called)], ALLOWED | allowed)
    found |= _operations([functions[name] for name in of_restore], RESTORE | allowed)
    found |= _operations([functions[name] for name in of_save], SAVE | allowed)
    failures = [
        f"operation {name} is not on the list of what networks compute with: nothing was run. If the export is your "
        "own, allow it by its name."
        for name in sorted(found)
    ]
    if any(name in ALLOWED | RESTORE | SAVE for name in functions):
        failures.append("a function has the name of an operation: nothing was run.")
    inputs = {entry.lstrip("^").partition(":")[0] for node in graph.node for entry in node.input}
    for signature in meta_graph.signature_def.values():
        inputs |= {info.name.partition(":")[0] for info in (*signature.inputs.values(), *signature.outputs.values())}
    if inputs & {save, restore}:
        failures.append("a request would save or restore the variables: nothing was run.")
    objects = meta_graph.object_graph_def.nodes
    kinds = {node.WhichOneof("kind") for node in objects} - OBJECTS
    if kinds or any(node.saveable_objects or node.registered_saver for node in objects):
        found = ", ".join(sorted(map(str, kinds))) or "savers of their own"
        failures.append(f"objects that are made when the model is loaded ({found}): nothing was run.")
    return failures


def _operations(lists, allowed):
    """Names of the operations in lists of nodes that are not allowed."""
    return {node.op for nodes in lists for node in nodes} - allowed


def _called(nodes, functions):
    """Names of the functions that nodes call, directly or not."""
    found, waiting = set(), list(nodes)
    while waiting:
        for value in waiting.pop().attr.values():
            for name in {value.func.name, *(function.name for function in value.list.func)} & set(functions) - found:
                found.add(name)
                waiting += functions[name]
    return found
