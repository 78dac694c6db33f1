"""The mutants of a source file; see ``mutants.py``."""

import ast
import copy
from collections.abc import Iterator
from typing import NamedTuple

COMPARISONS = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
ARITHMETIC = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
NAMES = {"min": "max", "any": "all", "argmin": "argmax", "amin": "amax", "floor": "ceil"}
NAMES |= {"minimum": "maximum"}
NAMES |= {new: old for old, new in NAMES.items()}
MESSAGES = ("logging.", "logger.", "warnings.", "print(")
TYPES = {"None", "int", "float", "str", "list", "dict", "bytes"}
SKIPPED_FIELDS = ("annotation", "returns", "decorator_list", "format_spec", "type_params")


class Mutant(NamedTuple):
    """One change of a file.

    Attributes:
        path: the file, from the root.
        line: where the change begins.
        lines: numbers of the statement's lines, or None if it runs when the module is imported.
        old: the line.
        new: the changed line.
        source: the changed file.
    """

    path: str
    line: int
    lines: range | None
    old: str
    new: str
    source: bytes

    @property
    def key(self) -> tuple[str, str, str]:
        """What identifies it in the list of equivalent mutants."""
        return self.path, self.old, self.new


def mutants_of(path: str, source: bytes) -> list[Mutant]:
    """Return all mutants of a file."""
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    mutants = []
    for old, new, lines in _walk(ast.parse(source), None, range(0)):
        text = ast.unparse(new)
        if isinstance(new, ast.BinOp | ast.BoolOp | ast.Compare | ast.UnaryOp | ast.IfExp):
            text = f"({text})"
        first, last = starts[old.lineno - 1], starts[old.end_lineno]
        begin, end = first + old.col_offset, starts[old.end_lineno - 1] + old.end_col_offset
        mutated = source[:begin] + text.encode() + source[end:]
        one_line = (
            " ".join(line.strip() for line in part.decode().splitlines())
            for part in (source[first:last], mutated[first : last + len(mutated) - len(source)])
        )
        mutants.append(Mutant(path, old.lineno, lines, *one_line, mutated))
    return mutants


def equivalent(text: str) -> set[tuple[str, str, str]]:
    """Return the keys of the mutants listed as equivalent."""
    blocks = text.strip().split("\n\n")
    entries = [block.split("\n") for block in blocks if not block.startswith("#")]
    return {
        (path, old.removeprefix("- "), new.removeprefix("+ ")) for path, old, new, *_ in entries
    }


def _walk(node: ast.AST, function: ast.AST | None, lines: range) -> Iterator[tuple]:
    """Yield nodes, what replaces them, and the lines of their statement."""
    if _skipped(node):
        return
    if isinstance(node, ast.stmt):
        body = getattr(node, "body", None)
        end = max(node.lineno + 1, body[0].lineno) if body else node.end_lineno + 1
        lines = range(node.lineno, end)
    for old, new in _changes(node, function):
        yield old, new, lines if function else None
    inner = node if isinstance(node, ast.FunctionDef | ast.Lambda) else function
    for name, value in ast.iter_fields(node):
        if name in SKIPPED_FIELDS:
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _walk(child, inner if name == "body" else function, lines)


def _skipped(node: ast.AST) -> bool:
    match node:
        case ast.Raise() | ast.Import() | ast.ImportFrom() | ast.FunctionDef(name="__repr__"):
            return True
        case ast.If(test=test):
            return ast.unparse(test) in ("TYPE_CHECKING", "__name__ == '__main__'")
        case ast.Call():
            return ast.unparse(node).startswith(MESSAGES)
        case ast.BinOp(op=ast.BitOr(), left=left, right=right):  # of types
            return not TYPES.isdisjoint((ast.unparse(left), ast.unparse(right)))
    return False


def _changes(node: ast.AST, function: ast.AST | None) -> Iterator[tuple[ast.AST, ast.AST]]:
    def having(**fields) -> tuple[ast.AST, ast.AST]:
        new = copy.copy(node)
        vars(new).update(fields)
        return node, new

    match node:
        case ast.Compare(ops=ops):
            for i, op in enumerate(ops):
                yield having(ops=[*ops[:i], COMPARISONS[type(op)](), *ops[i + 1 :]])
        case ast.BinOp(op=op) | ast.AugAssign(op=op) if type(op) in ARITHMETIC:
            yield having(op=ARITHMETIC[type(op)]())
        case ast.BoolOp(op=op):
            yield having(op=ast.Or() if isinstance(op, ast.And) else ast.And())
        case ast.UnaryOp(operand=operand) if not isinstance(operand, ast.Constant):
            yield node, operand
        case ast.Constant(value=bool(value)):
            yield node, ast.Constant(not value)
        case ast.Constant(value=int(value) | float(value)):
            yield from ((node, ast.Constant(value + step)) for step in (1, -1))
        case ast.Return(value=ast.expr()) if ast.unparse(node) != "return None":
            yield having(value=ast.Constant(None))
        case ast.Expr(value=ast.Call() as call):
            text = ast.unparse(call)
            if not text.startswith((*MESSAGES, "super().__init__(")):
                yield node, ast.Pass()
        case ast.Call(func=ast.Name(id=name) as func) if name in NAMES:
            yield func, ast.Name(NAMES[name])
        case ast.Call(func=ast.Attribute(attr=name) as func) if name in NAMES:
            yield func, ast.Attribute(func.value, NAMES[name])
        case ast.arguments():
            for default in (*node.defaults, *node.kw_defaults):
                if isinstance(default, ast.Constant) and isinstance(default.value, str):
                    yield default, ast.Constant("mutated")
    match node:  # may have been changed above already
        case ast.Call(keywords=keywords):
            for i, k in enumerate(keywords):
                if k.arg in ("min", "max"):
                    swapped = ast.keyword(NAMES[k.arg], k.value)
                    yield having(keywords=[*keywords[:i], swapped, *keywords[i + 1 :]])
        case ast.Slice(lower=lower, upper=upper):
            for bound in (lower, upper):
                if bound and not isinstance(bound, ast.Constant | ast.UnaryOp):
                    yield bound, ast.BinOp(bound, ast.Add(), ast.Constant(1))
        case ast.If(test=test) | ast.IfExp(test=test) | ast.While(test=test):
            if isinstance(test, ast.Name | ast.Attribute | ast.Call | ast.Subscript):
                yield test, ast.UnaryOp(ast.Not(), test)
        case ast.comprehension(ifs=ifs):
            for test in ifs:
                if isinstance(test, ast.Name | ast.Attribute | ast.Call | ast.Subscript):
                    yield test, ast.UnaryOp(ast.Not(), test)
