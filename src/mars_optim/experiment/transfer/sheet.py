"""The transfer sheet: each arm's best settings of a pilot, carried to the target's size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from ...errors import UserError
from ...optim.param_groups import ParamGroups
from ...optim.transfer import TOKENS, Ratios, factors, settings_at
from ..plan import Arm, Plan
from ..plan.any_arm import is_any
from ..plan.task import GptPlan
from ..tasks import Task
from ..training.optimizer import arm_groups

DIMENSIONS = ("width", "depth", "tokens", "batch")
FAR = 32.0  # times the tokens, beyond which no run of ours or of others shows one exponent
SMALL_RUNS = -0.1  # AdamW's exponent in our runs of 0.15 to 10 million tokens (docs/transfer.md)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One group of an arm at the target; ``start`` multiplies its initial standard deviation."""

    arm: str
    kind: str
    rule: str
    lr: float
    weight_decay: float
    eps: float | None
    betas: tuple[float, ...]
    gamma: float | str
    start: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """Settings at the target.

    Args:
        base: width, depth, tokens and batch (tokens) of the pilot.
        target: likewise.
        ratios: of the two.
        rows: settings by arm and group.
        refused: arms that no published rule is known of, with why.
        vocabulary: rows of the model's largest embedding, 0 without one.
    """

    base: Mapping[str, float]
    target: Mapping[str, float]
    ratios: Ratios
    rows: tuple[Row, ...]
    refused: Mapping[str, str]
    vocabulary: int

    @property
    def logits(self) -> float:
        """Multiplier of the model's logits."""
        return 1.0 / self.ratios.width

    @property
    def branches(self) -> float:
        """Multiplier of each residual branch."""
        return 1.0 / self.ratios.depth

    @property
    def falls_too_far(self) -> bool:
        """Whether embeddings' rates fall with the width though their rows are fewer than it."""
        return self.ratios.large_vocabulary and 0 < self.vocabulary < self.target["width"]

    @property
    def factor_of_small_runs(self) -> float | None:
        """How many times larger rates are by :data:`SMALL_RUNS`, where tokens are far off.

        None where they are not, and where the exponent is the user's own.
        """
        t = self.ratios.tokens
        if 1.0 / FAR <= t <= FAR or self.ratios.tokens_exponent != TOKENS:
            return None
        return float(t ** (SMALL_RUNS - TOKENS))


def base_of(plan: Plan, task: Task, given: Mapping[str, float | None]) -> dict[str, float]:
    """Width, depth, tokens and batch of a plan's own size; ``given`` where it does not say.

    Args:
        plan: of the pilot.
        task: that it trains.
        given: --base-width and --base-depth, None if not given.

    Raises:
        UserError: naming the option that is needed, or one that contradicts the plan.
    """
    batch = float(task.batch_tokens * plan.training.accumulation)
    known: dict[str, float] = {"tokens": batch * plan.training.steps, "batch": batch}
    if isinstance(plan.task, GptPlan):
        its = plan.task  # whose rates may be those of a smaller model still
        known |= {
            "width": float(its.base_width or its.width),
            "depth": float(its.base_layers or its.layers),
        }
    base = {}
    for name in DIMENSIONS:
        said = given.get(name)
        if said is not None and known.get(name, said) != said:
            raise UserError(
                f"--base-{name} {said:g} contradicts the plan, which says {known[name]:g}: "
                "leave it out"
            )
        value = known.get(name, said)
        if value is None:
            raise UserError(
                f"the plan does not say the model's {name}: give --base-{name}, such as "
                f"--base-{name} {256 if name == 'width' else 4}"
            )
        base[name] = value
    return base


def sheet(
    task: Task,
    arms: Mapping[str, tuple[Arm, float]],
    base: Mapping[str, float],
    target: Mapping[str, float | None],
    noise_scale: float | None = None,
    *,
    large_vocabulary: bool = False,
    tokens_exponent: float = TOKENS,
) -> Sheet:
    """Settings of each arm at the target.

    Args:
        task: of the pilot; its model's parameters are sorted into groups.
        arms: settings and best learning rate of each that is wanted.
        base: width, depth, tokens and batch of the pilot.
        target: likewise; None for as in the base.
        noise_scale: of the gradient, tokens (`mars noise`), or None.
        large_vocabulary: whether it is large beside the target's width (default: False).
        tokens_exponent: power of the tokens that rates go with (default: -0.32).

    Raises:
        UserError: for a dimension out of range, or a batch too large for the betas.
    """
    wanted = {name: float(target.get(name) or base[name]) for name in DIMENSIONS}
    ratios = Ratios(
        **{name: wanted[name] / base[name] for name in DIMENSIONS},
        noise_scale=None if noise_scale is None else noise_scale / base["batch"],
        large_vocabulary=large_vocabulary,
        tokens_exponent=tokens_exponent,
    )
    model = task.build_model(0)
    rows: list[Row] = []
    refused: dict[str, str] = {}
    for name, (arm, lr) in arms.items():
        if is_any(arm.optimizer):
            refused[name] = f"no published rule is known here of {arm.optimizer}"
        else:
            try:
                rows += _rows(name, arm, arm_groups(model, arm, lr=lr), ratios)
            except ValueError as error:
                raise UserError(f"arm {name}: {error}") from None
    embeddings = [m.num_embeddings for m in model.modules() if isinstance(m, nn.Embedding)]
    return Sheet(
        base=base,
        target=wanted,
        ratios=ratios,
        rows=tuple(rows),
        refused=refused,
        vocabulary=max(embeddings, default=0),
    )


def _rows(name: str, arm: Arm, groups: ParamGroups, ratios: Ratios) -> Iterable[Row]:
    """One of each different line: groups that differ in decay alone are two."""
    lines: dict[tuple[Any, ...], Row] = {}
    for group in groups:
        settings, rule = settings_at(group, ratios), group["rule"]
        gamma = group["gamma"] if arm.optimizer == "mars" else 0.0
        chosen = gamma and arm.gamma_schedule in ("auto", "least_error")
        row = Row(
            arm=name,
            kind=group["kind"],
            rule=rule,
            lr=settings["lr"],
            weight_decay=settings["weight_decay"],
            eps=settings["eps"] if rule == "adamw" else None,
            betas=settings["betas"] if rule == "adamw" else settings["betas"][:1],
            gamma=arm.gamma_schedule if chosen else gamma,
            start=factors(group["kind"], rule, ratios).start,
        )
        lines.setdefault((row.kind, rule, row.weight_decay), row)
    return lines.values()
