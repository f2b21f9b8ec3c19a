"""Functions of a source text that are called once, or are one statement, put in their places.

Only where the text stays what it was: no early return, no name of one that means another thing in
the other, no line that grows too long. Docstrings become comments.
"""

from __future__ import annotations

import ast
import re
import textwrap
from dataclasses import dataclass, replace

from .source_text import Edit, Site, Source, edited_text, names_in

LONGEST = 100  # characters of a line


def inlined(text: str) -> str:
    """The text without the functions that can be put where they are called."""
    while (shorter := _one_less(text)) is not None:
        text = shorter
    return text


def _one_less(text: str) -> str | None:
    """The text with one function less, None where there is none to spare."""
    source = Source.of(text)
    longest = max(LONGEST, *map(len, text.splitlines()))
    for function in source.tree.body:
        if not isinstance(function, ast.FunctionDef):
            continue
        for named in (False, True):
            found = _without(source, function, named=named)
            if found is not None and max(map(len, found.splitlines())) <= longest:
                return found
    return None


def _without(source: Source, function: ast.FunctionDef, *, named: bool) -> str | None:
    """The text without the function; ``named``: what it is given gets its parameters' names."""
    uses = [n for n in names_in(source.tree) if n.id == function.name]
    if len(uses) != 1 and not (uses and len(_statements(function)) == 1):
        return None
    edits = [_removed(source, function)]
    for use in uses:
        call = source.parents[use]
        if not isinstance(call, ast.Call) or call.func is not use:
            return None
        if any(n is not use and n in uses for n in names_in(call)):
            return None
        found = _in_place(source, function, call, named=named)
        if found is None:
            return None
        edits += found
    return source.edited(edits)


def _in_place(
    source: Source, function: ast.FunctionDef, call: ast.Call, *, named: bool
) -> list[Edit] | None:
    """The edits that put the function in the place of one call; None where they cannot."""
    given = _given(function, call)
    site = Site.of(source, call)
    if given is None or function in site.around:
        return None
    *body, last = _statements(function)
    whole = site.is_statement and getattr(site.statement, "value", None) is call
    if body and not (whole or site.comes_first):
        return None
    if any(isinstance(n, ast.Return | ast.Yield) for s in body for n in ast.walk(s)):
        return None
    if not isinstance(last, ast.Return):
        if any(isinstance(n, ast.Return | ast.Yield) for n in ast.walk(last)):
            return None
        if not isinstance(site.statement, ast.Expr):
            return None
    names = _Names.of(source, function, given, site, named=named and whole)
    if names is None:
        return None
    if whole or not isinstance(last, ast.Return):
        return [_as_statements(source, function, names, site)]
    assert last.value is not None
    made = source.text_of(last.value, names.simple)
    edits = [(*source.span(call), f"({made})" if site.needs_brackets(last.value) else made)]
    return [*edits, _before(source, function, names, site)] if body else edits


def _statements(function: ast.FunctionDef) -> list[ast.stmt]:
    """Its body without the docstring."""
    return function.body[1:] if ast.get_docstring(function) is not None else function.body


def _given(function: ast.FunctionDef, call: ast.Call) -> dict[str, ast.expr] | None:
    """Argument of each parameter; None where the call does not write it out."""
    declared = [arg.arg for arg in function.args.args]
    if any(isinstance(a, ast.Starred) for a in call.args) or function.args.vararg:
        return None
    given = dict(zip(declared, call.args, strict=False))
    given |= {k.arg: k.value for k in call.keywords if k.arg is not None}
    wanted = {*declared, *(arg.arg for arg in function.args.kwonlyargs)}
    return given if set(given) == wanted else None


@dataclass(frozen=True)
class _Names:
    """Replacement of each parameter, and the parameters that must be given a value first."""

    simple: dict[str, str]
    first: dict[str, str]

    @classmethod
    def of(
        cls,
        source: Source,
        function: ast.FunctionDef,
        given: dict[str, ast.expr],
        site: Site,
        *,
        named: bool,
    ) -> _Names | None:
        stored, loads = _stored(function), [n.id for n in names_in(function)]
        inside = set(names_in(function))
        there = {n.id for n in names_in(site.scope) if n not in inside} | site.parameters
        outside = there - site.targets
        simple: dict[str, str] = {}
        first: dict[str, str] = {}
        for name, value in given.items():
            text = source.text_of(value, {})
            plain = not any(isinstance(n, ast.Call | ast.BinOp) for n in ast.walk(value))
            if {n.id for n in names_in(value)} & stored - {name}:
                return None
            once = loads.count(name) == 1 and _read_first(function, name)
            if name in stored or not (plain or (once and not named)):
                if text != name:
                    first[name] = text
            else:
                simple[name] = text if plain or isinstance(value, ast.Call) else f"({text})"
        new = (stored - set(given)) | set(first)
        kept = {name for name in given if name in stored and name not in first}
        reused = {name for name in kept if site.loads_later(name)}
        return None if new & outside or reused else replace(cls(simple, first))


