"""TOML or JSON data <-> frozen dataclasses, with errors that name the key, value and range."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import types
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from .errors import UserError, did_you_mean

T = TypeVar("T")

LARGEST = 1e22
"""Of any number that has no limit of its own: beyond, arithmetic in single precision overflows."""


def option(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    choices: tuple[str, ...] = (),
    of: tuple[str, tuple[str, ...]] | None = None,
    compare: bool = True,
) -> Any:
    """A dataclass field with its comment and its allowed range.

    Args:
        default: as for :func:`dataclasses.field`.
        help: the comment.
        low: least value.
        high: greatest value.
        above: what a number must be greater than.
        choices: allowed texts.
        of: another field and the values of it that this one goes with. Under others it must keep
            its default, and is not written.
        compare: whether the field counts where two dataclasses are compared.
    """
    metadata = dict(help=help, low=low, high=high, above=above, choices=choices, of=of)
    return dataclasses.field(default=default, metadata=metadata, compare=compare)


def concerned(field: dataclasses.Field[Any], holder: Any) -> bool:
    """Whether a field means anything, given the other fields of its holder."""
    of = field.metadata.get("of")
    return of is None or getattr(holder, of[0]) in of[1]


def from_dict(cls: type[T], data: Any, where: str = "") -> T:
    """Build the dataclass ``cls`` from plain data; missing keys take their defaults.

    Args:
        cls: a dataclass whose fields are numbers, strings, tuples, mappings or dataclasses.
        data: as parsed from TOML or JSON.
        where: path of ``data`` in its file, for messages.

    Raises:
        UserError: for an unknown key, a wrong type or a value out of range.
    """
    made = _build(cls, data, where)
    check(made, where)
    return made


def _build(cls: type[T], data: Any, where: str) -> T:
    if not isinstance(data, Mapping):
        raise UserError(f"{where or 'plan'} must be a table, not {_show(data)}")
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    hints = get_type_hints(cls)
    values = {}
    for key, value in data.items():
        path = f"{where}.{key}" if where else key
        if key not in fields:
            prefix = f"{where}." if where else ""
            hint = did_you_mean(key, fields, prefix)
            hint = hint or f"; allowed: {', '.join(fields)}"
            raise UserError(f"unknown key {path!r}{hint}")
        values[key] = _convert(hints[key], value, path)
    missing = [
        name
        for name, f in fields.items()
        if name not in values
        and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise UserError(f"{where or 'plan'} needs the key {missing[0]!r}")
    return cls(**values)


def check(value: Any, where: str = "") -> None:
    """Check the ranges in a dataclass and those it holds, however it was made.

    Raises:
        UserError: naming the key, its value and what is allowed.
    """
    for f in dataclasses.fields(value):
        entry, path = getattr(value, f.name), f"{where}.{f.name}" if where else f.name
        if not concerned(f, value):
            if entry != f.default:
                key, allowed = f.metadata["of"]
                wanted = " or ".join(map(repr, allowed))
                raise UserError(
                    f"{path} = {_show(entry)} goes with {key} = {wanted}, not with {key} = "
                    f"{getattr(value, key)!r}"
                )
        elif dataclasses.is_dataclass(entry):
            check(entry, path)
        elif isinstance(entry, Mapping):
            for key, sub in entry.items():
                check(sub, f"{path}.{key}")
        else:
            _check_range(entry, f.metadata, path)


def _convert(hint: Any, value: Any, path: str) -> Any:
    """``value`` as the type ``hint``; numbers widen, lists become tuples."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Union or isinstance(hint, types.UnionType):
        if value is None and type(None) in args:
            return None
        kinds = [a for a in args if a is not type(None)]
        fitting = [k for k in kinds if _fits(k, value)]
        return _convert((fitting or kinds)[0], value, path)
    if origin is Literal:
        if value not in args:
            allowed = ", ".join(map(repr, args))
            raise UserError(f"{path} = {_show(value)} must be {allowed}{did_you_mean(value, args)}")
        return value
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, path)  # type: ignore[arg-type]
    if origin is tuple:
        return _convert_tuple(args, value, path)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise UserError(f"{path} must be a table, not {_show(value)}")
        return {k: _convert(args[1], v, f"{path}.{k}") for k, v in value.items()}
    if hint is float and _fits(float, value):
        return float(value)
    if not _fits(hint, value):
        raise UserError(f"{path} = {_show(value)} must be {_noun(hint)}")
    return value


