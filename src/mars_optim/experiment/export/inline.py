"""Functions of a source text that are called once, put where they are called.

Only where the text stays what it was: no early return, no name of one that means another thing in
the other, no line that grows too long. Docstrings become comments.
"""

from __future__ import annotations

import ast
import re
import textwrap
from dataclasses import dataclass, replace

LONGEST = 100  # characters of a line
Edit = tuple[int, int, str]  # first and last character, and what stands there instead


def inlined(text: str) -> str:
    """The text without functions that are called once, as far as they can be put in place."""
    while (shorter := _one_less(text)) is not None:
        text = shorter
    return text


def _one_less(text: str) -> str | None:
    """The text with one function less, None where there is none to spare."""
    source = _Source.of(text)
    longest = max(LONGEST, *map(len, text.splitlines()))
    for function in source.tree.body:
        if not isinstance(function, ast.FunctionDef):
            continue
        for named in (False, True):
            found = _without(source, function, named=named)
            if found is not None and max(map(len, found.splitlines())) <= longest:
                return found
    return None


def _without(source: _Source, function: ast.FunctionDef, *, named: bool) -> str | None:
    """The text without the function; ``named``: what it is given gets its parameters' names."""
    uses = [n for n in ast.walk(source.tree) if isinstance(n, ast.Name) and n.id == function.name]
    call = source.parents.get(uses[0]) if len(uses) == 1 else None
    if not isinstance(call, ast.Call) or call.func is not uses[0]:
        return None
    given = _given(function, call)
    site = _Site.of(source, call)
    if given is None or function in site.around:
        return None
    *body, last = _statements(function)
    whole = site.is_statement and getattr(site.statement, "value", None) is call
    if body and not whole:
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
    edits = [_removed(source, function)]
    if whole or not isinstance(last, ast.Return):
        edits.append(_as_statements(source, function, names, site))
    else:
        assert last.value is not None
        made = source.text_of(last.value, names.simple)
        edits.append((*source.span(call), f"({made})" if site.needs_brackets(last.value) else made))
    return source.edited(edits)


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
        source: _Source,
        function: ast.FunctionDef,
        given: dict[str, ast.expr],
        site: _Site,
        *,
        named: bool,
    ) -> _Names | None:
        stored, loads = _stored(function), [n.id for n in _names(function)]
        inside = set(_names(function))
        outside = {n.id for n in _names(site.scope) if n not in inside} | site.parameters
        simple: dict[str, str] = {}
        first: dict[str, str] = {}
        for name, value in given.items():
            text = source.text_of(value, {})
            plain = not any(isinstance(n, ast.Call | ast.BinOp) for n in ast.walk(value))
            if {n.id for n in _names(value)} & stored - {name}:
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
        return name in {n.id for n in _names(first.iter)} and not _loops(first.iter, again)
    return name in {n.id for n in _names(first)} and not _loops(first, again)


def _loops(node: ast.AST, kinds: tuple[type[ast.AST], ...]) -> bool:
    return any(isinstance(n, kinds) for n in ast.walk(node))


def _names(node: ast.AST) -> list[ast.Name]:
    return [n for n in ast.walk(node) if isinstance(n, ast.Name)]


def _stored(function: ast.FunctionDef) -> set[str]:
    return {n.id for n in _names(function) if not isinstance(n.ctx, ast.Load)}


@dataclass(frozen=True)
class _Site:
    """Where the call is: its statement, the scope around it, and all that it is within."""

    statement: ast.stmt
    scope: ast.AST
    around: list[ast.AST]
    parent: ast.AST
    call: ast.Call

    @classmethod
    def of(cls, source: _Source, call: ast.Call) -> _Site:
        around: list[ast.AST] = [call]
        while (parent := source.parents.get(around[-1])) is not None:
            around.append(parent)
        statement = next(n for n in around if isinstance(n, ast.stmt))
        scopes = (ast.FunctionDef, ast.Module)
        scope = next(n for n in around[1:] if isinstance(n, scopes))
        return cls(statement, scope, around, around[1], call)

    @property
    def is_statement(self) -> bool:
        """Whether its statement is one that a call can be the whole of."""
        return isinstance(self.statement, ast.Expr | ast.Assign | ast.Return)

    @property
    def parameters(self) -> set[str]:
        """Names that the scope is given."""
        if not isinstance(self.scope, ast.FunctionDef):
            return set()
        return {arg.arg for arg in (*self.scope.args.args, *self.scope.args.kwonlyargs)}

    def loads_later(self, name: str) -> bool:
        """Whether the scope reads a name behind the call, which the function gives a value."""
        end = self.statement.end_lineno or 0
        return any(n.id == name and n.lineno > end for n in _names(self.scope))

    def needs_brackets(self, value: ast.expr) -> bool:
        """Whether an expression in the call's place must stand in brackets."""
        alone = isinstance(
            self.parent, ast.Assign | ast.Return | ast.keyword | ast.Call | ast.ListComp
        )
        one = isinstance(value, ast.Call | ast.Name | ast.Constant | ast.Subscript | ast.Attribute)
        return not one and not (alone and getattr(self.parent, "func", None) is not self.call)