def _read_first(function: ast.FunctionDef, name: str) -> bool:
    """Whether the first statement reads a parameter, and not in each round of a loop."""
    first = _statements(function)[0]
    again = (ast.For, ast.While, ast.Lambda, ast.ListComp, ast.GeneratorExp, ast.DictComp)
    if isinstance(first, ast.For):  # what it goes over is read once
        return name in {n.id for n in names_in(first.iter)} and not _loops(first.iter, again)
    return name in {n.id for n in names_in(first)} and not _loops(first, again)


def _loops(node: ast.AST, kinds: tuple[type[ast.AST], ...]) -> bool:
    return any(isinstance(n, kinds) for n in ast.walk(node))


def _stored(function: ast.FunctionDef) -> set[str]:
    return {n.id for n in names_in(function) if not isinstance(n.ctx, ast.Load)}


def _removed(source: Source, function: ast.FunctionDef) -> Edit:
    """The function and the empty lines behind it."""
    first, last = source.span(function)
    behind = re.match(r"\n*", source.text[last:])
    assert behind is not None
    return first, last + behind.end(), ""


def _as_statements(source: Source, function: ast.FunctionDef, names: _Names, site: Site) -> Edit:
    """The call's statement as those of the function."""
    first, last = source.span(site.statement)
    lines = _lines_before_the_end(source, function, names, site)
    end = _statements(function)[-1]
    if isinstance(end, ast.Return) and end.value is not None:
        value = source.text_of(end.value, names.simple)
        if isinstance(site.statement, ast.Assign):
            lines += _assigned(source, site.statement.targets[0], end.value, names)
        elif isinstance(site.statement, ast.Return):
            lines.append(f"return {value}")
        elif not isinstance(end.value, ast.Name):
            lines.append(value)
    return first - site.statement.col_offset, last, _indented(lines, site)


def _before(source: Source, function: ast.FunctionDef, names: _Names, site: Site) -> Edit:
    """The function but for its end, above the call's statement."""
    first = source.span(site.statement)[0] - site.statement.col_offset
    lines = _lines_before_the_end(source, function, names, site)
    return first, first, _indented(lines, site) + "\n"


def _lines_before_the_end(
    source: Source, function: ast.FunctionDef, names: _Names, site: Site
) -> list[str]:
    """Docstring as a comment, names that get a value, and all statements but a last return."""
    body = _statements(function)
    said = " ".join((ast.get_docstring(function) or "").split()).removesuffix(".")
    lines = [f"# {s}" for s in textwrap.wrap(said, LONGEST - 2 - site.statement.col_offset)]
    if len(body) == 1 and len(lines) > 1:
        lines = []  # of an expression, which says it itself
    lines += [f"{name} = {text}" for name, text in names.first.items()]
    ends = isinstance(body[-1], ast.Return)
    if inner := body[:-1] if ends else body:
        lines += _block(source, function, inner, names.simple)
    return lines + (_comments_above(source, body[-1]) if ends else [])


def _assigned(source: Source, target: ast.expr, value: ast.expr, names: _Names) -> list[str]:
    """The assignment of what a function returns, without names that get their own value."""
    pairs = [(target, value)]
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        pairs = list(zip(target.elts, value.elts, strict=True))
    texts = [(source.text_of(t, {}), source.text_of(v, names.simple)) for t, v in pairs]
    left = [(t, v) for t, v in texts if t != v]
    return [", ".join(t for t, _ in left) + " = " + ", ".join(v for _, v in left)] * bool(left)


def _indented(lines: list[str], site: Site) -> str:
    margin = " " * site.statement.col_offset
    return "\n".join(margin + line if line else line for line in lines)


def _comments_above(source: Source, node: ast.stmt) -> list[str]:
    lines = source.text.splitlines()[: node.lineno - 1]
    found: list[str] = []
    while lines and lines[-1].lstrip().startswith("#"):
        found.insert(0, lines.pop().strip())
    return found


def _block(
    source: Source, function: ast.FunctionDef, body: list[ast.stmt], names: dict[str, str]
) -> list[str]:
    """Statements with their comments, as they are but for the names, without their margin."""
    head = function.body[0] if ast.get_docstring(function) is not None else None
    above = head.end_lineno if head is not None else _last_of_head(function)
    assert above is not None
    first, last = source.starts[above], source.starts[body[-1].end_lineno or 0]
    found = [n for s in body for n in names_in(s) if n.id in names]
    edits = [(*source.span(n), names[n.id]) for n in found]
    text = edited_text(source.text[first:last], [(a - first, b - first, s) for a, b, s in edits])
    margin = body[0].col_offset
    return [line[margin:] for line in text.splitlines()]


def _last_of_head(function: ast.FunctionDef) -> int:
    """Line in which the parameters end."""
    return function.body[0].lineno - 1
