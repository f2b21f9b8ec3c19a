"""The plan of a pilot: everything that is decided before the first run."""

from __future__ import annotations

import copy
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .arms import ARMS, Arm, check_arm_name
from .config import check, from_dict, option, to_toml
from .errors import UserError, did_you_mean

if TYPE_CHECKING:
    from .spec import RunSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskPlan:
    """What is trained: a small GPT on bytes."""

    corpus: str = option(
        "stdlib", 'text: "stdlib" (this Python\'s own sources), or a path to a file or folder'
    )
    context: int = option(64, "tokens (bytes) in a window", low=2, high=65536)
    layers: int = option(2, "transformer blocks", low=1, high=1000)
    width: int = option(64, "model width, a multiple of heads", low=1, high=65536)
    heads: int = option(2, "attention heads", low=1, high=1024)
    batch: int = option(8, "windows in a batch", low=1, high=65536)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPlan:
    """How every run is trained."""

    steps: int = option(1200, "optimizer steps of one budget unit", low=10, high=10**12)
    warmup: float = option(0.1, "share of the steps in linear warm-up", low=0.0, high=0.9)
    decay: Literal["linear", "cosine"] = option("linear", 'to zero: "linear" or "cosine"')
    accumulation: int = option(1, "batches per optimizer step", low=1)
    grad_clip: float = option(1.0, "largest norm of the whole gradient; 0 for no clip", low=0.0)
    eval_tokens: int = option(65536, "validation tokens per evaluation", low=1)
    evaluations: int = option(3, "evaluations per run, the last at the end", low=1)
    precision: Literal["no", "bf16"] = option("no", 'mixed precision: "no" or "bf16"')


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningPlan:
    """How the learning rate of each arm is found: rounds that give every arm one more trial."""

    trials: int = option(4, "rounds at the least", low=1, high=12)
    max_trials: int = option(
        6, "rounds at the most, while an arm's best lies at an edge", low=1, high=12
    )
    factor: float = option(2.0, "between neighbouring learning rates", above=1.0)
    seed: int = option(0, "seed of the tuning runs; not used again", low=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonPlan:
    """Who is compared, at the tuned learning rates."""

    baseline: str = option("adamw", "the arm in use today")
    candidate: str = option("mars-adamw", "the arm that the verdict is about")
    seeds: tuple[int, ...] = option((1, 2, 3, 4, 5), "one pair of runs each", low=0)
    ladder: tuple[float, ...] = option(
        (0.5, 0.75, 1.5),
        "further budgets of the baseline, in units of training.steps",
        above=0.0,
        high=1000,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionPlan:
    """The rule, fixed before the runs."""

    worth: float = option(
        0.05, "least share of tokens saved that pays for a switch", low=-1.0, high=0.99
    )
    confidence: float = option(0.95, "of the interval", above=0.5, high=0.999)


@dataclass(frozen=True, slots=True, kw_only=True)
class CostPlan:
    """Money; left out of the report at price 0."""

    price_per_hour: float = option(0.0, "of the machine that trains the real job", low=0.0)
    currency: str = option("USD", "any text")
    planned_hours: float = option(
        1000.0, "hours that the real job takes today, to which the saving is applied", above=0.0
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningPlan:
    """How the runs are looked after. No part of what a run is: it may change at any time."""

    limit_minutes: float = option(
        0.0,
        "a run that takes longer is ended; 0 for ten times the expected time and ten minutes",
        low=0.0,
    )
    retries: int = option(
        2, "further tries of a run that fails or dies; of one that takes too long, one", low=0
    )
    checkpoint_minutes: float = option(
        5.0, "between checkpoints inside a run, from which it goes on; 0 for none", low=0.0
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A whole pilot."""

    arms: tuple[str, ...] = option(
        ("adamw", "nadamw", "mars-adamw"), f"compared; known: {', '.join(ARMS)}"
    )
    task: TaskPlan = field(default_factory=TaskPlan, metadata={"help": "What is trained."})
    training: TrainingPlan = field(
        default_factory=TrainingPlan, metadata={"help": "How every run is trained."}
    )
    tuning: TuningPlan = field(
        default_factory=TuningPlan,
        metadata={"help": "Learning rates: every arm gets the same number of trials."},
    )
    comparison: ComparisonPlan = field(
        default_factory=ComparisonPlan, metadata={"help": "Paired seeds at the tuned rates."}
    )
    decision: DecisionPlan = field(
        default_factory=DecisionPlan, metadata={"help": "The rule, fixed before the runs."}
    )
    cost: CostPlan = field(default_factory=CostPlan, metadata={"help": "Money."})
    running: RunningPlan = field(
        default_factory=RunningPlan, metadata={"help": "How the runs are looked after."}
    )
    arm: dict[str, Arm] = field(default_factory=dict, metadata={"help": "Settings of each arm."})

    def __post_init__(self) -> None:
        """Resolve the arms' settings and check what no single key can tell.

        Raises:
            UserError: for an unknown arm or a plan that contradicts itself.
        """
        check(self)
        for name in (*self.arms, *self.arm):
            check_arm_name(name)
            if name not in ARMS and name not in self.arm:
                hint = did_you_mean(name, ARMS) or f"; known: {', '.join(ARMS)}"
                raise UserError(f"unknown arm {name!r}{hint}")
        for name in self.arm:
            if name not in self.arms:
                hint = did_you_mean(name, self.arms)
                raise UserError(f"arm.{name} is not among arms = {list(self.arms)}{hint}")
        if len(set(self.arms)) < len(self.arms):
            raise UserError(f"arms = {list(self.arms)} names one twice")
        object.__setattr__(self, "arm", {a: self.arm.get(a) or ARMS[a] for a in self.arms})
        self._check_comparison()
        if self.task.width % self.task.heads:
            raise UserError(
                f"task.width = {self.task.width} must be a multiple of task.heads = "
                f"{self.task.heads}"
            )
        if self.tuning.max_trials < self.tuning.trials:
            raise UserError(
                f"tuning.max_trials = {self.tuning.max_trials} must be at least tuning.trials = "
                f"{self.tuning.trials}"
            )
        if not self.task.corpus.strip():
            raise UserError("task.corpus is empty: give 'stdlib', a text file or a folder")
        for name, arm in self.arm.items():
            if arm.optimizer != "mars" and (arm.rule, arm.gamma, arm.clip) != ("adamw", 0, 0):
                raise UserError(
                    f"arm.{name}: optimizer = {arm.optimizer!r} has no rule, gamma or clip of its "
                    "own: set rule = 'adamw', gamma = 0, clip = 0, or optimizer = 'mars'"
                )
            if arm.correction == "folded" and arm.clip:
                raise UserError(f"arm.{name}.clip = {arm.clip} cannot go with 'folded': use 0")

    def _check_comparison(self) -> None:
        comparison = self.comparison
        for role in ("baseline", "candidate"):
            name = getattr(comparison, role)
            if name not in self.arms:
                hint = did_you_mean(name, self.arms)
                raise UserError(
                    f"comparison.{role} = {name!r} is not among arms = {list(self.arms)}{hint}"
                )
        if comparison.baseline == comparison.candidate:
            raise UserError("comparison.baseline and comparison.candidate are the same arm")
        if len(set(comparison.seeds)) < max(2, len(comparison.seeds)):
            raise UserError(
                f"comparison.seeds = {list(comparison.seeds)} must be two or more different seeds"
            )
        if self.tuning.seed in comparison.seeds:
            raise UserError(
                f"tuning.seed = {self.tuning.seed} is among comparison.seeds: runs that chose the "
                "learning rate must not judge it"
            )
        if min(comparison.ladder, default=1.0) >= 1.0 or max(comparison.ladder) <= 1.0:
            raise UserError(
                f"comparison.ladder = {list(comparison.ladder)} needs a budget below 1 and one "
                "above 1, to read tokens off between them"
            )
        steps = [self.steps(budget) for budget in (1.0, *comparison.ladder)]
        if len(set(steps)) < len(steps):
            raise UserError(
                f"comparison.ladder = {list(comparison.ladder)}, with the common budget 1, must "
                f"be different numbers of steps, not {steps}"
            )

    def covers(self, spec: RunSpec) -> bool:
        """Whether a run was made under this plan's settings."""
        settings = (self.task, self.training, self.arm.get(spec.arm_name))
        return (spec.task, spec.training, spec.arm) == settings

    def steps(self, budget: float) -> int:
        """Optimizer steps of a budget in units of ``training.steps``."""
        return max(1, round(budget * self.training.steps))


def plan_of(out: Path) -> Path:
    """The plan that the runs in ``out`` follow; before the first run, the one that it offers."""
    adopted = out / "runs" / "plan.toml"
    return adopted if adopted.exists() else out / "plan.toml"


def load_plan(path: Path, overrides: tuple[str, ...] = ()) -> Plan:
    """Read a plan from TOML.

    Raises:
        UserError: with the file, the key, and what is allowed.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; `mars pilot --init` writes one") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder; give the plan's TOML file") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"{path} is no valid TOML: {error}") from None
    try:
        return make_plan(data, overrides)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def make_plan(data: dict[str, Any], overrides: tuple[str, ...] = ()) -> Plan:
    """A plan from plain data and ``key=value`` overrides, the value in TOML.

    An arm's table may give only what differs from its published default.
    """
    data = copy.deepcopy(data)
    for text in overrides:
        _override(data, text)
    tables = data.get("arm")
    if isinstance(tables, dict):
        known = {f.name: f for f in fields(Arm)}
        for name, table in tables.items():
            if isinstance(table, dict) and name in ARMS and set(table) <= set(known):
                defaults = {key: getattr(ARMS[name], key) for key in known}
                tables[name] = {**defaults, **table}
    return from_dict(Plan, data)


def _override(data: dict[str, Any], text: str) -> None:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UserError(f"--set {text!r} must be KEY=VALUE, such as training.steps=400")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()
    *tables, last = key.strip().split(".")
    for table in tables:
        data = data.setdefault(table, {})
        if not isinstance(data, dict):
            raise UserError(f"--set {text!r}: {table!r} is a value, not a table")
    data[last] = parsed


def plan_toml(plan: Plan) -> str:
    """The plan as a TOML file with comments, which :func:`load_plan` reads back equal."""
    head = (
        "# A plan for `mars pilot`: does MARS pay on this task?\n"
        "# Everything is decided here, before the first run. Any key may be left out.\n\n"
    )
    return head + to_toml(plan)


def differences(a: Plan, b: Plan) -> list[str]:
    """The keys in which two plans differ, as ``key: a's value, b's value``."""
    rows_a, rows_b = (_flat(tomllib.loads(to_toml(p, comments=False))) for p in (a, b))
    keys = sorted(rows_a.keys() | rows_b.keys())
    return [
        f"{k}: {rows_a.get(k)}, {rows_b.get(k)}" for k in keys if rows_a.get(k) != rows_b.get(k)
    ]


def _flat(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