@dataclass(frozen=True)
class _Source:
    """A text, its tree, and where in the text each node is."""

    text: str
    tree: ast.Module
    parents: dict[ast.AST, ast.AST]
    starts: list[int]

    @classmethod
    def of(cls, text: str) -> _Source:
        tree = ast.parse(text)
        parents = {c: p for p in ast.walk(tree) for c in ast.iter_child_nodes(p)}
        starts = [0]
        for line in text.splitlines(keepends=True):
            starts.append(starts[-1] + len(line))
        return cls(text, tree, parents, starts)

    def span(self, node: ast.AST) -> tuple[int, int]:
        """First character, and the one behind the last; the text is ASCII."""
        at: dict[str, int] = {k: getattr(node, k) for k in node._attributes}
        first = self.starts[at["lineno"] - 1] + at["col_offset"]
        return first, self.starts[at["end_lineno"] - 1] + at["end_col_offset"]

    def text_of(self, node: ast.AST, names: dict[str, str]) -> str:
        """The text of a node, with other words for some names."""
        first, last = self.span(node)
        edits = [(*self.span(n), names[n.id]) for n in _names(node) if n.id in names]
        return _edited(self.text[first:last], [(a - first, b - first, s) for a, b, s in edits])

    def edited(self, edits: list[Edit]) -> str:
        """The whole text, edited."""
        return _edited(self.text, edits)


def _edited(text: str, edits: list[Edit]) -> str:
    for first, last, made in sorted(edits, reverse=True):
        text = text[:first] + made + text[last:]
    return text


def _removed(source: _Source, function: ast.FunctionDef) -> Edit:
    """The function and the empty lines behind it."""
    first, last = source.span(function)
    behind = re.match(r"\n*", source.text[last:])
    assert behind is not None
    return first, last + behind.end(), ""


def _as_statements(source: _Source, function: ast.FunctionDef, names: _Names, site: _Site) -> Edit:
    """The call's statement as those of the function."""
    first, last = source.span(site.statement)
    first -= site.statement.col_offset
    margin = " " * site.statement.col_offset
    body = _statements(function)
    said = " ".join((ast.get_docstring(function) or "").split()).removesuffix(".")
    lines = [f"# {part}" for part in textwrap.wrap(said, LONGEST - 2 - len(margin))]
    if len(body) == 1 and len(lines) > 1:
        lines = []  # of an expression, which says it itself
    lines += [f"{name} = {text}" for name, text in names.first.items()]
    end = body[-1] if isinstance(body[-1], ast.Return) else None
    inner = body[:-1] if end is not None else body
    if inner:
        lines += _block(source, function, inner, names.simple)
    if end is not None and end.value is not None:
        lines += _comments_above(source, end)
        value = source.text_of(end.value, names.simple)
        if isinstance(site.statement, ast.Assign):
            targets = source.text_of(site.statement.targets[0], {})
            lines += [] if targets == value else [f"{targets} = {value}"]
        elif isinstance(site.statement, ast.Return):
            lines.append(f"return {value}")
        elif not isinstance(end.value, ast.Name):
            lines.append(value)
    return first, last, "\n".join(margin + line if line else line for line in lines)


def _comments_above(source: _Source, node: ast.stmt) -> list[str]:
    lines = source.text.splitlines()[: node.lineno - 1]
    found: list[str] = []
    while lines and lines[-1].lstrip().startswith("#"):
        found.insert(0, lines.pop().strip())
    return found


def _block(
    source: _Source, function: ast.FunctionDef, body: list[ast.stmt], names: dict[str, str]
) -> list[str]:
    """Statements with their comments, as they are but for the names, without their margin."""
    head = function.body[0] if ast.get_docstring(function) is not None else None
    above = head.end_lineno if head is not None else _last_of_head(function)
    assert above is not None
    first, last = source.starts[above], source.starts[body[-1].end_lineno or 0]
    found = [n for s in body for n in _names(s) if n.id in names]
    edits = [(*source.span(n), names[n.id]) for n in found]
    text = _edited(source.text[first:last], [(a - first, b - first, s) for a, b, s in edits])
    margin = body[0].col_offset
    return [line[margin:] for line in text.splitlines()]


def _last_of_head(function: ast.FunctionDef) -> int:
    """Line in which the parameters end."""
    return function.body[0].lineno - 1
