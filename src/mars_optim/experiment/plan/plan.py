"""The plan of a pilot: everything that is decided before the first run."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING

from ...errors import UserError, did_you_mean
from ...options import check, option
from .arms import ARMS, CONTROL, Arm, ablation_arms, check_arm, check_arm_name
from .command import split
from .optional import OWN_SIZE, SensitivityPlan, SizePlan
from .recipe import Ours, Published, Recipe, check_recipe
from .task import TaskPlan, check_task
from .training import TrainingPlan

if TYPE_CHECKING:
    from .run_spec import RunSpec

EXTERNAL = ("command", "imported")
"""Kinds of task whose optimizers are made elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TuningPlan:
    """How the learning rate of each arm is found: the lowest point of a fit over its trials."""

    trials: int = option(5, "learning rates tried for each arm, at the least", low=1, high=64)
    max_trials: int = option(
        16, "at the most, where the lowest point has no trials around it yet", low=1, high=64
    )
    factor: float = option(
        2.0, "between neighbouring learning rates; around the best, its square root", low=1.25
    )
    seed: int = option(0, "seed of the tuning runs; not used again", low=0)
    more_seeds: tuple[int, ...] = option(
        (), "further tuning seeds: they repeat the trials around each arm's best", low=0
    )


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
    ablations: bool = option(
        False, "add arms that tell what the candidate's effect is made of (betas, clip, correction)"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionPlan:
    """The rule, fixed before the runs."""

    min_saving: float = option(
        0.05, "least share of tokens saved that pays for a switch", low=-1.0, high=0.99
    )
    confidence: float = option(0.95, "of the interval", above=0.5, high=0.999)


@dataclass(frozen=True, slots=True, kw_only=True)
class CostPlan:
    """Money; left out of the report at price 0."""

    price_per_hour: float = option(
        0.0, "of one device of the real job (of the whole fleet, if devices is 1)", low=0.0
    )
    devices: int = option(1, "of the real job, paid for together", low=1)
    currency: str = option("USD", "any text")
    planned_hours: float = option(
        1000.0, "hours that the real job takes today, to which the saving is applied", above=0.0
    )
    planned_tokens: float = option(0.0, "of the real job; 0 if not known", low=0.0)
    tokens_per_hour: float = option(
        0.0, "of the whole fleet today; with planned_tokens it replaces planned_hours", low=0.0
    )
    pilot_price_per_hour: float = option(
        0.0, "of the machine that runs this pilot; 0 for price_per_hour", low=0.0
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """One size of the task, with all that a run of it needs.

    Args:
        name: "main" for the plan's own.
        task: what is trained.
        training: how; its ``steps`` is this size's unit budget.
        arms: that are tuned and compared at this size.
    """

    name: str
    task: TaskPlan
    training: TrainingPlan
    arms: tuple[str, ...]

    def steps(self, budget: float) -> int:
        """Optimizer steps of a budget in units of ``training.steps``."""
        return max(1, round(budget * self.training.steps))


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
    probe_steps: int = option(
        0,
        "least steps of the short runs that take a command's step time; 0 for a twentieth of "
        "training.steps, ten at the least",
        low=0,
        high=10**12,
    )
    telemetry: bool = option(
        True, "record noise, correction and clip with the training rows, where an arm is MARS"
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
        metadata={"help": "Learning rates: every arm's is found at the same resolution."},
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
    sensitivity: SensitivityPlan = field(
        default_factory=SensitivityPlan,
        metadata={"help": "Loss over learning rate and gamma; runs after the comparison."},
    )
    scale: dict[str, SizePlan] = field(
        default_factory=dict,
        metadata={"help": "Other model sizes: does the effect grow or shrink?"},
    )
    arm: dict[str, Arm] = field(default_factory=dict, metadata={"help": "Settings of each arm."})
    recipe: Recipe = field(
        default_factory=Recipe,
        metadata={"help": "The published experiment that this is.", "sparse": True},
    )
    published: dict[str, Published] = field(
        default_factory=dict, metadata={"help": "What was published about each arm."}
    )
    ours: dict[str, Ours] = field(
        default_factory=dict, metadata={"help": "What runs of this recipe gave us."}
    )

    def __post_init__(self) -> None:
        """Resolve the arms' settings and check what no single key can tell.

        Raises:
            UserError: for an unknown arm or a plan that contradicts itself.
        """
        check(self)
        if self.comparison.ablations:
            self._add_ablations()
        for name in (*self.arms, *self.arm):
            check_arm_name(name)
            if name not in ARMS and name not in self.arm:
                hint = did_you_mean(name, ARMS) or f"; known: {', '.join(ARMS)}"
                raise UserError(f"unknown arm {name!r}{hint}; one of your own needs [arm.{name}]")
        for name in self.arm:
            if name not in self.arms:
                hint = did_you_mean(name, self.arms)
                raise UserError(f"arm.{name} is not among arms = {list(self.arms)}{hint}")
        if len(set(self.arms)) < len(self.arms):
            raise UserError(f"arms = {list(self.arms)} names one twice")
        arms = {a: self.arm.get(a) or default_arm(a, self.task) for a in self.arms}
        object.__setattr__(self, "arm", arms)
        check_task(self.task)
        check_recipe(self.recipe, self.published, self.ours, self.arms)
        self._check_comparison()
        self._check_sizes()
        self._check_arms()
        if self.task.kind == "command":
            self._check_training()
        if self.tuning.max_trials < self.tuning.trials:
            raise UserError(
                f"tuning.max_trials = {self.tuning.max_trials} must be at least tuning.trials = "
                f"{self.tuning.trials}"
            )

    def _check_arms(self) -> None:
        external = self.task.kind in EXTERNAL
        for name, arm in self.arm.items():
            if external != (arm.optimizer == "external"):
                raise UserError(
                    f"arm.{name}.optimizer = {arm.optimizer!r} does not go with task.kind = "
                    f"{self.task.kind!r}"
                    + (": the command makes its optimizer itself" if external else "")
                )
            if external:
                split(arm.arguments, f"arm.{name}.arguments")
                continue
            check_arm(name, arm)
            if self.training.min_lr >= arm.lr:
                raise UserError(
                    f"training.min_lr = {self.training.min_lr:g} must be below arm.{name}.lr = "
                    f"{arm.lr:g}"
                )

    def _add_ablations(self) -> None:
        known = {a: default_arm(a, self.task) for a in self.arms if a in ARMS} | self.arm
        baseline, candidate = self.comparison.baseline, self.comparison.candidate
        old, new = known.get(baseline), known.get(candidate)
        if old is None or new is None:
            return  # which _check_comparison tells
        added = ablation_arms(candidate, new, old)
        object.__setattr__(self, "arms", tuple(dict.fromkeys((*self.arms, *added))))
        object.__setattr__(self, "arm", {**added, **self.arm})

    def _check_sizes(self) -> None:
        for name in self.scale:
            check_arm_name(name)
        if OWN_SIZE in self.scale:
            raise UserError(f"scale.{OWN_SIZE}: this name is the plan's own size; use another")
        if self.scale and self.task.kind != "gpt":
            raise UserError("scale: sizes are known of task.kind = 'gpt' only; leave scale out")
        if self.sensitivity.gammas and self.arm[self.comparison.candidate].optimizer != "mars":
            raise UserError(
                f"sensitivity.gammas: {self.comparison.candidate} has no gamma here; leave it out"
            )
        if self.task.kind == "imported":
            return
        sizes = self.sizes()
        for size in sizes:
            table = "task" if size.name == OWN_SIZE else f"scale.{size.name}"
            check_task(size.task, table)
            if size.training.steps < 10:
                raise UserError(f"{table}.steps = {size.training.steps} must be at least 10")
            steps = [size.steps(budget) for budget in (1.0, *self.comparison.ladder)]
            if len(set(steps)) < len(steps):
                raise UserError(
                    f"comparison.ladder = {list(self.comparison.ladder)}, with the common budget "
                    f"1, must be different numbers of steps, not {steps}"
                )
        for i, size in enumerate(sizes):
            for other in sizes[:i]:
                if (size.task, size.training) == (other.task, other.training):
                    raise UserError(f"scale.{size.name} is the same as {other.name}")

    def _check_training(self) -> None:
        """A command has its own schedule: what would be passed over is refused."""
        for f in fields(TrainingPlan):
            if f.name != "steps" and getattr(self.training, f.name) != f.default:
                raise UserError(
                    f"training.{f.name} is the command's own affair: of [training], only steps is "
                    "handed to it; leave the key out"
                )

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
        if self.task.kind == "imported":  # made from the runs that there are, be they too few
            return
        if len(set(comparison.seeds)) < max(2, len(comparison.seeds)):
            raise UserError(
                f"comparison.seeds = {list(comparison.seeds)} must be two or more different seeds"
            )
        tuning = (self.tuning.seed, *self.tuning.more_seeds)
        if len(set(tuning)) < len(tuning):
            raise UserError(
                f"tuning.more_seeds = {list(self.tuning.more_seeds)} must be different from each "
                f"other and from tuning.seed = {self.tuning.seed}"
            )
        for key, seeds in (("seed", tuning[:1]), ("more_seeds", tuning[1:])):
            if both := set(seeds) & set(comparison.seeds):
                raise UserError(
                    f"tuning.{key} = {min(both)} is among comparison.seeds: runs that chose the "
                    "learning rate must not judge it"
                )
        if min(comparison.ladder, default=1.0) >= 1.0 or max(comparison.ladder) <= 1.0:
            raise UserError(
                f"comparison.ladder = {list(comparison.ladder)} needs a budget below 1 and one "
                "above 1, to read tokens off between them"
            )

    def sizes(self) -> tuple[Size, ...]:
        """The plan's own size, then the others, in the plan's order."""
        comparison = self.comparison
        own = Size(name=OWN_SIZE, task=self.task, training=self.training, arms=self.arms)
        if not self.scale:
            return (own,)
        roles = (comparison.baseline, CONTROL, comparison.candidate)
        arms = tuple(a for a in dict.fromkeys(roles) if a in self.arms)
        others = []
        for name, size in self.scale.items():
            given = {f.name: getattr(size, f.name) for f in fields(size)}
            steps = given.pop("steps") or self.training.steps
            task = replace(self.task, **{key: value for key, value in given.items() if value})
            training = replace(self.training, steps=steps)
            others.append(Size(name=name, task=task, training=training, arms=arms))
        return (own, *others)

    def size_of(self, spec: RunSpec) -> Size | None:
        """The size at which a run was made; None if under other settings than this plan's."""
        allowed = [self.arm.get(spec.arm_name)]
        if spec.arm_name == self.comparison.candidate and spec.purpose == "sensitivity":
            own = self.arm[spec.arm_name]
            allowed += [replace(own, gamma=gamma) for gamma in self.sensitivity.gammas]
        for size in self.sizes():  # the plan's own first, and mostly alone
            if spec.training == size.training and spec.task == size.task:
                return size if spec.arm_name in size.arms and spec.arm in allowed else None
        return None

    def covers(self, spec: RunSpec) -> bool:
        """Whether a run was made under this plan's settings."""
        return self.size_of(spec) is not None

    def steps(self, budget: float) -> int:
        """Optimizer steps of a budget in units of ``training.steps``."""
        return max(1, round(budget * self.training.steps))


def default_arm(name: str, task: TaskPlan) -> Arm:
    """The published default of an arm; of one that a command makes, its learning rate only."""
    if task.kind in EXTERNAL:
        return Arm(optimizer="external", lr=ARMS[name].lr)
    return ARMS[name]