def _convert_tuple(args: tuple[Any, ...], value: Any, path: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise UserError(f"{path} = {_show(value)} must be a list")
    if args[-1] is not Ellipsis and len(value) != len(args):
        raise UserError(f"{path} = {_show(value)} must have {len(args)} entries")
    return tuple(_convert(args[0], v, f"{path}[{i}]") for i, v in enumerate(value))


_FITS: dict[Any, Callable[[Any], bool]] = {
    bool: lambda v: isinstance(v, bool),
    int: lambda v: isinstance(v, int) and not isinstance(v, bool),
    float: lambda v: isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v),
    str: lambda v: isinstance(v, str),
}


def _fits(hint: Any, value: Any) -> bool:
    if hint in _FITS:
        return _FITS[hint](value)
    return value in get_args(hint) if get_origin(hint) is Literal else False


def _check_range(value: Any, metadata: Mapping[str, Any], path: str) -> None:
    entries = value if isinstance(value, tuple) else (value,)
    for entry in entries:
        if isinstance(entry, str) and metadata.get("choices") and entry not in metadata["choices"]:
            allowed = ", ".join(map(repr, metadata["choices"]))
            hint = did_you_mean(entry, metadata["choices"])
            raise UserError(f"{path} = {_show(entry)} must be one of {allowed}{hint}")
        if isinstance(entry, bool) or not isinstance(entry, int | float):
            continue
        low, high, above = (metadata.get(k) for k in ("low", "high", "above"))
        high = LARGEST if high is None else high
        if low is not None and entry < low:
            raise UserError(f"{path} = {_show(value)} must be at least {low:g}")
        if above is not None and entry <= above:
            raise UserError(f"{path} = {_show(value)} must be above {above:g}")
        if high is not None and entry > high:
            raise UserError(f"{path} = {_show(value)} must be at most {high:g}")


def _noun(hint: Any) -> str:
    nouns = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    return nouns.get(hint, str(hint))


def _show(value: Any) -> str:
    if isinstance(value, tuple):
        return str(list(value))
    return repr(value)


def to_toml(value: Any, comments: bool = True) -> str:
    """A dataclass of plain values as TOML, each key under its comment."""
    return "\n".join(_toml_lines(value, "", comments)).strip() + "\n"


def _toml_lines(
    value: Any, table: str, comments: bool, said: frozenset[str] = frozenset()
) -> list[str]:
    """``said``: keys whose comment stands above already, in a table of the same kind."""
    lines, tables = [], []
    for f in dataclasses.fields(value):
        entry, help = getattr(value, f.name), f.metadata.get("help", "")
        path = f"{table}.{f.name}" if table else f.name
        if not concerned(f, value) or entry is None or _left_out(f, entry):
            continue
        if dataclasses.is_dataclass(entry):
            note = [f"# {help}"] if comments and help else []
            tables += ["", *note, f"[{path}]", *_toml_lines(entry, path, comments)]
        elif isinstance(entry, Mapping):
            told: frozenset[str] = frozenset()  # what the keys mean is said once
            for i, (key, sub) in enumerate(entry.items()):
                note = [f"# {help}"] if comments and help and i == 0 else []
                name = f"{path}.{_toml_key(key)}"
                tables += ["", *note, f"[{name}]", *_toml_lines(sub, name, comments, told)]
                told |= {g.name for g in dataclasses.fields(sub) if concerned(g, sub)}
        else:
            if comments and help and f.name not in said:
                lines.append(f"# {help}")
            lines.append(f"{f.name} = {toml_value(entry)}")
    return lines + tables


def _left_out(field: dataclasses.Field[Any], entry: Any) -> bool:
    """Whether this is a table that few plans have, and this one has not."""
    if not field.metadata.get("sparse"):
        return False
    assert callable(field.default_factory)
    return bool(entry == field.default_factory())


def _toml_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else toml_value(key)


def toml_value(value: Any) -> str:
    """A number, text, truth or list as TOML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        # JSON's escapes are TOML's, but for the control character that JSON leaves as it is
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, tuple | list):
        return "[" + ", ".join(toml_value(v) for v in value) + "]"
    return repr(value)
