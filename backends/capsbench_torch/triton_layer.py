"""A layer as the Triton kernels see it: their arguments, and how passes over it are cut into programs.

A cut is a rule of the layer's sizes; nothing is tuned at run time, so that a run repeats to the bit. The rule aims at
the registers of a multiprocessor: as many warps reside on it as a pass has numbers to hold for, and a pass is split
until the programs fill nearly all of a GPU.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from capsbench_fused.task import Task, first_shares, look_table

_WARP = 32
_REGISTERS = 65536  # of a multiprocessor
_PROCESSORS = 132  # that programs are counted out for: an H100's; on others they balance less well
_FEWEST = 16  # children, or positions, of a program that shares them with others
_INTERPRETED = 8  # times as many rows in a tile: the interpreter takes its time by the operation, not by the lane


@dataclass(frozen=True, slots=True)
class Cut:
    """How a pass is cut into programs.

    Attributes:
        rows: of lanes in a tile, positions or children.
        vec: lanes that a thread takes at once.
        warps: of a program.
        resident: warps that a multiprocessor has registers for.
        full: how much of a GPU must be busy for a pass not to be split further.
    """

    rows: int
    vec: int
    warps: int
    resident: int
    full: float

    @property
    def registers(self) -> int:
        """Most registers of a thread; a multiprocessor deals them out by eights."""
        return min(_REGISTERS // (_WARP * self.resident) // 8 * 8, 255)

    def blocks(self, rows: int) -> int:
        """Tiles that hold so many rows."""
        return ceil_div(rows, self.rows)

    def split(self, rows: int, items: int) -> tuple[int, int]:
        """Among how many programs, and how many to each, to split the items that one program would walk for a tile."""
        blocks, room = self.blocks(rows), _PROCESSORS * self.resident // self.warps
        most = max(1, items // _FEWEST)
        enough = (s for s in range(1, most) if blocks * s >= self.full * room * ceil_div(blocks * s, room))
        step = ceil_div(items, next(enough, most))
        return ceil_div(items, step), step


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer that is being routed.

    Attributes:
        task: the layer.
        arguments: of the kernels, by name, as far as all passes share them.
        rows: positions of all images.
        seen: int32 [below, most], the looks at each place, -1 where there are no more.
    """

    task: Task
    arguments: Mapping[str, Any]
    rows: int
    seen: Tensor

    @property
    def images(self) -> int:
        """How many."""
        return self.rows // self.task.positions

    @property
    def width(self) -> int:
        """Parents in a row of lanes."""
        return width_of(self.task)

    @property
    def gathering(self) -> Cut:
        """The cut of passes that hold four numbers of every element."""
        wide = self.width > _WARP
        return self._cut(vec=2 if wide else 1, warps=1, resident=8 if wide else 16, full=0.8)

    @property
    def retracing(self) -> Cut:
        """The cut of passes that hold seven numbers of every element."""
        return self._cut(vec=1, warps=1, resident=12, full=0.8)

    @property
    def scattering(self) -> Cut:
        """The cut of the pass over children: many to a program, because all read the same coefficients."""
        return self._cut(vec=1 if self.width < 16 else 2, warps=8, resident=8, full=0.9)

    def _cut(self, vec: int, warps: int, resident: int, full: float) -> Cut:
        """Rows for as many lanes as threads times `vec`; more warps where a row of parents is wider than that."""
        warps = max(warps, self.width // (_WARP * vec))
        many = _INTERPRETED if self.seen.device.type == "cpu" else 1
        return Cut(many * _WARP * vec * warps // self.width, vec, warps, resident, full)

    def run(self, kernel: Any, cut: Cut, grid: tuple[int, int], **own: Any) -> None:  # noqa: ANN401 - Triton's
        """Launch a kernel; of the arguments it is given those that it names."""
        arguments = {**self.arguments, **own, "BN": cut.rows, "VEC": cut.vec}
        chosen = {name: arguments[name] for name in kernel.arg_names}
        kernel[grid](**chosen, num_warps=cut.warps, maxnreg=cut.registers, enable_fp_fusion=True)


def layer_of(
    task: Task, poses: Tensor, activations: Tensor, transforms: Tensor, beta_u: Tensor, beta_a: Tensor
) -> Layer:
    """A layer and its inputs, transforms and offsets packed into rows of lanes, 0 where there is no parent."""
    width, rows, tables = width_of(task), len(poses) * task.positions, _tables(task, poses.dtype, poses.device)
    weights = poses.new_zeros(task.transforms, 16, width)
    weights[:, :, : task.parents] = transforms.reshape(task.transforms, task.parents, 16).transpose(1, 2)
    betas = poses.new_zeros(2, width)
    betas[0, : task.parents], betas[1, : task.parents] = beta_u, beta_a
    added = bool(task.coordinates) and task.elements == 16
    arguments = {
        **tables,
        "poses": poses,
        "activations": activations,
        "weights": weights,
        "betas": betas,
        "rows": rows,
        "positions": task.positions,
        "below": task.below,
        "types": task.types,
        "looked": len(task.looks[0]),
        "apart": 0 if task.shared else task.types,
        "children": task.children,
        "parents": task.parents,
        "E": task.elements,
        "JP": width,
        "ADDED": added,
        "ROW": task.coordinate_elements[0] if added else 0,
        "COLUMN": task.coordinate_elements[1] if added else 0,
        "EVERYWHERE": task.everywhere,
        "SOFTMAX": task.softmax or task.by_mass,
        "BY_MASS": task.by_mass,
    }
    return Layer(task, arguments, rows, tables["seen"])


def width_of(task: Task) -> int:
    """Parents in a row of lanes: a power of two, and no fewer than a transaction with memory holds."""
    return max(8, 1 << (task.parents - 1).bit_length())


def ceil_div(items: int, size: int) -> int:
    """How many of a size hold all items."""
    return -(-items // size)


@lru_cache(maxsize=256)
def _tables(task: Task, dtype: torch.dtype, device: torch.device) -> Mapping[str, Tensor]:
    """What kernels look up and no weight or image changes."""
    looks = look_table(task)
    seen: list[list[int]] = [[] for _ in range(task.below)]
    for look, place in enumerate(looks.ravel().tolist()):
        seen[place].append(look)
    most = max(map(len, seen))
    constants = (task.cost_factor, task.variance_floor, task.epsilon, *task.temperatures)
    return {
        "looks": torch.tensor(looks, dtype=torch.int32, device=device),
        "seen": torch.tensor([some + [-1] * (most - len(some)) for some in seen], dtype=torch.int32, device=device),
        "shares": torch.tensor(first_shares(task), dtype=dtype, device=device),
        "coordinates": torch.tensor(task.coordinates or ((0.0, 0.0),), dtype=dtype, device=device),
        "constants": torch.tensor(constants, dtype=dtype, device=device),
    }
