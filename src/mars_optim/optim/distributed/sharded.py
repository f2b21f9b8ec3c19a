"""Parameters sharded over processes: DTensors, as FSDP2 makes them, and Megatron's plain shards.

Element-wise arithmetic is done on each process's own shards, as plain tensors that share their
memory with the DTensors. Two things need the whole tensor and are all that is communicated: the
norm of the clip, one all-reduce for all tensors of a bucket, and the matrix of Newton-Schulz,
whose work is dealt out to the processes: each gathers whole the momenta of the matrices that it
owns, finds their directions and sends every process its shard of them, two all-to-alls a bucket.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..blocks import Block, Where
from .rows import rows_of
from .tensor_parallel import Line, line_of, partition_dim, whole_shape

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor import DTensor
    from torch.distributed.tensor.placement_types import Placement

WholeToWhole = Callable[[Tensor], Tensor]

PLAIN = (Tensor, nn.Parameter)


def is_sharded(value: Any) -> bool:
    """Whether ``value`` is a DTensor. Does not load torch.distributed.tensor, which is slow."""
    if type(value) in PLAIN:  # torch.compile should not look into sys.modules, which may grow
        return False
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(value, module.DTensor)


def layout(param: Tensor) -> tuple[DeviceMesh | Line, tuple[bool, ...]] | None:
    """The mesh of a DTensor, or of Megatron's shard, and which of its dimensions cut it; else None.

    Tensors that agree in this share a bucket: the squares of their norms are summed over the same
    processes, whichever of their own dimensions is cut.
    """
    if not is_sharded(param):
        line = line_of(param)
        return None if line is None else (line, (True,))
    sharded: DTensor = param  # type: ignore[assignment]
    # not is_shard(), which is False for FSDP's cut of a tensor-parallel cut
    return sharded.device_mesh, tuple(not p.is_replicate() for p in sharded.placements)


def local(value: Any) -> Any:
    """This process's shard of a DTensor, in the same memory; anything else as it is."""
    if not is_sharded(value):
        return value
    shard = value.to_local()
    return shard.wait() if hasattr(shard, "wait") else shard  # a gradient still under way


def as_real(value: Any) -> Any:
    """A complex tensor as a real view with a last dimension of 2; anything else as it is."""
    if isinstance(value, Tensor) and value.is_complex():
        return torch.view_as_real(value.resolve_conj())
    return value


def like(value: Tensor, param: Tensor) -> Tensor:
    """A gradient as its parameter is placed: a partial sum is summed, a whole one is cut."""
    if not is_sharded(param):
        return value
    given: DTensor = value  # type: ignore[assignment]
    wanted: DTensor = param  # type: ignore[assignment]
    if given.placements == wanted.placements:
        return value
    return given.redistribute(wanted.device_mesh, wanted.placements)


