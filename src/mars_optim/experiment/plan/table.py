"""The tables of a plan: frozen pydantic dataclasses, whose mistakes are told in one line."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar, dataclass_transform, get_args

from pydantic import BeforeValidator, ConfigDict, Field, Strict, TypeAdapter, ValidationError
from pydantic import model_validator as validator
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError, core_schema

from ...errors import UserError, did_you_mean

T = TypeVar("T")

LARGEST = 1e22
"""Largest number that is allowed without a limit of its own: beyond, single precision
overflows."""

Whole = Annotated[int, Strict()]
Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
Flag = Annotated[bool, Strict()]

Count = Annotated[Whole, Field(ge=0, le=int(LARGEST))]
NotNegative = Annotated[Number, Field(ge=0.0, le=LARGEST)]
Positive = Annotated[Number, Field(gt=0.0, le=LARGEST)]
NumberOrNone = Annotated[
    Number | None, BeforeValidator(lambda value: None if value == 0 else value)
]
"""A number, or None, which files write as 0: TOML has no word for it."""

ANY_CLASS = "package.module:Class"
"""Stands for every text with a colon, where ``of`` says which values a key goes with."""

_adapter: Any = functools.cache(TypeAdapter)


class KeywordTable(dict[str, Any]):
    """Keyword arguments, as TOML can write them; compared and hashed as their JSON."""

    def _text(self) -> str:
        return json.dumps(self, sort_keys=True)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KeywordTable) and self._text() == other._text()

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(self._text())

    @classmethod
    def _checked(cls, value: dict[str, Any]) -> KeywordTable:
        try:
            return cls(json.loads(json.dumps(value, allow_nan=False)))  # tuples become lists
        except (TypeError, ValueError, RecursionError):
            text = "must hold finite numbers, texts, true or false, lists and tables of them"
            raise PydanticCustomError("keywords", text) from None

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> core_schema.CoreSchema:
        """Any table, checked."""
        return core_schema.no_info_after_validator_function(cls._checked, core_schema.dict_schema())


def option(
    default: Any,
    help: str,
    *,
    of: tuple[str, tuple[str, ...]] | None = None,
    compare: bool = True,
    sparse: bool = False,
    **limits: Any,
) -> Any:
    """A key of a table, with its comment and its allowed range.

    Args:
        default: its value where it is left out.
        help: the comment.
        of: another key and the values of it that this one goes with. Under others it must keep
            its default, and is not written.
        compare: whether it counts where two tables are compared.
        sparse: not written where it is the default.
        limits: ``ge``, ``gt``, ``le`` and so on, as of :func:`pydantic.Field`.
    """
    if isinstance(default, int | float | None) and not isinstance(default, bool):
        limits.setdefault("le", int(LARGEST) if isinstance(default, int) else LARGEST)
    metadata = dict(description=help, of=of, sparse=sparse, **limits)
    return dataclasses.field(default=default, metadata=metadata, compare=compare)


def part(factory: Callable[[], Any], help: str, *, sparse: bool = False) -> Any:
    """A table in a table, with its comment.

    Args:
        factory: of its default.
        help: the comment.
        sparse: not written where it is the default.
    """
    metadata = dict(description=help, sparse=sparse)
    return dataclasses.field(default_factory=factory, metadata=metadata)


@dataclass_transform(kw_only_default=True, frozen_default=True)
def table(cls: type[T]) -> type[T]:
    """Make a frozen dataclass of a class of options; what is wrong with one is a UserError.

    A class variable ``TABLE`` says under which name its mistakes are told.
    """
    if any(_of(entry) for entry in vars(cls).values()):
        cls._goes_together = validator(mode="after")(_goes_together)  # type: ignore[attr-defined]
    config = ConfigDict(extra="forbid")
    made = dataclass(frozen=True, slots=True, kw_only=True, config=config)(cls)
    build = made.__init__

    @functools.wraps(build)
    def __init__(self: Any, **values: Any) -> None:  # noqa: N807
        try:
            build(self, **values)
        except ValidationError as error:
            raise UserError(_told(error, made, getattr(made, "TABLE", ""))) from None

    made.__init__ = __init__  # type: ignore[method-assign]
    return made  # type: ignore[return-value]


def _of(entry: Any) -> Any:
    return entry.metadata.get("of") if isinstance(entry, dataclasses.Field) else None


def concerned(field: dataclasses.Field[Any], holder: Any) -> bool:
    """Whether a key means anything, given the other keys of its table."""
    of = field.metadata.get("of")
    if of is None:
        return True
    found = getattr(holder, of[0])
    return found in of[1] or (ANY_CLASS in of[1] and ":" in found)


def _goes_together(holder: Any) -> Any:
    for f in dataclasses.fields(holder):
        entry = getattr(holder, f.name)
        if entry != f.default and not concerned(f, holder):
            key, allowed = f.metadata["of"]
            text = _goes_with(f.name, entry, key, allowed, getattr(holder, key))
            raise PydanticCustomError("goes_with", "{text}", {"text": text})
    return holder


def _goes_with(path: str, entry: Any, key: str, allowed: tuple[str, ...], found: str) -> str:
    wanted = " or ".join(map(repr, allowed))
    text = f"{path} = {_show(entry)} needs {key} = {wanted}, not {key} = {found!r}"
    return f"{text}; arguments of a class are in options" if ":" in found else text


def from_dict(cls: type[T], data: Any, where: str = "") -> T:
    """Build a table from plain data; missing keys take their defaults.

    Args:
        cls: of the table.
        data: as parsed from TOML or JSON.
        where: path of ``data`` in its file, for messages.

    Raises:
        UserError: for an unknown key, a wrong type or a value out of range.
    """
    try:
        made: T = _adapter(cls).validate_python(data)
        return made
    except ValidationError as error:
        raise UserError(_told(error, cls, where)) from None


_WORDS = {
    "greater_than_equal": "must be at least {ge:g}",
    "greater_than": "must be above {gt:g}",
    "less_than_equal": "must be at most {le:g}",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a number",
    "string_type": "must be a text",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list",
    "too_long": "must have {max_length} entries",
    "literal_error": "must be {expected}",
    "union_tag_invalid": "must be {expected_tags}",
}
_NO_TABLE = ("dataclass_type", "dict_type", "model_attributes_type")
_UNKNOWN = "unexpected_keyword_argument"


def _told(error: ValidationError, cls: type[Any], where: str) -> str:
    """The first mistake, in one line; an unknown key comes before all others."""
    first = min(error.errors(include_url=False), key=lambda e: e["type"] != _UNKNOWN)
    kind, value, loc, of = first["type"], first["input"], first["loc"], first.get("ctx", {})
    inner = kind in (_UNKNOWN, "missing")  # the last step is not there
    path, hint, kinds = _place(cls, loc[:-1] if inner else loc, where)
    prefix = f"{path}." if path else ""
    if kind == _UNKNOWN:
        return _unknown(prefix, str(loc[-1]), value, hint, kinds)
    if kind == "missing" and isinstance(loc[-1], int):
        return f"{path} = {_show(value)} must have {len(get_args(hint))} entries"
    if kind == "missing":
        return f"{path or 'plan'} needs the key {loc[-1]!r}"
    if kind in _NO_TABLE:
        return f"{path or 'plan'} must be a table, not {_show(value)}"
    if kind == "goes_with":
        return prefix + first["msg"]
    if kind == "union_tag_invalid":
        path, value = f"{path}.kind", value["kind"]
    for limit in (of[key] for key in ("ge", "gt", "le") if key in of):
        value = type(limit)(value)  # a whole number where any is allowed
    choices = re.findall(r"'([^']*)'", of.get("expected", "") + of.get("expected_tags", ""))
    words = _WORDS[kind].format(**of) if kind in _WORDS else first["msg"]
    return f"{path} = {_show(value)} {words}{did_you_mean(value, choices)}"


def _unknown(prefix: str, key: str, value: Any, cls: type[Any], kinds: Mapping[str, Any]) -> str:
    """Error of a key that a table has not; perhaps a table of another kind has it."""
    having = tuple(name for name, other in kinds.items() if key in _names(other))
    if having:
        return _goes_with(prefix + key, value, "kind", having, cls().kind)
    hint = did_you_mean(key, _names(cls), prefix) or f"; allowed: {', '.join(_names(cls))}"
    return f"unknown key {prefix + key!r}{hint}"


def _names(cls: type[Any]) -> list[str]:
    return [f.name for f in dataclasses.fields(cls)]


def _place(
    cls: type[Any], loc: tuple[int | str, ...], where: str
) -> tuple[str, Any, Mapping[str, Any]]:
    """The path in the file of a place that pydantic names, its type, and tables of other kinds."""
    path, hint, kinds = where, cls, dict[str, Any]()
    for step in loc:
        tables: list[Any] = [a for a in get_args(hint) if dataclasses.is_dataclass(a)]
        if len(tables) > 1:  # a union, where pydantic names the kind
            kinds = {table().kind: table for table in tables}
            hint = kinds[str(step)]
            continue
        kinds = {}
        if isinstance(step, int):
            path, hint = f"{path}[{step}]", get_args(hint)[0]
        else:
            path = f"{path}.{step}" if path else step
            known = getattr(hint, "__pydantic_fields__", {})
            hint = known[step].annotation if step in known else get_args(hint)[1]
    return path, hint, kinds


def _show(value: Any) -> str:
    return repr(list(value)) if isinstance(value, tuple) else repr(value)
