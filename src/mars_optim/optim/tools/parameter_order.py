"""In which order a saved optimizer held the model's parameters.

A state dict numbers them. Hosts sort parameters into decayed and undecayed ones, so the numbers are
not in the model's order. Names tell; else the host's way of sorting does, if it is said.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from ...optimizer_options import check_choice
from ..groups.names import clean
from .state_dict import names_of

Named = tuple[str, Tensor]
Order = Literal["given", "ndim", "trainer"] | Sequence[str]
_PARAMS = "give the model, model.named_parameters(), or tensors"
ORDERS = ("given", "ndim", "trainer")
WHAT = {
    "given": "as params gives them",
    "ndim": "matrices and vectors apart, as nanoGPT and MARS have them",
    "trainer": "norms and biases apart, as transformers' Trainer has them",
}
# The Trainer's own (get_decay_parameter_names), beside nn.LayerNorm
TRAINER_UNDECAYED = (
    r"bias",
    r"layernorm",
    r"rmsnorm",
    r"(?:^|\.)norm(?:$|\.)",
    r"_norm(?:$|\.)",
)


@dataclass(frozen=True, slots=True)
class Given:
    """The parameters as the user gave them.

    Args:
        named: (name, tensor) pairs, the name "" where there is none.
        names: every name of each tensor, tied ones too.
        model: if it was given.
    """

    named: list[Named]
    names: Mapping[str, Tensor]
    model: nn.Module | None

    @classmethod
    def of(cls, params: nn.Module | Iterable[Tensor | Named]) -> Given:
        """The parameters of a model, named parameters, or bare tensors.

        Raises:
            ValueError: for anything else.
        """
        if isinstance(params, nn.Module):
            every = dict(params.named_parameters(remove_duplicate=False))
            return cls(list(params.named_parameters()), every, params)
        if not isinstance(params, Iterable):
            raise ValueError(f"params is {type(params).__name__}: {_PARAMS}")
        named = [p if isinstance(p, tuple) else ("", p) for p in params]
        for pair in named:
            if not (len(pair) == 2 and isinstance(pair[0], str) and isinstance(pair[1], Tensor)):
                raise ValueError(f"params holds {str(pair[-1])[:60]!r}: {_PARAMS}")
        return cls(named, {n: p for n, p in named if n}, None)

    @property
    def trainable(self) -> list[Named]:
        """Those that a host gives to its optimizer."""
        return [(n, p) for n, p in self.named if p.requires_grad]


def in_order(saved: Mapping[str, Any], given: Given, order: Order | None) -> list[Named]:
    """The parameters in the order of the saved optimizer.

    Args:
        saved: its state dict.
        given: the parameters.
        order: how they were sorted (default: None, by names where the checkpoint has them, else
            as they are given).

    Raises:
        ValueError: if they do not fit, or could be meant in two ways; says which order would do.
    """
    _check_order(order, given)
    names = names_of(saved)
    if order is None and names and len(given.names) >= len(given.named):
        return by_name(names, given)
    if order is None and sum(map(bool, sizes(saved))) > 1:
        _check_meant_as_given(saved, given)
    tried = readings(saved, given, "given" if order is None else order)
    fitting = distinct(r for r in tried if misfit(saved, r) is None)
    if len(fitting) == 1:
        _check_names(fitting[0], names)
        return fitting[0]
    if fitting:
        raise ValueError(
            f"order={order!r} can be read in {len(fitting)} ways, and the shapes of the "
            "moments do not decide between them: give params in the order of the saved "
            "optimizer, and order='given'"
        )
    raise ValueError(_why_not(saved, given, order, tried))


def by_name(names: Sequence[str], given: Given) -> list[Named]:
    """The parameters called ``names``, with the names that they have now.

    Raises:
        ValueError: naming one that only the model has, or only the checkpoint.
    """
    params: dict[str, Tensor] = {}
    for name, param in given.names.items():
        if params.setdefault(clean(name), param) is not param:
            raise ValueError(f"two of params are called {clean(name)!r}: give the model itself")
    now = {id(p): n for n, p in given.named}
    strangers = [n for n in names if clean(n) not in params]
    held = {id(params[clean(n)]) for n in names if clean(n) in params}
    missing = [n for n, p in given.trainable if id(p) not in held]
    if strangers or missing:
        only = [f"only params has {missing[0]!r}"] if missing else []
        only += [f"only the checkpoint has {strangers[0]!r}"] if strangers else []
        raise ValueError(
            f"names differ: {' and '.join(only)}. Give the model that was saved; if its "
            "parameters were renamed, give bare tensors in the order of the saved optimizer"
        )
    if len(held) != len(names):
        raise ValueError(f"params has {len(held)} tensors, and the checkpoint has {len(names)}")
    return [(now[id(params[clean(n)])], params[clean(n)]) for n in names]


def readings(saved: Mapping[str, Any], given: Given, order: Order) -> list[list[Named]]:
    """The orders that ``order`` can mean for a checkpoint with these groups."""
    if order == "given":
        count = sum(sizes(saved))
        alike = len(given.named) == count or len(given.trainable) != count
        return [given.named if alike else given.trainable]
    apart = _undecayed(given, order)
    halves = [
        [x for x in given.trainable if id(x[1]) not in apart],
        [x for x in given.trainable if id(x[1]) in apart],
    ]
    ways = [halves, halves[::-1]]
    if all("rule" in group for group in saved["param_groups"]):  # MARS has split them again
        ways += [[part for half in way for part in _by_ndim(half)] for way in ways]
    wanted = [size for size in sizes(saved) if size]
    fitting = [way for way in ways if [len(part) for part in way if part] == wanted]
    return distinct([x for part in way for x in part] for way in fitting)


def distinct(orders: Iterable[list[Named]]) -> list[list[Named]]:
    """Each order of tensors once."""
    return list({tuple(id(p) for _, p in order): order for order in orders}.values())


def sizes(saved: Mapping[str, Any]) -> list[int]:
    """How many parameters each group has."""
    return [len(group["params"]) for group in saved["param_groups"]]


def misfit(saved: Mapping[str, Any], order: list[Named]) -> str | None:
    """Why the parameters cannot be in this order, or None."""
    ids = [i for group in saved["param_groups"] for i in group["params"]]
    if len(ids) != len(order):
        return f"params has {len(order)} tensors, the checkpoint {len(ids)}"
    for i, (name, param) in zip(ids, order, strict=True):
        moment = saved["state"].get(i, {}).get("exp_avg")
        if moment is not None and moment.shape != param.shape:
            return (
                f"parameter {repr(name) if name else i} has shape {tuple(param.shape)}, where the "
                f"checkpoint's moment has "
                f"{tuple(moment.shape)}"
            )
    return None


def usual(given: Given) -> tuple[Literal["ndim", "trainer"], ...]:
    """The orders of hosts that can be told of these parameters."""
    return ("ndim",) if given.model is None else ("ndim", "trainer")


def _undecayed(given: Given, order: Order) -> set[int]:
    """ids of the parameters that ``order`` leaves without decay."""
    if order == "ndim":
        return {id(p) for _, p in given.named if p.ndim < 2}
    patterns = TRAINER_UNDECAYED if order == "trainer" else order
    norms = tuple(_norms(given)) if order == "trainer" else ()
    return {id(p) for n, p in given.named if _any(patterns, n) or n.startswith(norms)}


def _any(patterns: Sequence[str], name: str) -> bool:
    return any(re.search(pattern, name, re.IGNORECASE) for pattern in patterns)


def _norms(given: Given) -> list[str]:
    assert given.model is not None
    modules = given.model.named_modules(remove_duplicate=False)
    return [f"{name}." for name, module in modules if name and isinstance(module, nn.LayerNorm)]


def _by_ndim(part: list[Named]) -> list[list[Named]]:
    return [[x for x in part if x[1].ndim >= 2], [x for x in part if x[1].ndim < 2]]


def _check_order(order: Order | None, given: Given) -> None:
    if order is None:
        return
    if isinstance(order, str):
        check_choice("order", order, ORDERS)
        if order == "trainer" and given.model is None:
            raise ValueError(
                "order='trainer' needs the modules (nn.LayerNorm): give the model itself as params"
            )
        return
    for pattern in order:
        try:
            found = any(_any([pattern], n) for n, _ in given.named)
        except (re.error, TypeError) as error:
            raise ValueError(f"order: {pattern!r} is not a regular expression: {error}") from None
        if not found:
            raise ValueError(f"order: {pattern!r} matches no name of params")


def _check_meant_as_given(saved: Mapping[str, Any], given: Given) -> None:
    """Raise ValueError where an order of hosts would fit as well as the one that is given."""
    (plain,) = readings(saved, given, "given")
    if misfit(saved, plain) is not None:
        return
    for name in usual(given):
        others = [r for r in readings(saved, given, name) if misfit(saved, r) is None]
        if len(distinct([plain, *others])) > 1:
            raise ValueError(
                f"params fits the checkpoint's groups of {sizes(saved)} both as given and by "
                f"order={name!r} ({WHAT[name]}), and the two differ: choose order='given' or "
                f"order={name!r}"
            )


def _check_names(order: list[Named], saved: Sequence[str] | None) -> None:
    """Raise ValueError where a name of the checkpoint's says that another parameter is meant."""
    for (name, _), other in zip(order, saved or (), strict=False):
        if name and clean(name) != clean(other):
            raise ValueError(
                f"parameter {name!r} stands where the checkpoint has {other!r}: leave order out, "
                "and names decide; or give bare tensors, which have none"
            )


