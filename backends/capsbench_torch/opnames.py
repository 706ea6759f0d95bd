"""What PyTorch's ops are called here: the names that align the frameworks.

The profiler nests ops: `aten::matmul` calls `aten::expand`, `aten::reshape` and `aten::bmm`, `aten::mean` calls
`aten::sum`. An op holds all that it calls and counts as one call, but for the few below that only hand their work on;
what these call are spans of their own.
"""

from capsbench.measure.optable import VIEW

DISPATCH = "Dispatch"
COMPILED = "Compiled"

_CANONICAL = {
    VIEW: "view reshape _reshape_alias _unsafe_view permute transpose t unsqueeze squeeze as_strided expand slice "
    "select narrow alias detach unbind split flatten resolve_conj resolve_neg lift_fresh result_type item "
    "_local_scalar_dense is_nonzero set_ expand_as view_as movedim swapaxes numpy_T unfold as_strided_ squeeze_ "
    "unsqueeze_ detach_ broadcast_tensors broadcast_to lift chunk split_with_sizes _nnpack_available",
    "Conv2D": "conv2d convolution _convolution mkldnn_convolution _slow_conv2d_forward thnn_conv2d cudnn_convolution "
    "convolution_overrideable",
    "Conv2DBackprop": "convolution_backward _slow_conv2d_backward mkldnn_convolution_backward",
    "BatchMatMul": "matmul einsum bmm baddbmm baddbmm_",
    "MatMul": "linear mm addmm addmm_",
    "Mul": "mul mul_ addcmul addcmul_ _foreach_mul_",
    "Sub": "sub sub_ rsub mse_loss",
    "Add": "add add_",
    "RealDiv": "div div_ addcdiv addcdiv_",
    "Neg": "neg neg_",
    "Sum": "sum",
    "Mean": "mean",
    "Max": "max amax argmax aminmax clamp",
    "Norm": "linalg_vector_norm _foreach_norm",
    "Softmax": "softmax _softmax",
    "SoftmaxGrad": "_softmax_backward_data",
    "LogSoftmax": "log_softmax _log_softmax",
    "LogSoftmaxGrad": "_log_softmax_backward_data",
    "Exp": "exp exp_ expm1 expm1_",
    "Log": "log log_",
    "LogSumExp": "logsumexp",
    "Digamma": "digamma",
    "Polygamma": "polygamma special_zeta",
    "Sqrt": "sqrt sqrt_ rsqrt rsqrt_",
    "Reciprocal": "reciprocal reciprocal_",
    "Square": "square square_ pow pow_",
    "Sigmoid": "sigmoid sigmoid_ log_sigmoid log_sigmoid_forward",
    "SigmoidGrad": "sigmoid_backward log_sigmoid_backward",
    "Relu": "relu relu_ clamp_min clamp_min_",
    "ReluGrad": "threshold_backward",
    "Tile": "repeat tile repeat_interleave",
    "Copy": "contiguous to _to_copy clone copy_",
    "Gather": "gather index index_select take_along_dim",
    "Scatter": "scatter scatter_ scatter_add scatter_add_ scatter_reduce scatter_reduce_ index_add index_add_ "
    "_index_put_impl_ index_put index_put_ gather_backward index_select_backward",
    "Concat": "cat stack",
    "Pad": "pad constant_pad_nd slice_backward select_backward",
    "Fill": "fill_ zero_ zeros zeros_like ones ones_like full full_like new_zeros new_ones new_full arange eye "
    "scalar_tensor empty empty_like empty_strided new_empty new_empty_strided resize_",
    "Select": "where masked_fill masked_fill_ gt ge lt eq ne le logical_and _assert_async",
    "OneHot": "one_hot",
    "CrossEntropy": "cross_entropy_loss nll_loss nll_loss_nd nll_loss_forward",
    "CrossEntropyGrad": "nll_loss_backward",
    "SquaredDiffGrad": "mse_loss_backward",
    "MaxPool": "max_pool2d max_pool2d_with_indices mkldnn_max_pool2d",
    "MaxPoolGrad": "max_pool2d_with_indices_backward mkldnn_max_pool2d_backward",
    "AveragePool": "avg_pool2d",
    "AveragePoolGrad": "avg_pool2d_backward",
    "Moments": "var_mean var std_mean",
    "Lerp": "lerp lerp_",
    "Adam": "_fused_adam_ _fused_adamw_ _foreach_add_",
    "SGD": "_fused_sgd_",
    "EMRouting": "capsbench::em_route",
    "EMRoutingGrad": "capsbench::em_route_backward",
}
_NAMES = {native: name for name, natives in _CANONICAL.items() for native in natives.split()}
_HAND_ON = frozenset(
    "conv2d convolution _convolution matmul einsum linear reshape flatten contiguous to cross_entropy_loss".split()
)
_SCOPES = frozenset(("phase", "layer", "iteration"))
_NODE = "autograd::engine::evaluate_function: "
_COMPILED_GRAPH = "## Call CompiledFxGraph"


def shortened(event: str) -> str:
    """The name of one of the profiler's events, without what differs from one process to the next."""
    if event.startswith(_COMPILED_GRAPH):
        return "CompiledFxGraph"
    return event.removeprefix(_NODE).removeprefix("torch::autograd::").partition(": ")[0]


def canonical(native: str) -> str:
    """The name that aligns the frameworks, for any (shortened) name: `aten::bmm`, `layer::conv1`, `MulBackward0`."""
    if is_op(native):
        return _NAMES.get(native.removeprefix("aten::"), f"Other:{native}")
    return COMPILED if native.startswith("Compiled") else DISPATCH


def is_op(native: str) -> bool:
    """Whether a (shortened) name is that of an op, not that of a scope, an autograd node or a compiled graph."""
    library, colons, _ = native.partition("::")
    return bool(colons) and library not in _SCOPES


def holds_all(native: str) -> bool:
    """Whether it holds what it calls."""
    return is_op(native) and native.removeprefix("aten::") not in _HAND_ON


def is_node(event: str) -> bool:
    """Whether an event is autograd's work at one node of the backward pass."""
    return event.startswith(_NODE)
