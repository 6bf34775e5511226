"""What a mutant is: one small fault in one place of a file."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Container, Iterator
from dataclasses import dataclass

COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Lt: "<=",
    ast.LtE: "<",
    ast.Gt: ">=",
    ast.GtE: ">",
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.In: "not in",
    ast.NotIn: "in",
    ast.Is: "is not",
    ast.IsNot: "is",
}
SYMBOLS: dict[type[ast.cmpop], str] = {
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.In: "in",
    ast.NotIn: "not in",
    ast.Is: "is",
    ast.IsNot: "is not",
}
# Operator -> (as it is written, what takes its place).
ARITHMETIC: dict[type[ast.operator], tuple[str, str]] = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "/"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "*"),
    ast.Pow: ("**", "*"),
    ast.LShift: ("<<", ">>"),
    ast.RShift: (">>", "<<"),
    ast.BitAnd: ("&", "|"),
    ast.BitOr: ("|", "&"),
    ast.BitXor: ("^", "|"),
}

# Keyword arguments that tell people and tools something, or guard against our own mistakes.
UNSEEN = ("metadata", "strict", "help", "stacklevel")


@dataclass(frozen=True)
class Mutant:
    """One fault.

    Attributes:
        file: relative to the tree.
        line: number of the changed line, from 1.
        text: that line as it is, without its indentation.
        change: what became what.
        source: the whole file with the fault.
    """

    file: str
    line: int
    text: str
    change: str
    source: str

    def diff(self, before: str) -> str:
        """A unified diff against the file as it is."""
        lines = difflib.unified_diff(
            before.splitlines(True), self.source.splitlines(True), self.file, self.file, n=1
        )
        return "".join(lines)


@dataclass(frozen=True)
class _Edit:
    """`old` in the place of a node becomes `new`. Columns count bytes, as `ast` has them."""

    start: tuple[int, int]
    end: tuple[int, int]
    new: str
    change: str


def mutants_of(file: str, source: str, only: Container[str] | None = None) -> list[Mutant]:
    """Every mutant of a file, in the order of its lines.

    Args:
        file: how the mutants name it.
        source: its text.
        only: of lines with these texts; None for all.
    """
    lines = source.encode().splitlines(True)
    offsets = [0]
    for line in lines:
        offsets.append(offsets[-1] + len(line))
    found = {}
    for edit in _Walk(source).edits():
        text = lines[edit.start[0] - 1].decode().strip()
        if only is not None and text not in only:
            continue
        start = offsets[edit.start[0] - 1] + edit.start[1]
        end = offsets[edit.end[0] - 1] + edit.end[1]
        changed = (source.encode()[:start] + edit.new.encode() + source.encode()[end:]).decode()
        if changed == source or not _compiles(changed):
            continue
        found[edit.start, edit.change] = Mutant(file, edit.start[0], text, edit.change, changed)
    return [found[key] for key in sorted(found)]


def _compiles(source: str) -> bool:
    try:
        compile(source, "mutant", "exec")
    except SyntaxError:
        return False
    return True


class _Walk:
    """Finds the edits of a file. Left out: docstrings, annotations, imports, decorators, protocols,
    the text of messages (strings inside `raise`, f-strings), keywords of `UNSEEN`, and arguments of
    `reshape`, to which any negative number is -1 and any other shape an error at once."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._tree = ast.parse(source)

    def edits(self) -> Iterator[_Edit]:
        for statement in self._tree.body:
            yield from self._node(statement, False)

    def _node(self, node: ast.AST, message: bool) -> Iterator[_Edit]:
        """Edits of a node and what is in it. `message`: whether strings are for people."""
        if isinstance(node, ast.Import | ast.ImportFrom | ast.JoinedStr):
            return
        if isinstance(node, ast.ClassDef) and any("Protocol" in ast.unparse(b) for b in node.bases):
            return
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.keyword) and node.arg in UNSEEN:
            return
        yield from self._here(node, message)
        message = message or isinstance(node, ast.Raise)
        for name, value in ast.iter_fields(node):
            if name in ("decorator_list", "annotation", "returns", "type_params"):
                continue
            if name == "args" and _is_reshape(node):
                continue
            children = value if isinstance(value, list) else [value]
            for child in children:
                if isinstance(child, ast.AST):
                    yield from self._node(child, message)

    def _here(self, node: ast.AST, message: bool) -> Iterator[_Edit]:
        match node:
            case ast.Compare():
                yield from self._comparison(node)
            case ast.BinOp() | ast.AugAssign():
                yield from self._arithmetic(node)
            case ast.BoolOp():
                yield from self._boolean(node)
            case ast.UnaryOp(op=ast.Not()):
                yield _replace(node, self._text(node.operand), "not x -> x")
            case ast.UnaryOp(op=ast.USub()) if not isinstance(node.operand, ast.Constant):
                yield _replace(node, self._text(node.operand), "-x -> x")
            case ast.Constant():
                yield from _constant(node)
            case ast.Return() if node.value is not None and not _is_none(node.value):
                yield _replace(node, "return None", "return x -> return None")
            case ast.Break():
                yield _replace(node, "continue", "break -> continue")
            case ast.Continue():
                yield _replace(node, "break", "continue -> break")
        if isinstance(node, ast.If | ast.While | ast.IfExp):
            if isinstance(node.test, ast.Constant):
                return
            condition = self._text(node.test)
            yield _replace(node.test, f"(not ({condition}))", "condition -> not condition")
        if not message:
            yield from self._strings(node)
        yield from _deletion(node)

    def _comparison(self, node: ast.Compare) -> Iterator[_Edit]:
        operands = [node.left, *node.comparators]
        for at, operator in enumerate(node.ops):
            old, new = SYMBOLS[type(operator)], COMPARISONS[type(operator)]
            yield from self._between(operands[at], operands[at + 1], old, new)

    def _arithmetic(self, node: ast.BinOp | ast.AugAssign) -> Iterator[_Edit]:
        if type(node.op) not in ARITHMETIC:
            return
        old, new = ARITHMETIC[type(node.op)]
        if isinstance(node, ast.AugAssign):
            yield from self._between(node.target, node.value, f"{old}=", f"{new}=")
        else:
            yield from self._between(node.left, node.right, old, new)

    def _boolean(self, node: ast.BoolOp) -> Iterator[_Edit]:
        old, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values, node.values[1:], strict=False):
            yield from self._between(left, right, old, new)

    def _between(self, left: ast.expr, right: ast.expr, old: str, new: str) -> Iterator[_Edit]:
        """The operator between two operands, whose brackets may lie there as well."""
        start, end = _end(left), _start(right)
        between = self._slice(start, end)
        at = between.find(old)
        if at < 0 or "#" in between:
            return
        before = between[:at]
        line = start[0] + before.count("\n")
        column = len(before.rpartition("\n")[2].encode()) + (0 if "\n" in before else start[1])
        place = (line, column)
        yield _Edit(place, (line, column + len(old)), new, f"{old} -> {new}")

    def _strings(self, node: ast.AST) -> Iterator[_Edit]:
        """Strings that the program reads: keys, members, operands, arguments of `startswith`."""
        places: list[ast.expr | None] = []
        match node:
            case ast.Compare():
                places = [node.left, *node.comparators]
            case ast.Dict():
                places = list(node.keys)
            case ast.Tuple() | ast.Set() | ast.List():
                places = list(node.elts)
            case ast.Subscript():
                places = [node.slice]
            case ast.Call(func=ast.Attribute()):
                places = list(node.args)
        for place in places:
            if isinstance(place, ast.Constant) and isinstance(place.value, str) and place.value:
                yield _replace(place, repr(f"{place.value}XX"), f"{place.value!r} -> …XX")

    def _text(self, node: ast.expr) -> str:
        return self._slice(_start(node), _end(node))

    def _slice(self, start: tuple[int, int], end: tuple[int, int]) -> str:
        lines = self._source.encode().splitlines(True)[start[0] - 1 : end[0]]
        lines[-1] = lines[-1][: end[1]]
        lines[0] = lines[0][start[1] :]
        return b"".join(lines).decode()


