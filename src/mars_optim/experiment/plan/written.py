"""A table as TOML writes it: as plain data, and as a text with comments."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import tomlkit

from .table import KeywordTable, concerned


def plain(value: Any) -> Any:
    """A table as what TOML would be parsed to; without what it would not say."""
    if dataclasses.is_dataclass(value):
        return {name: plain(entry) for name, entry, _ in _written(value)}
    if isinstance(value, Mapping):
        return {key: plain(entry) for key, entry in value.items()}
    return [plain(entry) for entry in value] if isinstance(value, tuple) else value


def flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Plain data with one key, its path, for every value."""
    rows: dict[str, Any] = {}
    for key, value in data.items():
        rows |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return rows


def to_toml(value: Any) -> str:
    """A table as TOML, each key under its comment."""
    return "\n".join(_lines(value, "")).strip() + "\n"


def toml_value(value: Any) -> str:
    """A number, text, truth, list or table as TOML writes it in a line."""
    return str(_inline(value).as_string())


def _inline(value: Any) -> Any:
    """A table in braces, as tomlkit has it."""
    if not isinstance(value, Mapping):
        return tomlkit.item(value)
    made = tomlkit.inline_table()
    for key, entry in value.items():
        made[key] = _inline(entry)
    return made


def _lines(value: Any, path: str, said: frozenset[str] = frozenset()) -> list[str]:
    """``said``: keys whose comment stands above already, in a table of the same kind."""
    lines, tables = [], []
    prefix = f"{path}." if path else ""
    for name, entry, help in _written(value):
        note = [f"# {help}"] if help else []
        if dataclasses.is_dataclass(entry):
            tables += ["", *note, f"[{prefix}{name}]", *_lines(entry, prefix + name)]
        elif isinstance(entry, Mapping) and not isinstance(entry, KeywordTable):
            tables += _mapping(entry, prefix + name, note)
        else:
            lines += note if name not in said else []
            lines.append(f"{name} = {toml_value(plain(entry))}")
    return lines + tables


def _mapping(entry: Mapping[str, Any], path: str, note: list[str]) -> list[str]:
    """Tables under names of the user's; what their keys mean is said once."""
    lines, told = [], frozenset[str]()
    rows = [f"{_key(k)} = {toml_value(plain(v))}" for k, v in entry.items() if _is_value(v)]
    if rows:
        lines, note = ["", *note, f"[{path}]", *rows], []
    for key, sub in entry.items():
        inner = f"{path}.{_key(key)}"
        if isinstance(sub, Mapping):
            lines += _mapping(sub, inner, note)
        elif not _is_value(sub):
            lines += ["", *note, f"[{inner}]", *_lines(sub, inner, told)]
            told |= {key for key, *_ in _written(sub)}
        note = []
    return lines


def _is_value(entry: Any) -> bool:
    return not (isinstance(entry, Mapping) or dataclasses.is_dataclass(entry))


def _key(name: str) -> str:
    return str(tomlkit.key(name).as_string())


def _written(value: Any) -> Iterator[tuple[str, Any, str]]:
    """Name, value and comment of every key that a file says."""
    for f in dataclasses.fields(value):
        entry = getattr(value, f.name)
        entry = f.metadata.get("none") if entry is None else entry
        factory: Any = f.default_factory
        default = factory() if callable(factory) else f.default
        left_out = f.metadata.get("sparse") and entry == default
        if entry is not None and not left_out and concerned(f, value):
            yield f.name, entry, f.metadata.get("description", "")
