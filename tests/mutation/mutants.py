"""Mutants: copies of a source file with one small fault.

Only function bodies are mutated. Docstrings, annotations, strings, assertions, raised errors and progress or log
messages stay as they are.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

_OPERATORS: dict[type, tuple[str, str]] = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
    ast.And: ("and", "or"),
    ast.Or: ("or", "and"),
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "/"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "//"),
    ast.Pow: ("**", "*"),
    ast.BitAnd: ("&", "|"),
    ast.BitOr: ("|", "&"),
    ast.LShift: ("<<", ">>"),
    ast.RShift: (">>", "<<"),
}
_RETURNED = {"bool": "not ({})", "int": "({}) + 1", "float": "({}) + 1", "str": '({}) + "x"'}
"""The returned value of a mutant by the annotation of the function; None for all others."""
_MESSAGES = re.compile(r"(self\.)?_?(progress|log|logger|logging|warnings|print)\b")
_PATH = re.compile(r"path|folder|file|root|source|target|partial|directory|scratch", re.IGNORECASE)


@dataclass(frozen=True)
class Mutation:
    """One change of a source file.

    Attributes:
        line: Line of the change, from 1.
        statement: First line of the statement that the change is in.
        start: Offset of the replaced text, in characters.
        end: Offset behind it.
        text: The new text.
    """

    line: int
    statement: int
    start: int
    end: int
    text: str

    def apply(self, source: str) -> str:
        """Returns the mutated source."""
        return source[: self.start] + self.text + source[self.end :]


def find_mutations(source: str) -> list[Mutation]:
    """Returns all mutations of a source file, in the order of their positions. A few of them are not valid Python."""
    found = set(_Finder(source).visit_module(ast.parse(source)))
    return sorted(found, key=lambda m: (m.start, m.end, m.text))


def is_valid(source: str, mutation: Mutation) -> bool:
    """Returns whether the mutated source is valid Python and means something else."""
    try:
        return ast.dump(ast.parse(mutation.apply(source))) != ast.dump(ast.parse(source))
    except SyntaxError:
        return False


class _Finder:
    def __init__(self, source: str):
        self._source = source
        self._lines = [0]
        for line in source.split("\n"):
            self._lines.append(self._lines[-1] + len(line) + 1)

    def visit_module(self, tree: ast.Module) -> Iterator[Mutation]:
        """Yields the mutations of all functions."""
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                returns = None if node.returns is None else ast.unparse(node.returns).strip("'\"")
                for statement in node.body:
                    yield from self._statement(statement, returns)

    def _statement(self, node: ast.stmt, returns: str | None) -> Iterator[Mutation]:
        """Yields the mutations of a statement. Functions and classes inside it are visited by themselves."""
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            return
        if isinstance(node, ast.Raise | ast.Assert | ast.Import | ast.ImportFrom):
            return
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            return
        if isinstance(node, ast.If | ast.While):
            yield self._negate(node.test, node.lineno)
        if isinstance(node, ast.Return) and node.value is not None:
            new = _RETURNED.get(returns or "", "None").format(self._text(node.value))
            yield self._replace(node.value, new, node.lineno)
        if isinstance(node, ast.AugAssign) and type(node.op) in _OPERATORS:
            yield from self._operator(node.target, node.op, node.value, node.lineno)
        for name, value in ast.iter_fields(node):
            if name == "annotation":
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.stmt):
                    yield from self._statement(child, returns)
                elif isinstance(child, ast.excepthandler | ast.match_case):
                    for inner in child.body:
                        yield from self._statement(inner, returns)
                elif isinstance(child, ast.AST):
                    yield from self._expression(child, node.lineno)

    def _expression(self, node: ast.AST, statement: int) -> Iterator[Mutation]:
        if isinstance(node, ast.JoinedStr) or self._is_message(node):
            return
        if isinstance(node, ast.Compare):
            operands = [node.left, *node.comparators]
            for left, op, right in zip(operands, node.ops, operands[1:], strict=False):
                yield from self._operator(left, op, right, statement)
        elif isinstance(node, ast.BoolOp):
            for left, right in zip(node.values, node.values[1:], strict=False):
                yield from self._operator(left, node.op, right, statement)
        elif isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS and not self._is_text_or_path(node):
            yield from self._operator(node.left, node.op, node.right, statement)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
            yield self._replace(node, f"({self._text(node.operand)})", statement)
        elif isinstance(node, ast.IfExp):
            yield self._negate(node.test, statement)
        elif isinstance(node, ast.comprehension):
            for test in node.ifs:
                yield self._negate(test, statement)
        elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
            yield self._replace(node, _other_constant(node.value), statement)
        is_cast = isinstance(node, ast.Call) and ast.unparse(node.func) == "cast"
        for child in node.args[1:] if is_cast else ast.iter_child_nodes(node):
            yield from self._expression(child, statement)

    def _negate(self, test: ast.expr, statement: int) -> Mutation:
        # The outer parentheses keep the text in one expression, whatever stands around it.
        return self._replace(test, f"(not ({self._text(test)}))", statement)

    def _operator(self, left: ast.AST, op: ast.AST, right: ast.AST, statement: int) -> Iterator[Mutation]:
        """Yields the change of the operator between two expressions."""
        old, new = _OPERATORS[type(op)]
        start, end = self._span(left)[1], self._span(right)[0]
        pattern = rf"\b{old}\b".replace(" ", r"\s+") if old[0].isalpha() else re.escape(old)
        if match := re.search(pattern, self._source[start:end]):
            first = start + match.start()
            line = self._source.count("\n", 0, first) + 1
            yield Mutation(line, statement, first, start + match.end(), new)

    def _replace(self, node: ast.expr, text: str, statement: int) -> Mutation:
        return Mutation(node.lineno, statement, *self._span(node), text)

    def _is_message(self, node: ast.AST) -> bool:
        return isinstance(node, ast.Call) and _MESSAGES.match(ast.unparse(node.func)) is not None

    def _is_text_or_path(self, node: ast.BinOp) -> bool:
        """Returns whether the operands look like text or paths. Other operators only raise TypeError."""
        for side in (node.left, node.right):
            if isinstance(side, ast.JoinedStr) or (isinstance(side, ast.Constant) and isinstance(side.value, str)):
                return True
            if isinstance(side, ast.List | ast.Tuple | ast.Dict | ast.ListComp):
                return True
        return isinstance(node.op, ast.Div) and _PATH.search(self._text(node)) is not None

    def _span(self, node: ast.AST) -> tuple[int, int]:
        """Returns the offsets of a node in characters."""
        first = self._offset(node.lineno, node.col_offset)
        return first, self._offset(node.end_lineno, node.end_col_offset)

    def _offset(self, line: int, column: int) -> int:
        """Returns the offset of a column, which `ast` counts in UTF-8 bytes."""
        start = self._lines[line - 1]
        text = self._source[start : self._lines[line]]
        return start + len(text.encode("utf-8")[:column].decode("utf-8"))

    def _text(self, node: ast.AST) -> str:
        start, end = self._span(node)
        return self._source[start:end]


def _other_constant(value: bool | int | float) -> str:
    if isinstance(value, bool):
        return str(not value)
    if isinstance(value, int):
        return str(value + 1)
    return repr(value * 2 if value else 1.0)
