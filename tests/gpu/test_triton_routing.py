"""The Triton kernels compute what the oracle computes, on a GPU where there is one, else in Triton's interpreter."""

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from layers_for_triton import LAYERS, layers, small, variant
from routed_layers import by_oracle, draw_arrays, relative

torch = pytest.importorskip("torch")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# Kernels are bound to the interpreter where they are defined, so this must come before anybody else imports Triton.
with pytest.MonkeyPatch.context() as environment:
    environment.setenv("TRITON_INTERPRET", "0" if DEVICE == "cuda" else "1")
    environment.setenv("TRITON_DEFAULT_FP_FUSION", "1")
    language = pytest.importorskip("triton.language")
    from triton.runtime import interpreter

    from capsbench_fused.task import Arrays, uncovered_on_gpu
    from capsbench_torch import fused_cuda, triton_layer

STEP = 1e-30
NAMES = "poses activations transforms beta_u beta_a".split()
pytestmark = [
    pytest.mark.torch,
    pytest.mark.skipif(
        DEVICE == "cpu" and not isinstance(language.zeros, interpreter.InterpretedFunction),
        reason="somebody imported Triton without its interpreter before",
    ),
    # Triton 3.6 reads numbers in a way that NumPy gives up.
    pytest.mark.filterwarnings("ignore:Conversion of an array"),
]


@pytest.fixture(autouse=True, scope="module")
def _impatient():
    """The interpreter without what takes most of its time: looking for integers that overflow, binding names anew."""
    if DEVICE == "cuda":
        yield
        return
    bound = set()

    def call(self, *args, **kwargs):
        if self.fn not in bound:
            bound.add(self.fn)
            interpreter._patch_lang(self.fn)
        return self.rewrite()(*args, **kwargs)

    options = interpreter.interpreter_builder.options
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        patch.setattr(interpreter.InterpretedFunction, "__call__", call)
        object.__setattr__(options, "sanitize_overflow", False)
        yield
        object.__setattr__(options, "sanitize_overflow", True)


def run(layer, inputs, *, keep=True, seed=1):
    """Outputs, gradients of the inputs by name from random ones upstream, and those."""
    task, tensors = layer.task(), [torch.tensor(inputs[name], device=DEVICE) for name in NAMES]
    parents, logits, saved = fused_cuda.forward(task, *tensors, keep)
    if not keep:
        assert saved.numel() == 0
        return (_array(parents), _array(logits)), None, None
    assert saved.numel() == fused_cuda.saved_numbers(task, len(tensors[0]))
    generator = np.random.default_rng(seed)
    upstream = [generator.normal(size=out.shape).astype(inputs["poses"].dtype) for out in (parents, logits)]
    gradients = fused_cuda.backward(task, *tensors, saved, *(torch.tensor(each, device=DEVICE) for each in upstream))
    for tensor, gradient in zip(tensors, gradients, strict=True):
        assert gradient.shape == tensor.shape
    return (
        (_array(parents), _array(logits)),
        dict(zip(NAMES, map(_array, gradients), strict=True)),
        upstream,
    )


def _array(tensor):
    return tensor.cpu().numpy()


def draw(layer, **options):
    """Random inputs by name."""
    arrays = draw_arrays(layer, **options)
    return {name: getattr(arrays, name) for name in NAMES}


def oracle(layer, inputs):
    """What the oracle makes of inputs; they may be complex."""
    return by_oracle(layer, Arrays(**inputs))


def check(layer, inputs, limit):
    """Values agree with the oracle's to `limit`, gradients with its slopes along a random direction in each input."""
    outputs, gradients, upstream = run(layer, inputs)
    exact = {name: array.astype(np.float64) for name, array in inputs.items()}
    expected = oracle(layer, exact)
    assert relative(outputs[0], expected.poses) <= limit
    assert relative(outputs[1], expected.logits) <= limit
    for number, (name, gradient) in enumerate(gradients.items()):
        direction = np.random.default_rng(number).choice([-1.0, 1.0], exact[name].shape)
        moved = oracle(layer, {**exact, name: exact[name] + 1j * STEP * direction})
        slope = sum((out.imag * up).sum() for out, up in zip((moved.poses, moved.logits), upstream, strict=True)) / STEP
        norm = max(float(np.linalg.norm(gradient)), 1e-30)
        assert abs(float((gradient * direction).sum(dtype=np.float64)) - slope) <= 3 * limit * norm, name


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS.keys())
def test_layers_equal_the_oracle(layer):
    """Every kind of layer agrees with the oracle in float64 to 1e-10: poses, logits, the gradient of each input."""
    check(layer, draw(layer), 1e-10)


