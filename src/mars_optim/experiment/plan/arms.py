"""The optimizers that a pilot can compare, each with its own published defaults."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from ...errors import UserError
from ...optimizer_options import (
    GAMMA_FORMS,
    MATRIX_RULES,
    NAMED,
    NS_SETS,
    TABLE,
    ClipOver,
    Correction,
    GammaSchedule,
    Rule,
)
from .any_arm import (
    BESIDE,
    OURS,
    check_keywords,
    check_route,
    is_any,
    known_or_any,
    split_name,
)
from .table import (
    ANY_CLASS,
    Flag,
    KeywordTable,
    Number,
    NumberOrNone,
    Whole,
    option,
    table,
)

HIGHEST_LR = 1e6
"""Highest rate of any optimizer: beyond, a search for the rate overflows single precision."""

Beta = Annotated[Number, Field(ge=0.0, le=0.999999)]

_OURS = ("optimizer", OURS)
_MARS = ("optimizer", ("mars",))
_ANY = ("optimizer", (ANY_CLASS,))
_MADE = ("optimizer", (*OURS, ANY_CLASS))
_MARS_OR_ANY = ("optimizer", ("mars", ANY_CLASS))


@table
class Arm:
    """One optimizer with its own published defaults, or the name of one that a command makes."""

    optimizer: Annotated[str, BeforeValidator(known_or_any)] = option(
        "mars",
        '"torch-adamw", "torch-nadam", "greedy-alignment", "mars", any class by its name '
        '("pytorch_optimizer:SOAP", "my_optimizer.py:Mine") or, by a command, "external"',
    )
    rule: Rule = option("adamw", '"adamw", "lion", "shampoo" or "muon"', of=_OURS)
    lr: Number = option(3e-3, "where tuning starts", gt=0.0, le=HIGHEST_LR)
    betas: tuple[Beta, Beta] = option((0.95, 0.99), "both in [0, 1)", of=_OURS)
    weight_decay: Number = option(0.01, "of matrices, decoupled, times lr", ge=0.0, of=_OURS)
    gamma: Number = option(0.025, TABLE["gamma"].text, ge=0.0, of=_OURS)
    clip: NumberOrNone = option(
        1.0, "per-tensor clip of c_t; 0 for none", none=0.0, ge=0.0, of=_OURS
    )
    correction: Correction = option("approx", TABLE["correction"].text, of=_OURS)
    gamma_schedule: GammaSchedule = option("constant", TABLE["gamma_schedule"].text, of=_OURS)
    clip_over: ClipOver = option("tensor", TABLE["clip_over"].text, of=_OURS)
    cautious: Flag = option(False, TABLE["cautious"].text, of=_OURS)
    lr_1d: NumberOrNone = option(
        None,
        "of vectors, and of embeddings beside a rule that orthogonalises; 0 for lr; not tuned",
        none=0.0,
        ge=0.0,
        le=HIGHEST_LR,
        of=_MADE,
    )
    lr_1d_ratio: NumberOrNone = option(
        None,
        "the same as a multiple of lr, also of a tuned one; 0 for lr_1d",
        none=0.0,
        ge=0.0,
        of=_MADE,
    )
    betas_1d: tuple[Beta, Beta] = option(
        (0.9, 0.95), "of the same; both in [0, 1)", of=_MARS_OR_ANY
    )
    weight_decay_1d: Number = option(0.0, "of vectors", ge=0.0, of=_MADE)
    split: Literal["none", "fused", "heads"] = option(
        "none",
        'what is orthogonalised by itself: weights as stored, "fused" (queries, keys, values, gate '
        'and up in one weight apart) or "heads"',
        of=_MARS,
    )
    ns_steps: Whole = option(5, TABLE["ns_steps"].text, ge=1, le=99, of=_MARS)
    ns_coefficients: Literal["simple", "quintic", "polar_express", "cans", "deepseek_v4"] = option(
        "simple", "of Newton-Schulz's polynomials: docs/newton-schulz.md", of=_MARS
    )
    options: KeywordTable = option(
        KeywordTable(), "keyword arguments of the class, weight_decay among them", of=_ANY
    )
    parameters: Literal["all", "groups", "matrices"] = option(
        "groups",
        'what the class is given: "groups", all parameters as they are sorted for the other arms '
        '(no decay of embeddings and vectors); "all" of them in one, as by its own readme; or '
        '"matrices", with AdamW for the others',
        of=_ANY,
    )
    group_options: KeywordTable = option(
        KeywordTable(),
        "further keys of its parameter groups, such as {matrix = {use_muon = true}}",
        of=_ANY,
        sparse=True,
    )
    own_schedule: Flag = option(
        False,
        "true where it has a schedule of its own (schedule-free): the rate stays at lr, without "
        "the plan's warm-up and decay",
        of=_ANY,
    )
    folder: str = option(
        "",
        "where a file or package of the class lies; relative to this file",
        of=_ANY,
        compare=False,
        sparse=True,
    )
    source: str = option(
        "",
        "the code of the class, written by the pilot: another version is another run",
        of=_ANY,
        sparse=True,
    )
    arguments: str = option(
        "", "what {arm_args} stands for in task.command", of=("optimizer", ("external",))
    )
    settings: KeywordTable = option(
        KeywordTable(),
        "numbers that {NAME} stands for in task.command and in arguments; tuning.over may name "
        "them",
        of=("optimizer", ("external",)),
        sparse=True,
    )


def check_arm_name(name: str) -> None:
    """Raise UserError unless ``name`` can be part of a folder's name anywhere."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}", name):
        raise UserError(
            f"arm name {name!r} must be 1 to 40 letters, digits, '.', '_' or '-', and begin with a "
            "letter or digit"
        )


