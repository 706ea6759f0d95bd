"""Routing as one operator: PyTorch takes it for one of its own."""

import numpy as np
import pytest
from networks_for_torch import STEP, pair, realize

torch = pytest.importorskip("torch")

from capsbench.backend import Setting  # noqa: E402 - after the check that torch is there
from capsbench.network import zoo  # noqa: E402 - likewise
from capsbench.network.parameters import draw_parameters  # noqa: E402 - likewise
from capsbench.network.routing import EMRouting  # noqa: E402 - likewise
from capsbench.network.shapes import bind  # noqa: E402 - likewise
from capsbench_fused import engine as engines  # noqa: E402 - likewise
from capsbench_fused.task import Task  # noqa: E402 - likewise
from capsbench_torch.backend import BACKEND  # noqa: E402 - likewise
from capsbench_torch.fused import Fused, em_route, route  # noqa: E402 - likewise

pytestmark = pytest.mark.torch

TASK = Task(
    below=4,
    types=2,
    looks=((0, 1), (2, 3)),
    parents=3,
    shared=False,
    elements=16,
    coordinates=(),
    coordinate_elements=(16, 17),
    temperatures=(0.1, 0.2, 0.3),
    cost_factor=1.0,
    variance_floor=1e-2,
    epsilon=1e-8,
    softmax=False,
    by_mass=False,
    everywhere=False,
    starts_everywhere=False,
)


def arguments(engine, keep=True, batch=2):
    """Inputs of the operator that want gradients."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((batch, 4, 2, 16), (batch, 4, 2), (4, 3, 4, 4), (3,), (3,))
    drawn = [torch.rand(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]
    return (*drawn, TASK.text(), engine, 2, engines.kernel(engine).saved_numbers(TASK, 1) if keep else 0)


@pytest.mark.parametrize("engine", ["fused", "chunked"])
def test_gradcheck(engine):
    """The gradients are those of the values, for every input and both outputs."""
    *inputs, task, _, threads, kept = arguments(engine, batch=1)

    def route(*tensors):
        return em_route(*tensors, task, engine, threads, kept)[:2]

    assert torch.autograd.gradcheck(route, inputs, atol=1e-6)


def test_only_one_output_may_be_used():
    """A loss of the logits alone, or of the poses alone, has the gradient of that part."""
    values = arguments("fused")
    both = torch.autograd.grad(sum(out.sum() for out in em_route(*values)[:2]), values[:5])
    parts = [torch.autograd.grad(em_route(*values)[which].sum(), values[:5]) for which in (0, 1)]
    for whole, poses, logits in zip(both, *parts, strict=True):
        torch.testing.assert_close(whole, poses + logits)


@pytest.mark.filterwarnings("ignore")  # PyTorch warns of its own ways
def test_the_operator_is_registered_as_pytorch_asks():
    """Schema, shapes without values, and autograd's registration pass PyTorch's own examination."""
    torch.library.opcheck(em_route, arguments("fused"), test_utils=("test_schema", "test_faketensor"))
    torch.library.opcheck(em_route, arguments("fused"), test_utils="test_autograd_registration")


@pytest.mark.filterwarnings("ignore")  # PyTorch's compiler stumbles over warnings of PyTorch's own
def test_the_compiler_does_not_break_on_it():
    """A function around the operator compiles as one graph, and gives the same values and gradients."""
    *inputs, task, engine, threads, kept = arguments("fused")

    def loss(*tensors):
        poses, logits, _ = em_route(*tensors, task, engine, threads, kept)
        return (poses * poses).sum() + logits.sigmoid().sum()

    compiled = torch.compile(loss, fullgraph=True)
    expected, got = loss(*inputs), compiled(*inputs)
    torch.testing.assert_close(got, expected)
    for mine, theirs in zip(torch.autograd.grad(got, inputs), torch.autograd.grad(expected, inputs), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_the_compiler_takes_routing_whole_for_any_batch():
    """What surrounds the operator compiles as one graph as well, and one graph serves batches of every size."""
    *inputs, task, engine, threads, kept = arguments("fused")
    how, variant = Fused(task, 16, engine, threads, kept), EMRouting()

    def loss(poses, activations, transforms, beta_u, beta_a):
        own = {"transforms": transforms, "beta_u": beta_u, "beta_a": beta_a}
        parents, logits = route(how, variant, poses, activations, own)
        return (parents * parents).sum() + logits.sigmoid().sum()

    compiled = torch.compile(loss, fullgraph=True, dynamic=True)
    for batch in (2, 3, 5):
        poses = inputs[0].detach().reshape(2, 2, 2, 2, 16)[:1].repeat(batch, 1, 1, 1, 1).requires_grad_()
        activations = inputs[1].detach().reshape(2, 2, 2, 2)[:1].repeat(batch, 1, 1, 1).requires_grad_()
        values = poses, activations, *inputs[2:]
        expected, got = loss(*values), compiled(*values)
        torch.testing.assert_close(got, expected)
        for mine, theirs in zip(torch.autograd.grad(got, values), torch.autograd.grad(expected, values), strict=True):
            torch.testing.assert_close(mine, theirs)


def test_nothing_is_kept_for_an_evaluation():
    """Without a gradient to come, the operator keeps nothing, and an evaluation asks for less memory than the votes."""
    assert em_route(*arguments("fused", keep=False))[2].numel() == 0
    ours, placed, bound = realize("em-68k", "fused", batch=4)
    trace = ours.profile(placed, None)
    votes = max(layer.routing.votes for layer in bound.layers if layer.routing is not None)
    assert max(event.size or 0 for event in trace.heap) < 4 * 4 * votes


@pytest.mark.parametrize(("name", "seeds"), [("em-tiny", 4), pytest.param("em-68k", 2, marks=pytest.mark.exhaustive)])
def test_float32_errs_no_more_than_plain_operators(name, seeds):
    """The gradient's float32 error is at most three times that of the tiled formulation, over tensors and seeds."""
    bound = bind(zoo.load(name), (28, 28, 1), 10)
    ratios = []
    for seed in range(seeds):
        parameters = draw_parameters(bound, seed)
        images = np.random.default_rng(seed).random((2, 28, 28, 1), dtype=np.float32)

        def gradients(mode, precision, parameters=parameters, images=images):
            ours = BACKEND.realize(bound, parameters, Setting(mode, precision=precision, threads=2))
            return ours.loss_and_gradients(ours.place(images, np.arange(2), {}), STEP)[1]

        exact = gradients("eager", "float64")
        kernel, tiled = (
            [np.linalg.norm(got[tensor] - exact[tensor]) / np.linalg.norm(exact[tensor]) for tensor in exact]
            for got in (gradients("fused", "float32"), gradients("tiled", "float32"))
        )
        ratios.append(np.linalg.norm(kernel) / np.linalg.norm(tiled))
    assert np.exp(np.mean(np.log(ratios))) <= 3.0


