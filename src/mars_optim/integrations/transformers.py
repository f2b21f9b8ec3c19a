"""For the Trainer of Hugging Face transformers: groups by module and name instead of its two."""

from __future__ import annotations

import ast
import dataclasses
import time
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn
from transformers import TrainerCallback, TrainingArguments

from ..optim import MARS, create, list_optimizers
from ..optim.named import grouped
from ..optimizer_options import NAMED, TABLE
from .plain import RecordMetrics as _Metrics

_TRAINERS_OWN = {"lr": "learning_rate", "weight_decay": "weight_decay"}
_ADAMS = {"beta1": "adam_beta1", "beta2": "adam_beta2", "eps": "adam_epsilon"}


class GroupedMARS:
    """Factory for ``Trainer(optimizer_cls_and_kwargs=(GroupedMARS, {...}))``.

    The Trainer sorts parameters by name into two groups, decayed or not, and knows no embeddings
    or heads. This hands it ``MARS(param_groups(model, ...))`` instead::

        Trainer(..., optimizer_cls_and_kwargs=(GroupedMARS, {"rule": "muon", "lr": 6e-3}))

    The Trainer passes neither ``learning_rate`` nor ``weight_decay`` of its arguments: give
    them here.
    """

    def __call__(self, model: nn.Module, **options: Any) -> MARS:
        """The optimizer of ``model``.

        Args:
            model: as the Trainer trains it.
            **options: those of :func:`~mars_optim.param_groups`; any others (``eps``, ``amsgrad``,
                ``foreach``, ``fused``, ...) are of :class:`~mars_optim.MARS`.

        Raises:
            TypeError: for an option that neither has.
        """
        return grouped(model, **options)


def register() -> list[str]:
    """Let ``--optim`` and ``TrainingArguments(optim=...)`` take our names, in this process.

        mars_optim.integrations.transformers.register()
        args = TrainingArguments(optim="mars-adamw", optim_args="gamma=auto", learning_rate=1e-3)

    Call it before arguments are parsed, also where they are read back from ``training_args.bin``.
    ``learning_rate`` and ``weight_decay`` are the Trainer's, and so are ``adam_beta1``,
    ``adam_beta2`` and ``adam_epsilon`` where they are not its defaults. The rest is as in
    :func:`mars_optim.create`, changed by ``optim_args``: ``name=value``, separated by commas, with
    ``beta1=0.9,beta2=0.95`` for the betas. The Trainer raises ValueError where both are given and
    differ, or ``optim_args`` has a rate or decay.

    Returns:
        The names. Those that transformers has itself stay its own, and are not among them.

    Raises:
        ImportError: if transformers has no table of optimizers (it has one since version 5).
    """
    from transformers.trainer_optimizer import _OPTIMIZER_HANDLERS
    from transformers.training_args import OptimizerNames

    known, ours = OptimizerNames._value2member_map_, []
    for name in list_optimizers():
        if name not in known:
            member = str.__new__(OptimizerNames, name)
            member._name_, member._value_ = name.upper().replace("-", "_"), name
            known[name] = OptimizerNames._member_map_[member._name_] = member
            OptimizerNames._member_names_.append(member._name_)
            _OPTIMIZER_HANDLERS[member] = _made_by_name
        if _OPTIMIZER_HANDLERS.get(name) is _made_by_name:
            ours.append(name)
    return ours


def _made_by_name(context: Any) -> tuple[Any, dict[str, Any]]:
    """The form that the Trainer's table of optimizers wants: a factory's factory, and its
    options."""
    args, name = context.args, context.args.optim.value
    options = {key: _literal(text) for key, text in context.optim_args.items()}
    for key, argument in _TRAINERS_OWN.items():
        if key in options:
            raise ValueError(
                f"optim_args has {key}={options[key]!r}, but the Trainer's {argument} is the one "
                "that counts: give it there"
            )
    if "betas" in options:
        raise ValueError(f"optim_args has betas={options['betas']!r}: give beta1= and beta2=")
    _take_adams(options, args)
    own = NAMED[name].get("betas", TABLE["betas"].default)
    options["betas"] = options.pop("beta1", own[0]), options.pop("beta2", own[1])
    options |= {"lr": args.learning_rate, "weight_decay": args.weight_decay}
    return partial(partial, create, name), options


def _take_adams(options: dict[str, Any], args: TrainingArguments) -> None:
    """Put the Trainer's betas and epsilon into ``options``, where they are not its defaults."""
    defaults = {field.name: field.default for field in dataclasses.fields(TrainingArguments)}
    for key, argument in _ADAMS.items():
        value = getattr(args, argument)
        if value == defaults[argument]:
            continue
        if options.setdefault(key, value) != value:
            raise ValueError(
                f"optim_args has {key}={options[key]!r} and {argument}={value!r}: give one of them"
            )


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


class RecordMetrics(TrainerCallback):
    """Writes what the Trainer logs where ``mars pilot`` reads it: ``metrics.jsonl``.

        Trainer(..., callbacks=[RecordMetrics(run_dir)])

    The last evaluation must come after the last step: call ``trainer.evaluate()`` once trained.

    Args:
        run_dir: what ``{run_dir}`` of the command stands for.
    """

    def __init__(self, run_dir: str | Path) -> None:
        self.run_dir = run_dir
        self.seconds = 0.0
        self._start = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """A training step starts."""
        self._start = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        """A training step is over."""
        self.seconds += time.perf_counter() - self._start

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **more: Any
    ) -> None:
        """Write the losses that are in ``logs``, and metrics of an evaluation by their names."""
        names = {"loss": "loss", "eval_loss": "valid_loss", "grad_norm": "grad_norm"}
        logs = logs or {}
        names |= {key: key for key in logs if key.startswith("eval_") and key not in names}
        row = {ours: float(logs[theirs]) for theirs, ours in names.items() if theirs in logs}
        if not row:
            return
        if state.num_input_tokens_seen:
            row["tokens"] = state.num_input_tokens_seen
        record = _Metrics(self.run_dir, write=state.is_world_process_zero)
        record(step=state.global_step, seconds=self.seconds, **row)
