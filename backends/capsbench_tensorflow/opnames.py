"""One name for what TensorFlow calls by several: the op names that align the frameworks."""

import re

from capsbench.measure.optable import VIEW

# What a function compiled by XLA is called here: the one event that holds all of its ops.
COMPILED = "XlaFunction"
# Routing by a kernel of our own, which TensorFlow calls through Python, forward and backward.
KERNEL = "PyFuncStateless"

_CANONICAL = {
    VIEW: "Reshape Squeeze ExpandDims Identity IdentityN Const ReadVariableOp VarHandleOp Shape ShapeN StopGradient "
    "PreventGradient NoOp _Arg _Retval _DeviceArg _DeviceRetval BroadcastGradientArgs "
    "DestroyTemporaryVariable",
    "Conv2D": "Conv2D Conv2DWithBias DepthwiseConv2dNative",
    "Conv2DBackprop": "Conv2DBackpropInput Conv2DBackpropFilter Conv2DBackpropFilterWithBias "
    "DepthwiseConv2dNativeBackpropInput DepthwiseConv2dNativeBackpropFilter",
    "MaxPool": "MaxPool",
    "MaxPoolGrad": "MaxPoolGrad",
    "AveragePool": "AvgPool",
    "AveragePoolGrad": "AvgPoolGrad",
    "BatchMatMul": "BatchMatMul Einsum",
    "MatMul": "MatMul",
    "Mul": "Mul MulNoNan",
    "Sub": "Sub SquaredDifference",
    "Add": "Add AddN AssignAdd AssignAddVariableOp AccumulateN BiasAdd TemporaryVariable",
    "RealDiv": "RealDiv Div DivNoNan Xdivy",
    "Neg": "Neg",
    "Sum": "Sum BiasAddGrad",
    "Mean": "Mean",
    "Max": "Max ArgMax Maximum",
    "Min": "Min ArgMin Minimum",
    "Softmax": "Softmax",
    "LogSoftmax": "LogSoftmax",
    "Exp": "Exp Expm1",
    "Log": "Log Log1p",
    "Digamma": "Digamma",
    "Polygamma": "Polygamma Zeta",
    "Sqrt": "Sqrt Rsqrt",
    "SqrtGrad": "SqrtGrad RsqrtGrad",
    "Reciprocal": "Reciprocal Inv",
    "ReciprocalGrad": "ReciprocalGrad InvGrad",
    "Square": "Square Pow",
    "Sigmoid": "Sigmoid Softplus",
    "SigmoidGrad": "SigmoidGrad SoftplusGrad",
    "Relu": "Relu",
    "ReluGrad": "ReluGrad",
    "Tile": "Tile BroadcastTo",
    "Copy": "Transpose Snapshot DeepCopy Assign AssignVariableOp",
    "Gather": "Gather GatherNd ResourceGather",
    "Scatter": "ScatterNd TensorScatterAdd TensorScatterUpdate UnsortedSegmentSum UnsortedSegmentMax InplaceAdd",
    "Concat": "Concat Pack",
    "StridedSlice": "StridedSlice Slice Split SplitV Unpack",
    "Pad": "Pad MirrorPad StridedSliceGrad",
    "Fill": "Fill ZerosLike OnesLike Range",
    "Select": "Select Where Equal NotEqual Greater GreaterEqual Less LessEqual LogicalAnd LogicalOr IsFinite",
    "Cast": "Cast",
    "OneHot": "OneHot",
    "CrossEntropy": "SparseSoftmaxCrossEntropyWithLogits SoftmaxCrossEntropyWithLogits",
    "Norm": "L2Loss",
    "Adam": "ResourceApplyAdam",
    "SGD": "ResourceApplyMomentum ResourceApplyGradientDescent",
    "EMRouting": KERNEL,
    "Compiled": COMPILED,
    # No ops: what is done between them (see `profiling`).
    "Dispatch": "executor tf.function python",
}
_NAMES = {native: canonical for canonical, natives in _CANONICAL.items() for native in natives.split()}


def canonical(native: str, *, backward: bool = False) -> str:
    """The name that aligns the frameworks, for a TensorFlow op type; `backward` tells a kernel's gradient from it."""
    if native == KERNEL and backward:
        return "EMRoutingGrad"
    bare = re.sub(r"^_(MklNative|Mkl)?(Fused)?|V\d$", "", native)
    return _NAMES.get(native) or _NAMES.get(bare) or f"Other:{native}"
