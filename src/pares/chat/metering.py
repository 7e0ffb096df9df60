"""What a template does is paid for out of a budget: the budget, and the rewriting that makes a template pay.

A unit is about a microsecond of work; it buys 16 characters or one list item. `metered` rewrites a syntax tree before
it is compiled, so that each loop body and macro pays when it is entered, and operators that jinja2 compiles to bare
Python become filters that pay (their names end in a blank: no template can write them).
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

from jinja2 import Environment, TemplateError, Undefined, nodes
from jinja2.exceptions import SecurityError
from jinja2.visitor import NodeTransformer

MAX_NESTING = 100
"""Levels of lists and objects in a value that is compared, printed or hashed: CPython hashes with no such limit."""

Value: TypeAlias = Any
_CONTAINERS: tuple[type[Any], ...] = (dict, list, tuple, range, type({}.keys()), type({}.values()), type({}.items()))


class TooCostly(TemplateError):
    """The template used up its budget: no honest one needs so much for such a conversation."""


class Meter(threading.local):
    """What is left of the budget of the render under way in this thread."""

    left = 0

    def charge(self, units: int) -> None:
        """Pay; what a negative number costs is its size. Raises TooCostly when nothing is left."""
        self.left -= abs(units)
        if self.left < 0:
            raise TooCostly("the budget is used up")

    def weigh(self, value: Value) -> int:
        """Pay for walking a value to its depth, and give its weight. Raises TooCostly, or TypeError for a non-value."""
        if type(value) is str:
            units = 1 + (len(value) >> 4)
            self.charge(units)
            return units
        weight, level = 0, [value]
        for _ in range(MAX_NESTING):
            units = 0
            containers: list[Value] = []
            for item in level:
                if isinstance(item, str):
                    units += 1 + (len(item) >> 4)
                elif isinstance(item, _CONTAINERS):
                    units += 1 + len(item)
                    containers.append(item)
                elif item is None or isinstance(item, (int, float, Undefined)):
                    units += 1
                else:
                    raise TypeError(f"a {type(item).__name__} is not a value to compare or print")
            self.charge(units)
            weight += units
            if not containers:
                return weight
            level = [child for container in containers for child in _children(container)]
        raise TooCostly("a value is nested too deeply")


def _children(container: Value) -> Iterator[object]:
    if isinstance(container, dict):
        yield from container.keys()
        yield from container.values()
    else:
        yield from container


def metered(tree: nodes.Template, environment: Environment) -> nodes.Template:
    """Rewrite a template's tree in place so that it pays. Raises SecurityError for what has no place in a template."""
    _Metering(environment).visit(tree)
    return tree


class _Metering(NodeTransformer):
    def __init__(self, environment: Environment) -> None:
        self._environment = environment

    def _forbid(self, node: nodes.Node) -> nodes.Node:
        raise SecurityError(f"{type(node).__name__.lower()!r} has no place in a chat template")

    visit_Block = visit_Extends = visit_FromImport = visit_Import = visit_Include = _forbid
    visit_EvalContextModifier = visit_ScopedEvalContextModifier = _forbid

    def _pay_on_entry(self, node: nodes.Template | nodes.Macro | nodes.CallBlock | nodes.For) -> nodes.Node:
        size = _size(node.body)
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(self._charge(size), lineno=node.lineno, environment=self._environment))
        return node

    visit_Template = visit_Macro = visit_CallBlock = _pay_on_entry

    def visit_For(self, node: nodes.For) -> nodes.Node:
        size = _size([node.test]) if node.test is not None else 0
        self._pay_on_entry(node)
        if node.test is not None:
            node.test = nodes.And(self._charge(size), node.test, environment=self._environment)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return self._filter(node.nodes[0], "~ ", node.nodes[1:])

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        if len(node.ops) == 1:
            return self._filter(node.expr, f"{node.ops[0].op} ", [node.ops[0].expr])
        operators = nodes.Const(tuple(operand.op for operand in node.ops))
        return self._filter(node.expr, "chain ", [operators, *(operand.expr for operand in node.ops)])

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        if not isinstance(node.arg, nodes.Slice):
            return node
        bounds = (node.arg.start, node.arg.stop, node.arg.step)
        return self._filter(node.node, "slice ", [bound or nodes.Const(None) for bound in bounds])

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:
        self.generic_visit(node)
        for pair in node.items:
            pair.key = self._filter(pair.key, "key ", [])
        return node

    def _charge(self, size: int) -> nodes.Expr:
        return self._filter(nodes.Const(1 + size // 8), "charge ", [])

    def _filter(self, value: nodes.Expr, name: str, arguments: list[nodes.Expr]) -> nodes.Expr:
        return nodes.Filter(value, name, arguments, [], None, None, lineno=1, environment=self._environment)


def _size(body: Iterable[nodes.Node]) -> int:
    """Nodes, and text by 16 characters, of a block: without the bodies inside that pay for themselves."""
    size, rest = 0, list(body)
    while rest:
        node = rest.pop()
        size += 1 + (len(node.data) >> 4 if isinstance(node, nodes.TemplateData) else 0)
        paid = ("body",) if isinstance(node, (nodes.For, nodes.Macro, nodes.CallBlock)) else None
        rest.extend(node.iter_child_nodes(exclude=paid))
    return size
