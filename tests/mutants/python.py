"""Mutants of a Python module, from its syntax tree. The text around a fault stays unchanged.

Some code has no mutants: annotations, docstrings, assertions (they report a bug, and no caller can make them fail),
names and types of class bodies, patterns of `match`, texts.
"""

import ast
import copy
from collections.abc import Iterator

from tests.mutants.mutant import Edit, Mutant, applied

_COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_CALCULATED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult,
}  # fmt: skip
_LEFT_OUT = (ast.Assert, ast.JoinedStr, ast.Import, ast.ImportFrom, ast.match_case)


def python_mutants(file: str, source: str) -> list[Mutant]:
    """Return the mutants of a module. Mutants that do not compile are left out."""
    found = applied(file, source, list(_Module(source).edits()))
    return [mutant for mutant in found if _compiles(mutant.source)]


def _compiles(source: str) -> bool:
    try:
        compile(source, "mutant", "exec")
    except SyntaxError:
        return False
    return True


class _Module:
    def __init__(self, source: str) -> None:
        self._source = source
        self._starts = [0]
        for line in source.encode().splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))
        self._bytes = source.encode()

    def edits(self) -> Iterator[Edit]:
        yield from self._of(ast.parse(self._source), "", ())

    def _of(self, node: ast.AST, where: str, names: tuple[str, ...]) -> Iterator[Edit]:
        if isinstance(node, _LEFT_OUT):
            return
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            where = where or ".".join((*names, node.name))
            children: list[ast.AST] = [*node.args.defaults, *[d for d in node.args.kw_defaults if d], *node.body]
        elif isinstance(node, ast.ClassDef):
            names = (*names, node.name)
            children = list(node.body)
        elif isinstance(node, ast.AnnAssign):
            children = [node.value] if node.value else []
        else:
            children = list(ast.iter_child_nodes(node))
        yield from self._edits_of(node, where, names)
        for child in children:
            yield from self._of(child, where, names)

    def _edits_of(self, node: ast.AST, where: str, names: tuple[str, ...]) -> Iterator[Edit]:
        is_module_level = not where and not names
        match node:
            case ast.Compare(ops=ops):
                for i, op in enumerate(ops):
                    changed = copy.deepcopy(node)
                    changed.ops[i] = _COMPARED[type(op)]()
                    yield self._expression("comparison", node, changed, where)
            case ast.BoolOp(op=op, values=values):
                changed = copy.deepcopy(node)
                changed.op = ast.Or() if isinstance(op, ast.And) else ast.And()
                yield self._expression("connective", node, changed, where)
                for i in range(len(values)):
                    rest = [value for j, value in enumerate(values) if j != i]
                    kept = rest[0] if len(rest) == 1 else ast.BoolOp(op, rest)
                    yield self._expression("operand dropped", node, kept, where)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                yield self._expression("not dropped", node, operand, where)
            case ast.BinOp(op=op, left=left, right=right) if type(op) in _CALCULATED:
                if not any(isinstance(side, (ast.JoinedStr, ast.List)) or _is_text(side) for side in (left, right)):
                    changed = ast.BinOp(left, _CALCULATED[type(op)](), right)
                    yield self._expression("arithmetic", node, changed, where)
            case ast.Constant(value=bool()):
                yield self._expression("constant", node, ast.Constant(not node.value), where)
            case ast.Constant(value=int()):
                for other in (node.value + 1, node.value - 1):
                    yield self._expression("constant", node, ast.Constant(other), where)
            case ast.Return(value=ast.expr() as value) if not (isinstance(value, ast.Constant) and value.value is None):
                if isinstance(value, (ast.Compare, ast.BoolOp)):
                    negated = ast.UnaryOp(ast.Not(), value)
                    yield self._expression("return", value, negated, where)
                else:
                    yield self._expression("return", value, ast.Constant(None), where)
            case ast.If(test=test) | ast.IfExp(test=test):
                for forced in (True, False):
                    yield self._expression("condition", test, ast.Constant(forced), where)
            case ast.comprehension(ifs=ifs):
                for test in ifs:
                    yield self._expression("condition", test, ast.Constant(True), where)
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and is_module_level:
            value = node.value
            if (
                isinstance(value, ast.Constant)
                and isinstance(value.value, (int, float))
                and not isinstance(value.value, bool)
            ):
                yield self._expression("constant x 10", value, ast.Constant(value.value * 10), where)
        if where and _may_be_dropped(node):
            yield self._edit("statement dropped", node, "pass", where)

    def _expression(self, operator: str, node: ast.AST, changed: ast.expr, where: str) -> Edit:
        text = ast.unparse(ast.fix_missing_locations(changed))
        if not isinstance(changed, (ast.Constant, ast.Name, ast.Call, ast.Attribute)):
            text = f"({text})"
        return self._edit(operator, node, text, where)

    def _edit(self, operator: str, node: ast.AST, text: str, where: str) -> Edit:
        start = self._starts[node.lineno - 1] + node.col_offset
        end = self._starts[node.end_lineno - 1] + node.end_col_offset
        return Edit(operator, len(self._bytes[:start].decode()), len(self._bytes[:end].decode()), text, where)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes))


def _may_be_dropped(node: ast.AST) -> bool:
    """Return whether the function still runs without this statement: a call, or a change of existing state."""
    if isinstance(node, ast.Expr):
        value = node.value.value if isinstance(node.value, ast.Await) else node.value
        return isinstance(value, ast.Call)
    if isinstance(node, ast.Assign):
        return all(isinstance(target, (ast.Attribute, ast.Subscript)) for target in node.targets)
    return isinstance(node, ast.AugAssign)