class Routed(torch.utils.data.Dataset):
    """Items that are routed where they are loaded."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        inputs = [value.detach() if isinstance(value, torch.Tensor) else value for value in arguments("fused")]
        inputs[0] = inputs[0] + index
        return em_route(*inputs)[0]


def test_workers_of_a_data_loader_route():
    """Forked workers give what this process gives, although it has used its threads before."""
    here = [Routed()[index] for index in range(4)]
    loader = torch.utils.data.DataLoader(Routed(), batch_size=None, num_workers=2, multiprocessing_context="fork")
    for mine, theirs in zip(here, loader, strict=True):
        assert torch.equal(mine, theirs)


def test_variants_that_no_kernel_covers_are_unsupported():
    """The reason is said, and names what else there is; on CUDA, chunked has none."""
    from dataclasses import replace

    network = zoo.load("em-tiny")
    shifted = replace(network, routing=replace(network.routing, densities="shifted"))
    for mode in ("fused", "chunked"):
        assert "shifted" in BACKEND.unsupported(bind(shifted, (28, 28, 1), 10), Setting(mode))
        assert BACKEND.unsupported(bind(network, (28, 28, 1), 10), Setting(mode)) is None
    assert "CPU only" in BACKEND.unsupported(bind(network, (28, 28, 1), 10), Setting("chunked", device="cuda:0"))


def test_the_kernel_is_named():
    """Notes say which kernel runs in the modes that have one, and nothing in others or without routing."""
    bound = bind(zoo.load("em-tiny"), (28, 28, 1), 10)
    assert BACKEND.notes(bound, Setting("fused"))[0].startswith("fused: routed by ")
    assert "NumPy" in BACKEND.notes(bound, Setting("chunked"))[0]
    assert BACKEND.notes(bound, Setting("eager")) == ()
    assert BACKEND.notes(bind(zoo.load("cnn-tiny"), (28, 28, 1), 10), Setting("fused")) == ()


def test_chunked_equals_the_oracle():
    """The mode that is fallen back to agrees with the oracle in float64 as well."""
    _, ours, oracle = pair(zoo.load("em-tiny"), "chunked", "float64", batch=2)
    got, expected = ours[0].forward(ours[1]), oracle[0].forward(oracle[1])
    np.testing.assert_allclose(got.scores, expected.scores, rtol=1e-10)
    np.testing.assert_allclose(got.poses, expected.poses, rtol=1e-9, atol=1e-12)
