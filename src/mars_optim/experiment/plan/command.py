"""A command with placeholders: checked before the first run, filled in for each. No shell."""

from __future__ import annotations

import re
import shlex
import string
from collections.abc import Collection, Iterator, Mapping

from ...errors import UserError, did_you_mean

NEEDED = ("optimizer", "lr", "seed", "steps", "run_dir")
BRANCHING = ("init_from", "decay_steps", "save_steps")
ALLOWED = (*NEEDED, "arm_args", "python", *BRANCHING)
ARGUMENTS = "{arm_args}"
_SETTING = re.compile(r"\{([A-Za-z_]\w*)\}")


def check_command(command: str, settings: Collection[str] = ()) -> None:
    """See that a command can be split into words and names all that a run needs.

    Args:
        command: of a plan.
        settings: further placeholders, which arms have values for.

    Raises:
        UserError: for an unknown or a missing placeholder, or an open quote.
    """
    if not command.strip():
        raise UserError(
            "task.command is empty: give one such as 'python train.py --optimizer {optimizer} --lr "
            "{lr} --seed {seed} --steps {steps} --out {run_dir}'"
        )
    found: set[str] = set()
    for word in split(command, "task.command"):
        for name in _names(word):
            if name not in (*ALLOWED, *settings):
                known = (*ALLOWED, *settings)
                hint = did_you_mean(name, known) or f"; known: {', '.join(known)}"
                raise UserError(
                    f"task.command has the unknown placeholder {{{name}}}{hint} (write "
                    "literal braces as {{ and }}; a placeholder of your own needs a "
                    "value in arm.*.settings)"
                )
            if name == "arm_args" and word != ARGUMENTS:
                raise UserError(
                    f"task.command: {ARGUMENTS} must be a word of its own, not in {word!r}"
                )
            found.add(name)
    missing = [f"{{{name}}}" for name in NEEDED if name not in found]
    if missing:
        raise UserError(
            f"task.command lacks {', '.join(missing)}: without it, the runs would be alike in "
            "what is compared; add it"
        )


def check_branching(command: str, *, trunk: bool) -> None:
    """See that a command can start from a trunk and be one, if and only if there are trunks.

    Raises:
        UserError: naming the placeholders.
    """
    found = {name for word in split(command, "task.command") for name in _names(word)}
    lacking = [f"{{{name}}}" for name in BRANCHING if name not in found]
    given = [f"{{{name}}}" for name in BRANCHING if name in found]
    if trunk and lacking:
        raise UserError(
            f"task.command lacks {', '.join(lacking)}, which training.trunk = true needs: the "
            "state to start from ('' for none), the number of last steps that decay, and the "
            "steps at which to save the state to {run_dir}/step-N (docs/your-job.md)"
        )
    if given and not trunk:
        raise UserError(
            f"task.command has {', '.join(given)}, which works only with training.trunk = "
            "true (and training.decay = 'wsd'): set them, or leave it out"
        )


def check_settings(command: str, arm: str, arguments: str, settings: Mapping[str, object]) -> None:
    """See that an arm has a value for each placeholder, and a placeholder for each value.

    Args:
        command: of the plan.
        arm: its name.
        arguments: of the arm.
        settings: of the arm.

    Raises:
        UserError: naming the setting.
    """
    where = f"arm.{arm}.settings"
    for name, value in settings.items():
        if not re.fullmatch(r"[A-Za-z_]\w*", name) or name in ALLOWED:
            raise UserError(
                f"{where} has the name {name!r}, which must be letters, digits and '_', and "
                f"none of {', '.join(ALLOWED)}"
            )
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UserError(
                f"{where}.{name} = {value!r} must be a number; texts belong into arguments"
            )
    named = {name for word in split(command, "task.command") for name in _names(word)}
    for name in sorted(named - settings.keys() - set(ALLOWED)):
        raise UserError(
            f"task.command uses {{{name}}}, and arm.{arm} has no value for it: set "
            f"{where}.{name}, or move {{{name}}} into the arguments of the arms that have it"
        )
    named |= set(_SETTING.findall(arguments))
    for name in sorted(settings.keys() - named):
        raise UserError(
            f"{where}.{name} is not used: write {{{name}}} into task.command or into "
            f"arm.{arm}.arguments, or leave it out"
        )


def fill_settings(arguments: str, settings: Mapping[str, object]) -> str:
    """An arm's arguments with its settings in them; other braces stay as they are."""
    return _SETTING.sub(
        lambda found: repr(settings[found[1]]) if found[1] in settings else found[0], arguments
    )


def fill_command(command: str, values: Mapping[str, str]) -> list[str]:
    """The words of a run.

    Args:
        command: as in the plan.
        values: of every placeholder; that of ``arm_args`` is split into words as a shell would.
    """
    words: list[str] = []
    for word in split(command, "task.command"):
        if word == ARGUMENTS:
            words += split(values["arm_args"], "arguments")
        else:
            words.append(word.format_map(values))
    return words


def fixed_words(command: str) -> list[str]:
    """The words of a command that are the same in every run."""
    return [w.format() for w in split(command, "task.command") if not any(True for _ in _names(w))]


def split(text: str, where: str) -> list[str]:
    """Split as a shell would.

    Raises:
        UserError: for an open quote.
    """
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UserError(f"{where} = {text!r} cannot be split into words: {error}") from None


def _names(word: str) -> Iterator[str]:
    try:
        parts = list(string.Formatter().parse(word))
    except ValueError as error:
        raise UserError(
            f"task.command: {word!r} has a misplaced brace ({error}); write literal braces as "
            "{{ and }}"
        ) from None
    for _, name, form, conversion in parts:
        if name is None:
            continue
        if form or conversion:
            raise UserError(f"task.command: write {{{name}}} without a format, in {word!r}")
        yield name