@dataclass(frozen=True, slots=True, eq=False)
class Shards:
    """Where the shards of one bucket lie in the whole tensors.

    Args:
        mesh: the processes, shared by all tensors.
        cut_by: the mesh dimensions over which the tensors are cut, rather than repeated.
        placements: of each tensor, one per mesh dimension.
        shapes: of the whole tensors.
        blocks: of which larger tensors these are blocks, and where in this process's shards of
            them; empty where they are none.
    """

    mesh: DeviceMesh | Line
    cut_by: list[int]
    placements: list[tuple[Placement, ...]]
    shapes: list[torch.Size]
    blocks: list[tuple[Block, Where]] = field(default_factory=list)

    @classmethod
    def of(cls, params: list[Any]) -> Shards | None:
        """Shards of parameters with one :func:`layout`; None if they are plain tensors."""
        where = layout(params[0])
        if where is None:
            return None
        mesh, cut = where
        if isinstance(mesh, Line):
            from torch.distributed.tensor import Shard

            shapes = [whole_shape(p, mesh) for p in params]
            return cls(mesh, [0], [(Shard(partition_dim(p)),) for p in params], shapes)
        cut_by = [d for d in range(mesh.ndim) if cut[d] and mesh.size(d) > 1]
        return cls(mesh, cut_by, [p.placements for p in params], [p.shape for p in params])

    @property
    def ranks(self) -> tuple[tuple[int, int], ...]:
        """Number of processes and this one's place, for each mesh dimension."""
        mesh = self.mesh
        return tuple((mesh.size(d), mesh.get_local_rank(d)) for d in range(mesh.ndim))

    def rows(self, i: int, dim: int) -> Sequence[int]:
        """The numbers along ``dim`` that this process has of tensor ``i``."""
        return rows_of(self.shapes[i], dim, self.placements[i], self.ranks)

    def of_blocks(self, cuts: Iterable[tuple[int, Block, Where]]) -> Shards:
        """The same of blocks: of the number of a tensor, the block, and where it is here."""
        cuts = list(cuts)
        return Shards(
            self.mesh,
            self.cut_by,
            [self.placements[i] for i, _, _ in cuts],
            [block.shape for _, block, _ in cuts],
            [(block, where) for _, block, where in cuts],
        )

    def whole_norms(self, norms: Tensor) -> Tensor:
        r"""Norms of the whole tensors from those of the shards: one all-reduce for all of them.

        .. math:: \|c\|_2 = \Big(\sum_{\text{shards } s} \|c_s\|_2^2\Big)^{1/2}

        Args:
            norms: (tensors,), ||c_s||_2 of this process's shards.

        Returns:
            (tensors,) of the same dtype and device, without a host synchronisation.
        """
        if not self.cut_by:
            return norms
        squares = norms.to(torch.promote_types(norms.dtype, torch.float32)).square()
        return self.whole_sums(squares).sqrt().to(norms.dtype)

    def whole_sums(self, sums: Tensor) -> Tensor:
        """Sums over the elements of whole tensors from those over the shards, in place."""
        for d in self.cut_by:
            dist.all_reduce(sums, group=self.mesh.get_group(d))
        return sums

    def map_whole(
        self, function: WholeToWhole, shards: list[Tensor], *, stacked: bool
    ) -> list[Tensor]:
        """``function`` of each whole tensor, of which this process gets its shard back.

        Args:
            function: keeps shape and dtype; works on each matrix of a stack apart.
            shards: one of each tensor.
            stacked: whether leading dimensions of 3-D and larger tensors are a batch of matrices.
        """
        everything = range(len(shards))
        repeated = [
            d for d in range(self.mesh.ndim) if d not in self.cut_by and self.mesh.size(d) > 1
        ]
        if len(repeated) != 1:
            results = self._map_some(function, shards, everything, stacked=stacked)
            return [results[i] for i in everything]
        # what would be done alike by each replica (HSDP) is dealt out among them
        (d,) = repeated
        owners = deal(self.shapes, self.mesh.size(d))
        mine = [i for i in everything if owners[i] == self.mesh.get_local_rank(d)]
        results = self._map_some(function, shards, mine, stacked=stacked)
        return self._told_to_replicas(results, shards, owners, d)

    def _told_to_replicas(
        self, results: dict[int, Tensor], shards: list[Tensor], owners: list[int], d: int
    ) -> list[Tensor]:
        """The results of all tensors, each from the replica along mesh dimension d that has it."""
        group = self.mesh.get_group(d)
        for r in range(self.mesh.size(d)):
            theirs = [i for i, owner in enumerate(owners) if owner == r]
            shapes = [shards[i].shape for i in theirs]
            if r == self.mesh.get_local_rank(d):
                flat = _flat([results[i] for i in theirs], shards[0])
            else:
                flat = shards[0].new_empty(sum(shape.numel() for shape in shapes))
            dist.broadcast(flat, dist.get_global_rank(group, r), group)
            results |= dict(zip(theirs, _unflat(flat, shapes), strict=True))
        return [results[i] for i in range(len(shards))]

    def _map_some(
        self, function: WholeToWhole, shards: list[Tensor], chosen: Iterable[int], *, stacked: bool
    ) -> dict[int, Tensor]:
        """:meth:`map_whole` of the tensors ``chosen`` alone, the same ones on all that cut them."""
        results: dict[int, Tensor] = {}
        owned = []
        for i in chosen:
            shard = shards[i]
            batch_dims = len(self.shapes[i]) - 2 if stacked else 0
            if all(self._dim(i, d) < batch_dims for d in self.cut_by):  # its matrices are whole
                results[i] = function(shard)
            elif len(self.cut_by) == 1 and self.placements[i][self.cut_by[0]].is_shard():
                owned.append(i)
            else:
                results[i] = self._by_everyone(function, shard, i)
        if owned:
            results |= self._by_owners(function, shards, owned)
        return results

    def _by_owners(
        self, function: WholeToWhole, shards: list[Tensor], chosen: list[int]
    ) -> dict[int, Tensor]:
        """Each tensor gathered, worked on and cut up again by the one process that owns it."""
        (d,) = self.cut_by
        group, world, rank = self.mesh.get_group(d), self.mesh.size(d), self.mesh.get_local_rank(d)
        owners = dict(zip(chosen, deal([self.shapes[i] for i in chosen], world), strict=True))
        order = sorted(chosen, key=owners.__getitem__)
        mine = [i for i in order if owners[i] == rank]
        # pieces[i][r]: shape of the shard of tensor i that process r has, empty ones included
        pieces = {i: self._pieces(i, d, world) for i in mine}
        sent = [sum(shards[i].numel() for i in order if owners[i] == r) for r in range(world)]
        received = [sum(pieces[i][r].numel() for i in mine) for r in range(world)]

        flat = _exchange(_flat([shards[i] for i in order], shards[0]), sent, received, group)
        by_rank = [
            _unflat(part, [pieces[i][r] for i in mine])
            for r, part in enumerate(torch.split(flat, received))
        ]
        cuts = []
        for i, parts in zip(mine, zip(*by_rank, strict=True), strict=True):
            dim = self._dim(i, d)
            whole = function(torch.cat(parts, dim))
            cuts.append(torch.split(whole, [piece[dim] for piece in pieces[i]], dim))
        back = _flat([cut[r] for r in range(world) for cut in cuts], shards[0])
        home = _exchange(back, received, sent, group)
        return dict(zip(order, _unflat(home, [shards[i].shape for i in order]), strict=True))

    def _pieces(self, i: int, d: int, world: int) -> list[torch.Size]:
        """The shapes of the shards of tensor i that the processes along mesh dimension d have."""
        dim = self._dim(i, d)
        if not self.blocks or self.blocks[i][0].dim != dim:
            return shard_shapes(self.shapes[i], dim, world)
        block, end, lengths = self.blocks[i][0], 0, []
        for shard in shard_shapes(block.whole, dim, world):
            begin, end = end, end + shard[dim]
            lengths.append(block.before(end) - block.before(begin))
        before, after = block.shape[:dim], block.shape[dim + 1 :]
        return [torch.Size([*before, length, *after]) for length in lengths]

    def _by_everyone(self, function: WholeToWhole, shard: Tensor, i: int) -> Tensor:
        """The same for a tensor cut over several mesh dimensions: every process does all of it."""
        if self.blocks and any(self._dim(i, d) == self.blocks[i][0].dim for d in self.cut_by):
            return self._within(function, shard, i)
        return self._of_full(function, shard, i, self.shapes[i])

    def _within(self, function: WholeToWhole, shard: Tensor, i: int) -> Tensor:
        """The same for a block that is cut: by way of the tensor that it is a block of."""
        block, where = self.blocks[i]
        rows = rows_of(block.whole, block.dim, self.placements[i], self.ranks)
        shape = torch.Size([*shard.shape[: block.dim], len(rows), *shard.shape[block.dim + 1 :]])
        around = block.put(shard.new_zeros(shape), where, shard)
        there = block.where(range(block.whole[block.dim]))

        def within(whole: Tensor) -> Tensor:
            return block.put(torch.zeros_like(whole), there, function(block.of(whole, there)))

        return block.of(self._of_full(within, around, i, block.whole), where)

    def _of_full(self, function: WholeToWhole, shard: Tensor, i: int, shape: torch.Size) -> Tensor:
        """``function`` of the whole, gathered by every process, of which each keeps its shard."""
        from torch.distributed.tensor import DTensor

        assert not isinstance(self.mesh, Line)  # one dimension cuts: _by_owners
        stride = torch.empty(shape, device="meta").stride()
        sharded = DTensor.from_local(
            shard, self.mesh, self.placements[i], run_check=False, shape=shape, stride=stride
        )
        result: Tensor = local(cut_like(function(sharded.full_tensor()), sharded))
        return result

    def _dim(self, i: int, d: int) -> int:
        """The dimension of tensor i that mesh dimension d cuts."""
        placement: Any = self.placements[i][d]
        return int(placement.dim) % len(self.shapes[i])