def check_arm(name: str, arm: Arm) -> None:
    """Raise UserError for options that cannot go together, of an arm that no command makes."""
    if arm.lr_1d and arm.lr_1d_ratio:
        raise UserError(
            f"arm.{name}: lr_1d = {arm.lr_1d:g} and lr_1d_ratio = {arm.lr_1d_ratio:g} exclude "
            "each other: set one of them to 0"
        )
    if is_any(arm.optimizer):
        split_name(arm.optimizer, f"arm.{name}.optimizer")
        check_keywords(name, arm.options, arm.group_options)
        given = {f.name: getattr(arm, f.name) for f in fields(Arm) if f.name in BESIDE}
        none = Arm()
        check_route(name, arm.parameters, {k: v for k, v in given.items() if v != getattr(none, k)})
        return
    if arm.optimizer != "mars" and (arm.rule, arm.gamma, arm.clip) != ("adamw", 0, None):
        raise UserError(
            f"arm.{name}: optimizer = {arm.optimizer!r} takes no rule, gamma or clip: set "
            "rule = 'adamw', gamma = 0, clip = 0, or optimizer = 'mars'"
        )
    own = (arm.gamma_schedule, arm.clip_over, arm.cautious)
    if arm.optimizer != "mars" and own != ("constant", "tensor", False):
        raise UserError(
            f"arm.{name}: optimizer = {arm.optimizer!r} takes no gamma_schedule, clip_over or "
            "cautious: leave them out, or use optimizer = 'mars' (gamma = 0 is AdamW)"
        )
    _check_newton_schulz(name, arm)
    forms = GAMMA_FORMS.get(arm.gamma_schedule)
    if forms and arm.correction not in forms:
        raise UserError(
            f"arm.{name}.gamma_schedule = {arm.gamma_schedule!r} cannot be combined with "
            f"correction = {arm.correction!r}: use {' or '.join(map(repr, forms))}, or "
            "gamma_schedule 'lr', 'sqrt_lr' or 'constant'"
        )
    if forms and arm.betas[0] == 0:
        raise UserError(
            f"arm.{name}.gamma_schedule = {arm.gamma_schedule!r} needs betas[0] above 0"
        )
    if arm.correction == "folded" and arm.clip:
        raise UserError(
            f"arm.{name}.clip = {arm.clip} cannot be combined with correction = 'folded': set "
            "clip = 0"
        )


