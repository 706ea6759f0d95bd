"""A SIMD value type for Numba: LANES floats that stand side by side in vector registers.

Numba's own loops are vectorised only where LLVM can prove that nothing aliases and nothing is reordered, and a call of
`math.exp` keeps a loop from it altogether; kernels written that way ran at an eighth of the speed. Here a vector is a
value like a float, and arithmetic on it becomes vector instructions whatever stands around it. Products and sums may be
contracted to fused ones; nothing else is relaxed, so NaN and infinity mean what they always do.
"""

import operator
import platform
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.datamodel import models
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, register_model

from capsbench_fused.lanes import lanes

_FLAGS = ("contract", "nsz")
_IS_X86 = platform.machine().lower() in {"x86_64", "amd64", "i686"}
_FLUSH_TO_ZERO = 0x8040  # of MXCSR: results (bit 15) and operands (bit 6)
_I32, _I64 = ir.IntType(32), ir.IntType(64)


LANES = lanes()


class Vector(types.Type):
    """LANES floats of one width."""

    def __init__(self, dtype: types.Float) -> None:
        self.dtype = dtype
        super().__init__(name=f"Vector({dtype} x {LANES})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Vector) -> None:  # noqa: ANN401 - Numba's own
        super().__init__(manager, kind, _llvm(kind.dtype))


def _float(dtype: types.Float) -> ir.Type:
    return ir.DoubleType() if dtype == types.float64 else ir.FloatType()


def _llvm(dtype: types.Float) -> ir.VectorType:
    return ir.VectorType(_float(dtype), LANES)


def _constant(kind: ir.VectorType, value: float) -> ir.Constant:
    return ir.Constant(kind, [value] * LANES)


def _define_operator(symbol: Callable[..., object], instruction: str) -> None:
    """Vector arithmetic for one of Python's operators."""

    @infer_global(symbol)
    class _Template(AbstractTemplate):
        def generic(self, arguments: Any, keywords: Any) -> Any:  # noqa: ANN401, ARG002 - Numba's own
            if all(isinstance(each, Vector) and each == arguments[0] for each in arguments):
                return signature(arguments[0], *arguments)
            return None

    def lower(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:  # noqa: ANN401, ARG001 - Numba's own
        return getattr(builder, instruction)(*arguments, flags=_FLAGS)

    arity = 1 if symbol is operator.neg else 2
    lower_builtin(symbol, *[Vector] * arity)(lower)


_define_operator(operator.add, "fadd")
_define_operator(operator.iadd, "fadd")
_define_operator(operator.sub, "fsub")
_define_operator(operator.isub, "fsub")
_define_operator(operator.mul, "fmul")
_define_operator(operator.truediv, "fdiv")
_define_operator(operator.neg, "fneg")


@intrinsic
def start(typing: Any, array: Any) -> Any:  # noqa: ANN401, ARG001 - Numba's own
    """Pointer to the first element of a flat array, which must outlive it; a pointer costs the compiler much less."""

    def code(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:  # noqa: ANN401
        return context.make_array(sig.args[0])(context, builder, arguments[0]).data

    return types.CPointer(array.dtype)(array), code


@intrinsic
def offset(typing: Any, place: Any, count: Any) -> Any:  # noqa: ANN401, ARG001 - Numba's own
    """Pointer to the element that stands `count` further on."""

    def code(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:  # noqa: ANN401, ARG001
        return builder.gep(arguments[0], [arguments[1]])

    return place(place, types.intp), code


def _vector_at(builder: Any, place: Any, index: Any) -> Any:  # noqa: ANN401 - LLVM values
    return builder.bitcast(builder.gep(place, [index]), ir.VectorType(place.type.pointee, LANES).as_pointer())


def _spread(builder: Any, scalar: Any) -> Any:  # noqa: ANN401 - LLVM values
    kind = ir.VectorType(scalar.type, LANES)
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, _I32(0))
    return builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(_I32, LANES), [0] * LANES))


def _call(builder: Any, name: str, *arguments: Any) -> Any:  # noqa: ANN401 - LLVM values
    """A call of one of LLVM's own functions on vectors of one kind."""
    kind = arguments[0].type
    suffix = f"v{LANES}f{64 if kind.element == ir.DoubleType() else 32}"
    declared = ir.FunctionType(kind, [kind] * len(arguments))
    function = builder.module.declare_intrinsic(f"llvm.{name}.{suffix}", fnty=declared)
    return builder.call(function, arguments)


@intrinsic
def load(typing: Any, place: Any, index: Any) -> Any:  # noqa: ANN401, ARG001 - Numba's own
    """The LANES elements from `place` + `index` on."""

    def code(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:  # noqa: ANN401, ARG001
        return builder.load(_vector_at(builder, *arguments), align=sig.args[0].dtype.bitwidth // 8)

    return Vector(place.dtype)(place, types.intp), code


@intrinsic
def store(typing: Any, place: Any, index: Any, value: Any) -> Any:  # noqa: ANN401, ARG001 - Numba's own
    """Put a vector at `place` + `index`."""

    def code(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:  # noqa: ANN401
        builder.store(arguments[2], _vector_at(builder, *arguments[:2]), align=sig.args[0].dtype.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(place, types.intp, value), code


@intrinsic
def splat_at(typing: Any, place: Any, index: Any) -> Any:  # noqa: ANN401, ARG001 - Numba's own
    """The element at `place` + `index` in all lanes."""

    def code(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:  # noqa: ANN401, ARG001
        return _spread(builder, builder.load(builder.gep(arguments[0], [arguments[1]])))

    return Vector(place.dtype)(place, types.intp), code


@intrinsic
def splat(typing: Any, place: Any, value: Any) -> Any:  # noqa: ANN401, ARG001 - Numba's own
    """A number in all lanes, as wide as what `place` points to."""

    def code(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:  # noqa: ANN401, ARG001
        return _spread(builder, arguments[1])

    return Vector(place.dtype)(place, place.dtype), code


@intrinsic
def largest(typing: Any, left: Any, right: Any) -> Any:  # noqa: ANN401, ARG001 - Numba's own
    """The larger of two vectors, lane by lane; of a NaN and a number either."""

    def code(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:  # noqa: ANN401, ARG001
        return builder.select(builder.fcmp_ordered(">", *arguments), *arguments)

    return left(left, right), code


@intrinsic
def total_of(typing: Any, value: Any) -> Any:  # noqa: ANN401, ARG001 - Numba's own
    """The sum over the lanes."""
    return value.dtype(value), _across(lambda builder, a, b: builder.fadd(a, b))


@intrinsic
def largest_of(typing: Any, value: Any) -> Any:  # noqa: ANN401, ARG001 - Numba's own
    """The largest lane."""
    return value.dtype(value), _across(lambda builder, a, b: builder.select(builder.fcmp_ordered(">", a, b), a, b))


def _across(combine: Callable[..., Any]) -> Callable[..., Any]:
    """Combine the lanes by halves, always in the same order."""

    def code(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:  # noqa: ANN401, ARG001
        value, width = arguments[0], LANES
        while width > 1:
            width //= 2
            halves = [ir.Constant(ir.VectorType(_I32, width), list(range(s, s + width))) for s in (0, width)]
            value = combine(builder, *(builder.shuffle_vector(value, value, half) for half in halves))
        return builder.extract_element(value, _I32(0))

    return code


@intrinsic
def exp(typing: Any, value: Any) -> Any:  # noqa: ANN401, ARG001 - Numba's own
    """E to the power of every lane, none of which may be positive; 0 where float32 would be denormal."""

    def code(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:  # noqa: ANN401, ARG001
        if sig.args[0].dtype == types.float64:
            return _call(builder, "exp", arguments[0])
        return _exp32(builder, arguments[0])

    return value(value), code


@intrinsic
def log(typing: Any, value: Any) -> Any:  # noqa: ANN401, ARG001 - Numba's own
    """Natural logarithm of every lane; the lanes must not be negative."""

    def code(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:  # noqa: ANN401, ARG001
        if sig.args[0].dtype == types.float64:
            return _call(builder, "log", arguments[0])
        return _log32(builder, arguments[0])

    return value(value), code


def _polynomial(builder: Any, x: Any, *coefficients: float) -> Any:  # noqa: ANN401 - LLVM values
    """Horner's scheme, the highest power first."""
    value = _constant(x.type, coefficients[0])
    for each in coefficients[1:]:
        value = builder.fadd(builder.fmul(value, x, flags=_FLAGS), _constant(x.type, each), flags=_FLAGS)
    return value


def _exp32(builder: Any, x: Any) -> Any:  # noqa: ANN401 - LLVM values
    """2^n (1 + r + r^2 p(r)) with x = n ln 2 + r, |r| <= ln 2 / 2: the coefficients of Cephes' expf."""
    kind, whole = x.type, ir.VectorType(_I32, LANES)
    lowest = _constant(kind, -87.33)
    vanishes = builder.fcmp_ordered("<", x, lowest)
    x = builder.select(vanishes, lowest, x)
    n = _call(builder, "rint", builder.fmul(x, _constant(kind, 1.44269504088896341)))
    r = x
    for part in (-0.693359375, 2.12194440e-4):  # of -ln 2; n times the first is exact
        r = builder.fadd(builder.fmul(n, _constant(kind, part), flags=_FLAGS), r, flags=_FLAGS)
    p = _polynomial(
        builder, r, 1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 0.5
    )
    value = builder.fadd(builder.fmul(builder.fmul(r, r), p, flags=_FLAGS), r, flags=_FLAGS)
    value = builder.fadd(value, _constant(kind, 1.0))
    exponent = builder.add(builder.fptosi(n, whole), ir.Constant(whole, [127] * LANES))
    power = builder.bitcast(builder.shl(exponent, ir.Constant(whole, [23] * LANES)), kind)
    return builder.select(vanishes, _constant(kind, 0.0), builder.fmul(value, power))


def _log32(builder: Any, x: Any) -> Any:  # noqa: ANN401 - LLVM values
    """N ln 2 + log(1 + m) with x = 2^n (1 + m), sqrt(1/2) <= 1 + m < sqrt(2): the coefficients of Cephes' logf."""
    kind, whole = x.type, ir.VectorType(_I32, LANES)
    bits = builder.sub(builder.bitcast(x, whole), ir.Constant(whole, [0x3F3504F3] * LANES))  # of sqrt(1/2)
    n = builder.sitofp(builder.ashr(bits, ir.Constant(whole, [23] * LANES)), kind)
    fraction = builder.add(
        builder.and_(bits, ir.Constant(whole, [0x7FFFFF] * LANES)), ir.Constant(whole, [0x3F3504F3] * LANES)
    )
    m = builder.fsub(builder.bitcast(fraction, kind), _constant(kind, 1.0))
    p = _polynomial(
        builder,
        m,
        7.0376836292e-2,
        -1.1514610310e-1,
        1.1676998740e-1,
        -1.2420140846e-1,
        1.4249322787e-1,
        -1.6668057665e-1,
        2.0000714765e-1,
        -2.4999993993e-1,
        3.3333331174e-1,
    )
    square = builder.fmul(m, m)
    value = builder.fmul(builder.fmul(m, square), p)
    for factor, part in ((n, -2.12194440e-4), (square, -0.5)):
        value = builder.fadd(builder.fmul(factor, _constant(kind, part), flags=_FLAGS), value, flags=_FLAGS)
    value = builder.fadd(value, m)
    value = builder.fadd(builder.fmul(n, _constant(kind, 0.693359375), flags=_FLAGS), value, flags=_FLAGS)
    value = builder.select(builder.fcmp_ordered(">", x, _constant(kind, 0.0)), value, _constant(kind, float("-inf")))
    return builder.select(
        builder.fcmp_unordered("<", x, _constant(kind, float("inf"))),
        builder.select(builder.fcmp_unordered("uno", x, x), x, value),
        x,
    )


@intrinsic
def flush_denormals(typing: Any) -> Any:  # noqa: ANN401, ARG001 - Numba's own
    """Have this thread round denormal numbers to 0, which is much faster; what must be handed to `restore` later.

    Couplings of children that are far from a parent are often denormal. Nothing happens but on x86.
    """

    def code(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:  # noqa: ANN401, ARG001
        if not _IS_X86:
            return _I32(0)
        slot = builder.alloca(_I32)
        _mxcsr(builder, "stmxcsr", slot)
        before = builder.load(slot)
        builder.store(builder.or_(before, _I32(_FLUSH_TO_ZERO)), slot)
        _mxcsr(builder, "ldmxcsr", slot)
        return before

    return types.int32(), code


@intrinsic
def restore(typing: Any, before: Any) -> Any:  # noqa: ANN401, ARG001 - Numba's own
    """Undo `flush_denormals`."""

    def code(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:  # noqa: ANN401, ARG001
        if _IS_X86:
            slot = builder.alloca(_I32)
            builder.store(arguments[0], slot)
            _mxcsr(builder, "ldmxcsr", slot)
        return context.get_dummy_value()

    return types.void(types.int32), code


def _mxcsr(builder: Any, instruction: str, slot: Any) -> None:  # noqa: ANN401 - LLVM values
    byte = ir.IntType(8).as_pointer()
    function = builder.module.declare_intrinsic(
        f"llvm.x86.sse.{instruction}", fnty=ir.FunctionType(ir.VoidType(), [byte])
    )
    builder.call(function, [builder.bitcast(slot, byte)])