def cut_like(whole: Tensor, target: Any) -> Any:
    """A tensor that every process has, as a DTensor placed like ``target``; no communication."""
    from torch.distributed.tensor import DTensor, Replicate

    mesh = target.device_mesh
    everywhere = DTensor.from_local(whole, mesh, [Replicate()] * mesh.ndim, run_check=False)
    return everywhere.redistribute(mesh, target.placements)


def shard_shapes(shape: torch.Size, dim: int, world: int) -> list[torch.Size]:
    """The shapes of the ``world`` shards of a tensor cut along ``dim`` as ``torch.chunk`` cuts it.

    The last ones may be smaller, or have size 0 along ``dim``.
    """
    length = -(-shape[dim] // world)
    sizes = [min(length, max(0, shape[dim] - r * length)) for r in range(world)]
    return [torch.Size([*shape[:dim], size, *shape[dim + 1 :]]) for size in sizes]


def deal(shapes: Iterable[torch.Size], world: int) -> list[int]:
    """An owner for each matrix: the dearest first, each to the process with the least work.

    Newton-Schulz costs in proportion to rows * cols * min(rows, cols). The same on every process.
    """
    costs = []
    for shape in shapes:
        numel = shape.numel()
        costs.append(numel * min(shape[0], numel // max(1, shape[0])))
    owners, loads = [0] * len(costs), [0] * world
    for i in sorted(range(len(costs)), key=lambda i: -costs[i]):
        owners[i] = loads.index(min(loads))
        loads[owners[i]] += max(1, costs[i])
    return owners


def _flat(tensors: list[Tensor], like: Tensor) -> Tensor:
    return torch.cat([like.new_empty(0), *(x.flatten() for x in tensors)])


def _unflat(flat: Tensor, shapes: list[torch.Size]) -> list[Tensor]:
    parts = torch.split(flat, [shape.numel() for shape in shapes]) if shapes else ()
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]


def _exchange(send: Tensor, sent: list[int], received: list[int], group: Any) -> Tensor:
    """``sent[r]`` elements of ``send`` to each process r, ``received[r]`` from it, in order."""
    result = send.new_empty(sum(received))
    dist.all_to_all_single(result, send, received, sent, group=group)
    return result