def _start(node: ast.expr | ast.stmt) -> tuple[int, int]:
    return node.lineno, node.col_offset


def _end(node: ast.expr | ast.stmt) -> tuple[int, int]:
    return node.end_lineno or node.lineno, node.end_col_offset or node.col_offset


def _replace(node: ast.expr | ast.stmt, new: str, change: str) -> _Edit:
    return _Edit(_start(node), _end(node), new, change)


def _constant(node: ast.Constant) -> Iterator[_Edit]:
    value = node.value
    if isinstance(value, bool):
        yield _replace(node, str(not value), f"{value} -> {not value}")
    elif isinstance(value, int):
        yield _replace(node, str(value + 1), f"{value} -> {value + 1}")
        if value:
            yield _replace(node, str(value - 1), f"{value} -> {value - 1}")
    elif isinstance(value, float):
        new = value * 1.5 if value else 1.0
        yield _replace(node, repr(new), f"{value} -> {new}")


def _deletion(node: ast.AST) -> Iterator[_Edit]:
    """A statement that does something becomes one that does not."""
    effect = isinstance(node, ast.AugAssign | ast.Raise | ast.Delete)
    effect |= isinstance(node, ast.Expr) and isinstance(node.value, ast.Call | ast.Await)
    if isinstance(node, ast.Assign):
        effect |= any(isinstance(t, ast.Attribute | ast.Subscript) for t in node.targets)
    if effect and isinstance(node, ast.stmt):
        kind = "raise" if isinstance(node, ast.Raise) else "statement"
        yield _replace(node, "pass", f"{kind} -> pass")


def _is_reshape(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".reshape")


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None
