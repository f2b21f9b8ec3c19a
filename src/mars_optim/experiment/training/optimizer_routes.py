"""Any optimizer on a model: which parameters it gets, and AdamW beside it for the others."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer

from ...errors import UserError
from ...optim import param_groups
from .any_optimizer import AnyOptimizer
from .contract.trial import has_modes, switch_mode, works

Group = dict[str, Any]

Route = Literal["all", "groups", "matrices"]
"""Whether it gets all parameters as they come, all of them in our groups, or matrices only."""


class Beside(Optimizer):
    """Several optimizers that step as one.

    ``param_groups`` and ``state`` hold what theirs hold, so that a learning rate that is written
    here reaches them; ``state_dict()`` has one of each.

    Args:
        parts: on parameters of their own.
    """

    def __init__(self, *parts: Optimizer) -> None:
        self.parts = parts
        super().__init__([group for part in parts for group in part.param_groups], {})
        self._link()
        if any(has_modes(part) for part in parts):
            self.train = functools.partial(self._switch, training=True)
            self.eval = functools.partial(self._switch, training=False)

    def _link(self) -> None:
        self.param_groups = [group for part in self.parts for group in part.param_groups]
        self.state.clear()
        for part in self.parts:
            self.state.update(part.state)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Step each; the first one is handed the closure."""
        first, *others = self.parts
        loss = first.step(closure) if closure else first.step()
        for part in others:
            part.step()
        self._link()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """One of each part."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The inverse."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._link()

    def _switch(self, *, training: bool) -> None:
        for part in self.parts:
            switch_mode(part, training=training)


def build_any(
    model: nn.Module,
    chosen: AnyOptimizer,
    route: Route,
    *,
    lr: float,
    lr_1d: float | None = None,
    betas_1d: tuple[float, float] = (0.9, 0.95),
    weight_decay_1d: float = 0.0,
) -> Optimizer:
    """The optimizer on a model's parameters.

    Args:
        model: whose parameters they are.
        chosen: the class with its options, ``weight_decay`` among them.
        route: "all": every parameter in one group, by the class's own rules. "groups": all of
            them, sorted by :func:`~mars_optim.param_groups`; embeddings and vectors are not
            decayed, vectors have ``lr_1d``. "matrices": matrices alone; AdamW for the others, and
            for kernels and stacks where the class refuses them.
        lr: of this run, in place of the class's.
        lr_1d: of vectors, and of all that AdamW gets (default: ``lr``).
        betas_1d: of that AdamW.
        weight_decay_1d: of vectors.

    Raises:
        UserError: with the reason, if the class does not take them.
    """
    decay = chosen.options.get("weight_decay", 0.0)
    if route == "all":
        if chosen.group_options:
            raise UserError(
                f"{chosen.key}: keys of groups need groups: set parameters = 'groups' or "
                "'matrices', or leave the keys out"
            )
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        return chosen.on([p for _, p in named], lr, [name for name, _ in named])
    groups = param_groups(
        model,
        rule="muon" if route == "matrices" else "adamw",
        lr=lr,
        lr_1d=lr_1d,
        weight_decay=decay,
        weight_decay_1d=weight_decay_1d,
        names=False,
    )
    if route == "groups":
        return chosen.on([_own(chosen, group, decay) for group in groups], lr)
    own, others = _divided(groups, kernels=takes_kernels(chosen))
    if not own:
        raise UserError(
            f"{chosen.key}: the model has no matrix that {chosen.name} takes: set parameters "
            "= 'all' or 'groups'"
        )
    main = chosen.on([_own(chosen, group, decay) for group in own], lr)
    return Beside(main, _adamw(others, betas_1d, lr_1d)) if others else main


def _divided(groups: Iterable[Group], *, kernels: bool) -> tuple[list[Group], list[Group]]:
    """Groups of matrices, kernels among them if they are taken; and groups of all else."""
    own, others = [], []
    for group in groups:
        fits: list[Tensor] = []
        rest: list[Tensor] = []
        for p in group["params"]:
            taken = group["kind"] == "matrix" and (kernels or p.ndim == 2)
            (fits if taken else rest).append(p)
        own += [{**group, "params": fits}] if fits else []
        others += [{**group, "params": rest}] if rest else []
    return own, others


def _own(chosen: AnyOptimizer, group: Group, decay: float) -> Group:
    """A group for the class: with its own weight decay where ours is another than its options'."""
    kept = {"params": group["params"], "lr": group["lr"]}
    other = group["weight_decay"] != decay or group["kind"] in ("embedding", "vector")
    if other and chosen.takes("weight_decay"):
        kept["weight_decay"] = group["weight_decay"]
    return {**kept, **chosen.group_options.get(group["kind"], {})}


def _adamw(groups: Iterable[Group], betas: tuple[float, float], lr_1d: float | None) -> Optimizer:
    kept = [
        {
            "params": group["params"],
            "lr": group["lr"] if lr_1d is None else lr_1d,
            "weight_decay": group["weight_decay"],
        }
        for group in groups
    ]
    return torch.optim.AdamW(kept, betas=betas)


def takes_kernels(chosen: AnyOptimizer) -> bool:
    """Whether the class steps a 4-D tensor; tried on one."""
    return works(chosen, "kernel") or works(chosen, "kernel", closure=True)
