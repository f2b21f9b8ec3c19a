"""Functions of ours as source text, with what a use never needs taken out.

The text stays as it was written, comments too, wherever nothing in a statement changes.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Mapping, Set
from typing import Any

Truths = Mapping[str, bool]
"""Conditions, as ``ast.unparse`` writes them, and whether they hold."""


def specialised(
    of: Any,
    truths: Truths,
    *,
    without: Set[str] = frozenset(),
    swaps: Mapping[str, str] | None = None,
    members: Set[str] = frozenset(),
) -> str:
    """The source of a function or a class, without types but those of a NamedTuple.

    Args:
        of: the function or class.
        truths: what is known of conditions: of their branches the one that is taken is left.
        without: arguments that are taken out, where it is defined and where others are called.
        swaps: expressions, as ``ast.unparse`` writes them, and what stands in their place;
            likewise assignments, in whose place there may be nothing.
        members: of a class, which to keep; all if there are none.
    """
    lines = textwrap.dedent(inspect.getsource(of)).splitlines()
    tree = ast.parse("\n".join(lines))
    before = {id(node): ast.dump(node) for node in ast.walk(tree) if isinstance(node, ast.stmt)}
    node = _Folded(truths, without, swaps or {}).visit(tree).body[0]
    if members:
        node.body = [child for child in node.body if _name(child) in members]
    return "\n".join(_Writer(lines, before).statement(node, 0))


def _name(node: Any) -> str:
    """Name to which a statement of a class gives a value."""
    target = getattr(node, "targets", [None])[0]
    return str(getattr(node, "name", getattr(target, "id", "")))


class _Folded(ast.NodeTransformer):
    """Takes the known branch of conditions, and takes arguments and types out."""

    def __init__(self, truths: Truths, without: Set[str], swaps: Mapping[str, str]) -> None:
        self.truths, self.without, self.swaps = truths, without, swaps

    def visit(self, node: Any) -> Any:
        """Also what stands in the place of an expression."""
        if isinstance(node, ast.expr) and (text := self.swaps.get(ast.unparse(node))):
            return ast.parse(text, mode="eval").body
        return super().visit(node)

    def _branch(self, node: Any) -> Any:
        self.generic_visit(node)
        truth = self._truth(node.test)
        return node if truth is None else (node.body if truth else node.orelse)

    visit_If = visit_IfExp = _branch  # noqa: N815

    def visit_Assign(self, node: ast.Assign) -> Any:
        """Replacement of the statement, or nothing."""
        text = self.swaps.get(ast.unparse(node))
        return self.generic_visit(node) if text is None else ast.parse(text).body

    def visit_BoolOp(self, node: ast.BoolOp) -> Any:
        """Without operands that are known and do not decide it."""
        self.generic_visit(node)
        neutral = isinstance(node.op, ast.And)
        truths = [self._truth(value) for value in node.values]
        if (not neutral) in truths:
            return ast.Constant(not neutral)
        left = [v for v, truth in zip(node.values, truths, strict=True) if truth is not neutral]
        if len(left) < 2:
            return left[0] if left else ast.Constant(neutral)
        return ast.BoolOp(node.op, left)

    def _truth(self, test: ast.expr) -> bool | None:
        """Whether a condition holds, where that is known."""
        if isinstance(test, ast.Constant):
            return bool(test.value)
        return self.truths.get(ast.unparse(test))

    def visit_FunctionDef(self, node: ast.FunctionDef) -> Any:
        """Without types, and without what stands behind its end."""
        self.generic_visit(node)
        node.returns = None
        ends = [i for i, child in enumerate(node.body) if isinstance(child, ast.Return)]
        node.body = node.body[: ends[0] + 1] if ends else node.body
        return node

    def visit_Assert(self, node: ast.Assert) -> Any:
        """Not at all: they are there for type checkers."""
        return None

    def visit_ClassDef(self, node: ast.ClassDef) -> Any:
        """One of fields keeps their types."""
        return node if "NamedTuple" in map(ast.unparse, node.bases) else (self.generic_visit(node))

    def visit_AnnAssign(self, node: ast.AnnAssign) -> Any:
        """Without its type."""
        self.generic_visit(node)
        assert node.value is not None
        return ast.copy_location(ast.Assign([node.target], node.value), node)

    def visit_Call(self, node: ast.Call) -> Any:
        """Without arguments that are taken out."""
        self.generic_visit(node)
        node.keywords = [k for k in node.keywords if k.arg not in self.without]
        node.args = [a for a in node.args if ast.unparse(a) not in self.without]
        return node

    def visit_arguments(self, node: ast.arguments) -> Any:
        """Likewise, where they are declared; without types."""
        self.generic_visit(node)
        first = len(node.args) - len(node.defaults)
        defaulted = zip(node.args[first:], node.defaults, strict=True)
        node.defaults = [default for arg, default in defaulted if arg.arg not in self.without]
        pairs = zip(node.kwonlyargs, node.kw_defaults, strict=True)
        kept = [(arg, default) for arg, default in pairs if arg.arg not in self.without]
        node.args = [arg for arg in node.args if arg.arg not in self.without]
        node.kwonlyargs, node.kw_defaults = [a for a, _ in kept], [d for _, d in kept]
        for arg in (*node.args, *node.kwonlyargs):
            arg.annotation = None
        return node


class _Writer:
    """A tree as text: what did not change as it was, with the comments above it."""

    def __init__(self, lines: list[str], before: Mapping[int, str]) -> None:
        self.lines, self.before = lines, before

    def statement(self, node: Any, indent: int) -> list[str]:
        """The lines of a statement, comments above it first."""
        margin = " " * indent
        start = getattr(node, "lineno", 1) - 1
        head = self._comments(start, margin)
        if self._is_docstring(node):
            text = inspect.cleandoc(node.value.value).splitlines()[0]
            quotes = 'r"""' if "\\" in text else '"""'
            line = margin + quotes + text
            return [line + '"""'] if len(line) <= 97 else [line, margin + '"""']
        same = self.before.get(id(node)) == ast.dump(node)
        if same and not isinstance(node, ast.FunctionDef | ast.ClassDef):
            text = textwrap.dedent("\n".join(self.lines[start : node.end_lineno]))
            return [*head, *(margin + line for line in text.splitlines())]
        if not hasattr(node, "body"):
            return [*head, *(margin + line for line in _unparsed(node).splitlines())]
        return [*head, *self._compound(node, indent)]

    def _compound(self, node: Any, indent: int) -> list[str]:
        """One with statements of its own: its first line, and each of them."""
        shell = _shell(node)
        found = [" " * indent + line for line in shell.splitlines()]
        for child in node.body:
            apart = isinstance(node, ast.ClassDef) and isinstance(child, ast.FunctionDef)
            found += [""] * apart + self.statement(child, indent + 4)
        if getattr(node, "orelse", None):
            found.append(" " * indent + "else:")
            for child in node.orelse:
                found += self.statement(child, indent + 4)
        return found

    def _comments(self, start: int, margin: str) -> list[str]:
        found: list[str] = []
        while start > 0 and self.lines[start - 1].strip().startswith("#"):
            start -= 1
            found.insert(0, margin + self.lines[start].strip())
        return found

    def _is_docstring(self, node: Any) -> bool:
        return (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        )


def _unparsed(node: ast.AST) -> str:
    """Text of a changed statement, with double quotes around texts that have none within."""
    return re.sub(r"'([^'\"\\]*)'", r'"\1"', ast.unparse(node))


def _shell(node: Any) -> str:
    """The first line of a statement that has others, or its lines before them."""
    body, orelse = node.body, getattr(node, "orelse", None)
    node.body = [ast.Pass()]
    if orelse:
        node.orelse = []
    text = _unparsed(node)
    node.body = body
    if orelse:
        node.orelse = orelse
    return text.rsplit("\n", 1)[0]


def constant(module: Any, name: str) -> str:
    """The lines by which a module gives a name its value."""
    tree, lines = ast.parse(inspect.getsource(module)), inspect.getsource(module).splitlines()
    for node in tree.body:
        targets = getattr(node, "targets", [getattr(node, "target", None)])
        names = [
            n.id for t in targets if t is not None for n in ast.walk(t) if isinstance(n, ast.Name)
        ]
        if isinstance(node, ast.Assign | ast.AnnAssign) and name in names:
            return "\n".join(lines[node.lineno - 1 : node.end_lineno])
    raise LookupError(f"{module.__name__} gives {name} no value")
