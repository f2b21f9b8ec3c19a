"""The plan of a pilot: everything that is decided before the first run."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING

from ...errors import UserError, did_you_mean
from .arms import ARMS, CONTROL, Arm, ablation_arms, check_arm, check_arm_name
from .command import check_branching, check_settings, split
from .comparison import (
    FIRST_LOOK,
    ComparisonPlan,
    check_comparison,
    check_ladder,
    check_ladder_seeds,
    check_looks,
    check_seeds,
)
from .cost import CostPlan, check_cost
from .decision import DecisionPlan, check_metric, with_metric
from .execution import RunningPlan
from .recipe import Ours, Published, Recipe, check_recipe
from .sizes import OWN_SIZE, Size, SizePlan, check_sizes
from .table import NotNegative, Positive, option, part, table
from .target import TargetPlan, check_target
from .task import CommandPlan, GptPlan, Kinds, TaskPlan, check_carried, check_task
from .training import TrainingPlan
from .tuning import TuningPlan, same_but_tuned
from .tuning_checks import check_tuning

if TYPE_CHECKING:
    from .run_spec import RunSpec

EXTERNAL = ("command", "imported")
"""Kinds of task whose optimizers are made elsewhere."""


@table
class SensitivityPlan:
    """Runs that draw the loss over learning rate and gamma; they do not touch the verdict."""

    gammas: tuple[NotNegative, ...] = option(
        (), "of the candidate, beside its own; [] for no such runs"
    )
    factors: tuple[Positive, ...] = option(
        (0.25, 0.5, 1.0, 2.0, 4.0),
        "learning rates, in units of the tuned one, for each gamma and for the baseline",
    )


@table
class Plan:
    """A whole pilot."""

    arms: tuple[str, ...] = option(
        ("adamw", "nadamw", "mars-adamw"), f"compared; known: {', '.join(ARMS)}"
    )
    task: TaskPlan = part(GptPlan, "What is trained.")
    training: TrainingPlan = part(TrainingPlan, "How every run is trained.")
    tuning: TuningPlan = part(
        TuningPlan, "Learning rates: every arm's is found at the same resolution."
    )
    comparison: ComparisonPlan = part(ComparisonPlan, "Paired seeds at the tuned rates.")
    decision: DecisionPlan = part(DecisionPlan, "The rule, fixed before the runs.")
    cost: CostPlan = part(CostPlan, "Money.")
    running: RunningPlan = part(RunningPlan, "How the runs are looked after.")
    sensitivity: SensitivityPlan = part(
        SensitivityPlan, "Loss over learning rate and gamma; runs after the comparison."
    )
    scale: dict[str, SizePlan] = part(dict, "Other model sizes: does the effect grow or shrink?")
    target: TargetPlan = part(
        TargetPlan, "The job that is paid for: what is left of the gain there?", sparse=True
    )
    arm: dict[str, Arm] = part(dict, "Settings of each arm.")
    recipe: Recipe = part(Recipe, "The published experiment that this is.", sparse=True)
    published: dict[str, Published] = part(dict, "What was published about each arm.")
    ours: dict[str, Ours] = part(dict, "What runs of this recipe gave us.")

    def __post_init__(self) -> None:
        """Resolve the arms' settings and check what no single key can tell.

        Raises:
            UserError: for an unknown arm or a plan that contradicts itself.
        """
        added = self._ablations() if self.comparison.ablations else {}
        names, given = (*self.arms, *(n for n in added if n not in self.arms)), added | self.arm
        _check_names(names, given)
        arm = {name: given.get(name) or default_arm(name, self.task) for name in names}
        task = with_metric(self.task, self.decision)
        for key, resolved in (("arms", names), ("arm", arm), ("task", task)):
            object.__setattr__(self, key, resolved)
        check_task(self.task, settings=sorted({k for a in arm.values() for k in a.settings}))
        check_metric(self.decision, self.task, self.training)
        check_recipe(self.recipe, self.published, self.ours, self.arms)
        models = any(size.layers or size.width or size.heads for size in self.scale.values())
        check_target(self.target, self.decision, self.cost.planned_tokens, models=models)
        check_comparison(self.comparison, self.arms)
        if self.task.kind != "imported":  # made from the runs that there are, be they too few
            check_seeds(self.comparison, (self.tuning.seed, *self.tuning.more_seeds))
            check_looks(self.comparison, self.decision.looks)
            if self.decision.target is None:
                check_ladder(self.comparison)
                check_ladder_seeds(self.comparison, trunk=self.training.trunk)
        self._check_sizes()
        self._check_arms()
        if self.task.kind == "command":
            self._check_training()
        if self.training.trunk:
            self._check_trunk()
        check_cost(self.cost)
        self._check_tuning()

    def _check_trunk(self) -> None:
        clashes = {
            "decision.target": (
                self.decision.target is not None,
                "which has no ladder to branch off",
            ),
            "comparison.lr_exponent": (
                self.comparison.lr_exponent != 0.0,
                "since all rungs of a trunk have its rate",
            ),
            "target.parameters": (
                bool(self.target),
                "whose forecast needs independent runs",
            ),
            "task.kind = 'imported'": (self.task.kind == "imported", "whose runs exist already"),
        }
        for key, (is_given, why) in clashes.items():
            if is_given:
                raise UserError(
                    f"training.trunk = true cannot be combined with {key}, {why}: leave one "
                    "of them out"
                )

    def _check_tuning(self) -> None:
        if self.tuning.by_design and self.task.kind == "imported":
            raise UserError(
                "tuning.over does not work with imported runs, which are tuned already and "
                "record learning rates only; leave it out"
            )
        check_tuning(self.tuning, self.arm, self.training.min_lr)
        if self.tuning.by_design and self.sensitivity.gammas:
            raise UserError(
                "sensitivity.gammas works only where the learning rate alone is tuned: leave "
                "it out, or set tuning.over = ['lr']"
            )
        if not self.tuning.by_design and self.tuning.max_trials < self.tuning.trials:
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
                if isinstance(self.task, CommandPlan):
                    check_settings(self.task.command, name, arm.arguments, arm.settings)
                continue
            check_arm(name, arm)
            check_carried(self.task, name, arm.optimizer)
            if self.training.min_lr >= arm.lr:
                raise UserError(
                    f"training.min_lr = {self.training.min_lr:g} must be below arm.{name}.lr = "
                    f"{arm.lr:g}"
                )

    def _ablations(self) -> dict[str, Arm]:
        known = {a: default_arm(a, self.task) for a in self.arms if a in ARMS} | self.arm
        baseline, candidate = self.comparison.baseline, self.comparison.candidate
        old, new = known.get(baseline), known.get(candidate)
        if old is None or new is None:
            return {}  # which check_comparison tells
        return ablation_arms(candidate, new, old)

    def _check_sizes(self) -> None:
        for name in self.scale:
            check_arm_name(name)
        if OWN_SIZE in self.scale:
            raise UserError(
                f"scale.{OWN_SIZE} is the name of the plan's own size; use another name"
            )
        if self.scale and self.task.kind != "gpt":
            raise UserError("scale works only with task.kind = 'gpt'; leave scale out")
        if self.sensitivity.gammas and self.arm[self.comparison.candidate].optimizer != "mars":
            raise UserError(
                f"sensitivity.gammas: the candidate {self.comparison.candidate} has no gamma "
                "here; leave it out"
            )
        if self.task.kind != "imported":
            check_sizes(self.sizes(), self.ladder)

    def _check_training(self) -> None:
        """A command has its own schedule: what would be passed over is refused."""
        assert isinstance(self.task, CommandPlan)
        check_branching(self.task.command, trunk=self.training.trunk)
        handed = ("decay", "decay_share", "trunk") if self.training.trunk else ()
        for f in fields(TrainingPlan):
            if f.name not in ("steps", *handed) and getattr(self.training, f.name) != f.default:
                raise UserError(
                    f"training.{f.name} is not passed to the command, which gets only the "
                    "steps of [training]; leave the key out"
                )

    @property
    def ladder(self) -> tuple[float, ...]:
        """Further budgets than the common one; none where the time to a target is what counts."""
        return self.comparison.ladder if self.decision.target is None else ()

    @property
    def both_ladders(self) -> bool:
        """Whether the candidate has a ladder of its own."""
        return self.training.trunk and self.comparison.candidate_ladder

    @property
    def trials_pair(self) -> bool:
        """Whether the tuning seed is a pair, with the losses that the fits of its trials give."""
        asked = self.comparison.trials_pair and self.task.kind != "imported"
        return asked and self.decision.target is None and not self.tuning.by_design

    @property
    def most_pairs(self) -> int:
        """Pairs that there are when all seeds are run."""
        return len(self.comparison.seeds) + self.trials_pair

    @property
    def first_look(self) -> int:
        """Seeds that are run before the first look of a plan that looks at every pair."""
        return FIRST_LOOK - self.trials_pair

    def rungs(self, arm: str) -> tuple[float, ...]:
        """Budgets of an arm's compared runs; with trunks the candidate may have a ladder too."""
        comparison = self.comparison
        both = self.both_ladders and arm == comparison.candidate
        return (1.0, *self.ladder) if both or arm == comparison.baseline else (1.0,)

    def budgets(self, arm: str, seed: int) -> tuple[float, ...]:
        """Budgets of an arm's compared runs of a seed: only some seeds may have further ones."""
        return self.rungs(arm) if seed in self.comparison.with_rungs else (1.0,)

    @property
    def job_cost(self) -> CostPlan:
        """``cost`` with the target's tokens, where there is a target."""
        tokens = self.target.tokens or self.cost.planned_tokens
        return replace(self.cost, planned_tokens=tokens)

    def sizes(self) -> tuple[Size, ...]:
        """The plan's own size, then the others, in the plan's order."""
        comparison = self.comparison
        own = Size(name=OWN_SIZE, task=self.task, training=self.training, arms=self.arms)
        if not self.scale:
            return (own,)
        roles = (comparison.baseline, CONTROL, comparison.candidate)
        arms = tuple(a for a in dict.fromkeys(roles) if a in self.arms)
        return (own, *(own.scaled(name, size, arms) for name, size in self.scale.items()))

    def size_of(self, spec: RunSpec) -> Size | None:
        """The size at which a run was made; None if under other settings than this plan's."""
        allowed = [self.arm.get(spec.arm_name)]
        if spec.arm_name == self.comparison.candidate and spec.purpose == "sensitivity":
            own = self.arm[spec.arm_name]
            allowed += [replace(own, gamma=gamma) for gamma in self.sensitivity.gammas]
        for size in self.sizes():  # the plan's own first, and mostly alone
            if spec.training == size.training and spec.task == size.task:
                known = spec.arm in allowed or self._is_trial(spec)
                return size if spec.arm_name in size.arms and known else None
        return None

    def _is_trial(self, spec: RunSpec) -> bool:
        """Whether a run's arm differs from the plan's in what is tuned only."""
        own, tuning = self.arm.get(spec.arm_name), self.tuning
        return own is not None and tuning.by_design and same_but_tuned(own, spec.arm, tuning.over)

    def covers(self, spec: RunSpec) -> bool:
        """Whether a run was made under this plan's settings."""
        return self.size_of(spec) is not None


def default_arm(name: str, task: Kinds) -> Arm:
    """The published default of an arm; of one that a command makes, its learning rate only."""
    if task.kind in EXTERNAL:
        return Arm(optimizer="external", lr=ARMS[name].lr)
    return ARMS[name]


def _check_names(names: tuple[str, ...], given: dict[str, Arm]) -> None:
    for name in (*names, *given):
        check_arm_name(name)
        if name not in ARMS and name not in given:
            hint = did_you_mean(name, ARMS) or f"; known: {', '.join(ARMS)}"
            raise UserError(f"unknown arm {name!r}{hint}; an arm of your own needs [arm.{name}]")
    for name in given:
        if name not in names:
            hint = did_you_mean(name, names)
            raise UserError(f"arm.{name} is not among arms = {list(names)}{hint}")
    if len(set(names)) < len(names):
        raise UserError(f"arms = {list(names)} names an arm twice")