@pytest.mark.parametrize("name", ["conv", "appended", "everywhere"])
def test_children_may_be_split(name, monkeypatch):
    """Where several programs share a position's children, or a child's positions, the results are the same."""
    monkeypatch.setattr(triton_layer, "_FEWEST", 3)
    check(LAYERS[name], draw(LAYERS[name]), 1e-10)


def test_tiles_need_not_be_full(monkeypatch):
    """Positions that are not a multiple of a tile's rows are routed like others, over several tiles."""
    monkeypatch.setattr(triton_layer, "_INTERPRETED", 1)
    layer = small(side=2, kernel=1, types=1, parents=8, routing=variant(iterations=2))
    check(layer, draw(layer, images=3), 1e-10)


@settings(max_examples=5, derandomize=True, suppress_health_check=list(HealthCheck))
@given(layers(), st.integers(0, 99))
@example(small(side=1, kernel=1, types=3, parents=2), 5)
def test_any_layer_equals_the_oracle(layer, seed):
    """Any layer agrees with the oracle in float64 to 1e-10."""
    check(layer, draw(layer, images=1, seed=seed), 1e-10)


@pytest.mark.parametrize("name", ["conv", "joint", "appended"])
def test_single_precision(name):
    """In float32 values and gradients agree with the oracle to about 1e-5."""
    check(LAYERS[name], draw(LAYERS[name], dtype=np.float32), 1e-5)


@pytest.mark.parametrize("activation", [0.0, 1.0])
def test_activations_of_zero_and_one(activation):
    """Children that are all off, or all fully on, are routed as the oracle routes them."""
    layer = small(routing=variant(iterations=2))
    inputs = draw(layer)
    inputs["activations"][:] = activation
    check(layer, inputs, 1e-10)


@pytest.mark.parametrize("fewest", [16, 4])
def test_a_mean_that_strays_keeps_its_variance(fewest, monkeypatch):
    """Where a parent's mean jumps a thousand deviations in one iteration, its float32 variance keeps its digits."""
    monkeypatch.setattr(triton_layer, "_FEWEST", fewest)  # of twelve children
    # Poses are the identity, so transforms are votes. Those for the first parent agree to a thousandth, but for one
    # that is far off and goes to the second parent once couplings are found; then the first one's mean jumps.
    layer = small(side=1, kernel=1, types=12, parents=2, routing=variant(iterations=2, variance_floor=1e-9))
    inputs = draw(layer, images=1, dtype=np.float32)
    inputs["poses"][:] = np.eye(4).ravel()
    inputs["activations"][:] = 0.5
    inputs["transforms"][:, 0] = 1.0 + 2e-3 * inputs["transforms"][:, 0]
    inputs["transforms"][-1, 0] = 11.0
    inputs["transforms"][:, 1] *= 8.0
    (_, logits), _, _ = run(layer, inputs, keep=False)
    expected = oracle(layer, {name: array.astype(np.float64) for name, array in inputs.items()})
    assert relative(logits, expected.logits) <= 1e-5


@pytest.mark.filterwarnings("ignore:All-NaN slice")
def test_a_nan_stays_in_its_image():
    """A NaN in the input reaches the outputs of its image, and of no other."""
    layer = small(routing=variant(iterations=2))
    inputs = draw(layer)
    inputs["poses"][1, 0, 0, 0] = np.nan
    outputs, _, _ = run(layer, inputs, keep=False)
    for out in outputs:
        assert np.isfinite(out[0]).all()
        assert np.isnan(out[1]).any()


def test_runs_repeat_to_the_bit(monkeypatch):
    """Two runs give the same bits, and so does a forward pass that keeps nothing for a backward one."""
    monkeypatch.setattr(triton_layer, "_FEWEST", 3)
    layer = LAYERS["conv"]
    inputs = draw(layer, dtype=np.float32)
    (outputs, gradients, _), (again, gradients_again, _) = run(layer, inputs), run(layer, inputs)
    evaluated, _, _ = run(layer, inputs, keep=False)
    for first, second, third in zip(outputs, again, evaluated, strict=True):
        assert first.tobytes() == second.tobytes() == third.tobytes()
    for name in NAMES:
        assert gradients[name].tobytes() == gradients_again[name].tobytes()


def test_what_is_not_covered_is_said():
    """A layer with more parents than fit is refused with a sentence that says so."""
    task = small(parents=129).task()
    assert "129" in uncovered_on_gpu(task)
    assert uncovered_on_gpu(small(parents=128).task()) is None
    with pytest.raises(ValueError, match="129"):
        fused_cuda.forward(task, *map(torch.tensor, draw(small(parents=129)).values()), False)