def _why_not(
    saved: Mapping[str, Any], given: Given, order: Order | None, tried: list[list[Named]]
) -> str:
    """One line: what does not fit, what was expected, and which order would do."""
    wanted = sizes(saved)
    if not tried:
        parts = len(_undecayed(given, order or "ndim"))
        reason = (
            f"order={order!r} makes groups of {len(given.trainable) - parts} and {parts}, the "
            f"checkpoint has {wanted}"
        )
    else:
        reason = misfit(saved, tried[0]) or ""
    fit = [
        name
        for name in usual(given)
        if name != order
        and len(distinct(r for r in readings(saved, given, name) if misfit(saved, r) is None)) == 1
    ]
    if names_of(saved) and given.names:
        return f"{reason}; the checkpoint has names, which decide without order"
    if fit:
        return f"{reason}; order={fit[0]!r} fits: {WHAT[fit[0]]}"
    if len(tried) == 1 and len(tried[0]) != sum(wanted):
        return f"{reason}: another model, or parameters that it did not hold"
    more = "" if given.model is not None else ", or give the model itself and order='trainer'"
    return (
        f"{reason}: the order or the model differs. Expected is the order of the saved optimizer, "
        f"whose groups have {wanted} tensors, beginning with {_beginnings(saved)}{more}"
    )


def _beginnings(saved: Mapping[str, Any]) -> str:
    """The first shapes of each group, as far as its moments tell."""
    rows = []
    for group in saved["param_groups"]:
        moments = [saved["state"].get(i, {}).get("exp_avg") for i in group["params"][:2]]
        rows.append(" ".join("?" if m is None else str(tuple(m.shape)) for m in moments) or "none")
    return " / ".join(rows[:4])
