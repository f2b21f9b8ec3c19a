"""Where in a source text each node of its tree is, and what is around a call."""

from __future__ import annotations

import ast
from dataclasses import dataclass

Edit = tuple[int, int, str]  # first and last character, and what stands there instead


def names_in(node: ast.AST) -> list[ast.Name]:
    """All names within a node."""
    return [n for n in ast.walk(node) if isinstance(n, ast.Name)]


@dataclass(frozen=True)
class Site:
    """Where the call is: its statement, the scope around it, and all that it is within."""

    statement: ast.stmt
    scope: ast.AST
    around: list[ast.AST]
    parent: ast.AST
    call: ast.Call

    @classmethod
    def of(cls, source: Source, call: ast.Call) -> Site:
        """The place of a call of this text."""
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
    def comes_first(self) -> bool:
        """Whether the call is what its statement does first, as in ``return f(x).sqrt()``."""
        node = getattr(self.statement, "value", None) if self.is_statement else None
        while node is not self.call and isinstance(node, ast.Attribute | ast.Call):
            node = node.value if isinstance(node, ast.Attribute) else node.func
        return node is self.call

    @property
    def parameters(self) -> set[str]:
        """Names that the scope is given."""
        if not isinstance(self.scope, ast.FunctionDef):
            return set()
        return {arg.arg for arg in (*self.scope.args.args, *self.scope.args.kwonlyargs)}

    @property
    def targets(self) -> set[str]:
        """Names to which the statement gives what the call returns."""
        gives = isinstance(self.statement, ast.Assign) and self.statement.value is self.call
        targets = getattr(self.statement, "targets", []) if gives else []
        return {n.id for target in targets for n in names_in(target)}

    def loads_later(self, name: str) -> bool:
        """Whether the scope reads a name behind the call, which the function gives a value."""
        end = self.statement.end_lineno or 0
        return any(n.id == name and n.lineno > end for n in names_in(self.scope))

    def needs_brackets(self, value: ast.expr) -> bool:
        """Whether an expression in the call's place must stand in brackets."""
        alone = isinstance(
            self.parent, ast.Assign | ast.Return | ast.keyword | ast.Call | ast.ListComp
        )
        one = isinstance(value, ast.Call | ast.Name | ast.Constant | ast.Subscript | ast.Attribute)
        return not one and not (alone and getattr(self.parent, "func", None) is not self.call)


@dataclass(frozen=True)
class Source:
    """A text, its tree, and where in the text each node is."""

    text: str
    tree: ast.Module
    parents: dict[ast.AST, ast.AST]
    starts: list[int]

    @classmethod
    def of(cls, text: str) -> Source:
        """A text with its tree."""
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
        edits = [(*self.span(n), names[n.id]) for n in names_in(node) if n.id in names]
        return edited_text(self.text[first:last], [(a - first, b - first, s) for a, b, s in edits])

    def edited(self, edits: list[Edit]) -> str:
        """The whole text, edited."""
        return edited_text(self.text, edits)


def edited_text(text: str, edits: list[Edit]) -> str:
    """The text, edited; no edit overlaps another."""
    for first, last, made in sorted(edits, reverse=True):
        text = text[:first] + made + text[last:]
    return text