def _check_newton_schulz(name: str, arm: Arm) -> None:
    """Raise UserError for settings of Newton-Schulz that the arm has no use for."""
    own = {key: getattr(arm, key) for key in ("split", "ns_steps", "ns_coefficients")}
    changed = [key for key, value in own.items() if value != getattr(Arm(), key)]
    if changed and arm.rule not in MATRIX_RULES:
        raise UserError(
            f"arm.{name}.{changed[0]} = {own[changed[0]]!r} belongs to Newton-Schulz, which "
            f"rule = {arm.rule!r} does not use: leave it out, or use rule = 'muon' or "
            "'shampoo'"
        )
    needed = len(NS_SETS["deepseek_v4"])
    if arm.ns_coefficients == "deepseek_v4" and arm.ns_steps < needed:
        raise UserError(
            f"arm.{name}.ns_coefficients = 'deepseek_v4' needs all of its {needed} steps: set "
            f"ns_steps = {needed}"
        )


# Published defaults: GPT-2's AdamW; ours by their names.
ARMS: dict[str, Arm] = {
    "adamw": Arm(
        optimizer="torch-adamw", lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, gamma=0.0, clip=None
    ),
    **{name: Arm(**settings) for name, settings in NAMED.items()},
    # torch's own NAdam: its momentum schedule keeps it near half of beta1 in short runs
    "torch-nadam": Arm(
        optimizer="torch-nadam", lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, gamma=0.0, clip=None
    ),
    # AdamW whose beta1 is picked in every step out of 0.5, betas[0] and 0.99 (arXiv 2512.06370)
    "greedy-alignment": Arm(
        optimizer="greedy-alignment",
        lr=1e-3,
        betas=(0.9, 0.95),
        weight_decay=0.1,
        gamma=0.0,
        clip=None,
    ),
}

CONTROL = "nadamw"
"""The arm that has MARS's lag-reducing half alone."""

ABLATIONS = ("plain", "no-clip", "clip-only", "baseline-betas")


def ablation_name(candidate: str, kind: str) -> str:
    """Name of the arm that takes something away from the candidate; ``kind`` of ABLATIONS."""
    return f"{candidate}-{kind}"


def ablation_arms(name: str, candidate: Arm, baseline: Arm) -> dict[str, Arm]:
    """The candidate with one thing taken away at a time; each is tuned like any other arm.

    - ``plain``: neither correction nor clip: the bare rule with the candidate's betas and decay.
    - ``no-clip``: the correction without its clip.
    - ``clip-only``: the clip without the correction.
    - ``baseline-betas``: the baseline's betas, and the gamma that keeps the correction's strength
      gamma beta1 / (1 - beta1): at an unchanged gamma other betas would change that too.

    Those that would equal the candidate, or have no meaning, are left out.

    Raises:
        UserError: if the candidate has neither correction nor clip to take away.
    """
    if candidate.optimizer != "mars" or not (candidate.gamma or candidate.clip):
        raise UserError(
            f"comparison.ablations: {name} has neither gamma nor clip to remove; set it to false"
        )
    found = {"plain": replace(candidate, gamma=0.0, clip=None)}
    if candidate.clip and candidate.gamma:
        found["no-clip"] = replace(candidate, clip=None)
        found["clip-only"] = replace(candidate, gamma=0.0)
    beta, other = candidate.betas[0], baseline.betas[0]
    alike = baseline.rule == candidate.rule and not is_any(baseline.optimizer)
    if alike and baseline.betas != candidate.betas and other and beta:
        strength = candidate.gamma * beta / (1 - beta)
        gamma = strength * (1 - other) / other
        found["baseline-betas"] = replace(candidate, betas=baseline.betas, gamma=gamma)
    return {ablation_name(name, kind): arm for kind, arm in found.items()}


ARMS |= ablation_arms("mars-adamw", ARMS["mars-adamw"], ARMS["adamw"])
