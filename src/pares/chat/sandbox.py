"""A jinja2 environment in which a template from a stranger ends in bounded time and memory.

jinja2's own immutable sandbox keeps a template away from Python's internals, but not from nested loops that run for
years, strings that double, or tuples so deep that hashing one overflows the C stack. Here only listed methods, filters
and tests exist, and everything is paid for (see `metering`): through jinja2's documented hooks (`call`, `call_binop`,
`getattr`, `getitem`, `finalize`), and by weighing a value before it is walked to its depth.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Mapping
from itertools import pairwise
from types import BuiltinMethodType, FunctionType
from typing import Any, TypeAlias, cast

from jinja2 import Undefined, nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.filters import FILTERS, make_attrgetter
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedFormatter
from jinja2.tests import TESTS
from jinja2.utils import Namespace

from pares.chat.metering import Meter, metered

Value: TypeAlias = Any
"""What a template works on: text, numbers, lists, objects, things undefined."""
Function: TypeAlias = Callable[..., Value]

MAX_NUMBER = 2**63
MAX_WIDTH = 999
"""Largest width or precision in a format, an indent or a rounding."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_METHODS_OF_TEXT = _words(
    "capitalize casefold count endswith find format index isalnum isalpha isascii isdecimal isdigit islower isnumeric "
    "isspace istitle isupper join lower lstrip partition removeprefix removesuffix replace rfind rindex rpartition "
    "rsplit rstrip split splitlines startswith strip swapcase title upper"
)
_LOOP = _words("index index0 revindex revindex0 first last length depth depth0 previtem nextitem cycle")

# What a filter touches of its value: no more than one item, each item, or all of it to its depth.
_ONE = _words("count d default first items last length")
_EACH = _words("list map reject rejectattr reverse select selectattr")
_DEEP = _words("abs capitalize dictsort e escape float int lower max min safe sort string title unique upper")

_PLAIN_TESTS = _words(
    "boolean callable defined false float integer iterable mapping none number sameas sequence string true undefined"
)
_COMPARING_TESTS = _words("!= < <= == > >= eq equalto ge greaterthan gt in le lessthan lower lt ne upper")
_NUMERIC_TESTS = _words("divisibleby even odd")
# Where CPython searches in needle times haystack steps.
_SLOW_SEARCHES = _words("lstrip rfind rindex rpartition rsplit rstrip strip")
_OPERATORS: Mapping[str, Function] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "gt": operator.gt,
    "gteq": operator.ge,
    "lt": operator.lt,
    "lteq": operator.le,
    "in": lambda item, values: item in values,
    "notin": lambda item, values: item not in values,
}
# A width or precision of four digits or from an argument; or a mapping key that could hide one in brackets.
_WIDE = re.compile(r"%(?:\([^()]*\))?[-#0 +]*(?:\*|\d{4}|\d*\.(?:\*|\d{4}))|%\([^()]*\(")


class _Lazy(list[Any]):
    """What jinja2's lazy filters give: worked out at once, so that it is paid for, but true like a generator."""

    def __bool__(self) -> bool:
        return True


_METHODS: Mapping[type, frozenset[str]] = {
    str: _METHODS_OF_TEXT,
    dict: _words("get items keys values"),
    **dict.fromkeys((list, tuple, _Lazy), _words("count index")),
}


class Generation(Extension):
    """`{% generation %}` marks what a model is trained on; here it is only its content."""

    tags = {"generation"}  # noqa: RUF012 - declared so by jinja2

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Give the statements between the tags."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Formatter(SandboxedFormatter):
    def format_field(self, value: Value, format_spec: str) -> Value:
        if re.search(r"\d{4}", format_spec):
            raise SecurityError(f"a width in a format is over {MAX_WIDTH}")
        return super().format_field(value, format_spec)


class Sandbox(ImmutableSandboxedEnvironment):
    """Compiles and renders templates under a budget.

    Set `meter.left` before each render. A template that does what it may not raises jinja2's SecurityError, one that
    takes too much `TooCostly`; otherwise a render raises whatever Python raises for such code.
    """

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "**", "%"})

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", Generation])
        self.meter = Meter()
        self.finalize = _with_context(self._text)
        self.globals = {name: self.globals[name] for name in ("dict", "namespace", "range")}
        self.filters = {
            **{name: self._filter(name) for name in _ONE | _EACH | _DEEP},
            **{f"{name} ": _with_context(self._comparison(compare)) for name, compare in _OPERATORS.items()},
            "indent": _with_context(self._indent),
            "join": _with_context(self._join),
            "replace": _with_context(self._replace),
            "round": _with_context(self._round),
            "tojson": _with_context(self._json),
            "trim": _with_context(self._trim),
            "chain ": _with_context(self._chain),
            "charge ": _with_context(self._charge),
            "key ": _with_context(self._key),
            "slice ": _with_context(self._slice),
            "~ ": _with_context(lambda *parts: "".join(map(self._text, parts))),
        }
        self.tests = {name: TESTS[name] for name in _PLAIN_TESTS}
        self.tests |= {
            name: _with_context(self._comparison(cast("Function", TESTS[name]), numeric=name in _NUMERIC_TESTS))
            for name in _COMPARING_TESTS | _NUMERIC_TESTS
        }

    def _generate(self, source: nodes.Template, *args: Value, **kwargs: Value) -> str:
        return super()._generate(metered(source, self), *args, **kwargs)

    def getattr(self, obj: Value, attribute: str) -> Value:
        """A listed method, else the item of that name, else undefined."""
        methods = _METHODS.get(type(obj))
        if methods is not None:
            if attribute in methods:
                return getattr(obj, attribute)
            if isinstance(obj, dict) and attribute in obj:
                return obj[attribute]
        elif not attribute.startswith("_"):
            visible = isinstance(obj, (Namespace, Undefined)) or (isinstance(obj, LoopContext) and attribute in _LOOP)
            if visible and hasattr(obj, attribute):
                return getattr(obj, attribute)
        return self.undefined(obj=obj, name=attribute)

    def getitem(self, obj: Value, argument: Value) -> Value:
        """The item, else the listed method of that name, else undefined."""
        self.meter.weigh(argument)
        if isinstance(obj, (str, dict, list, tuple, range, Undefined)):
            try:
                return obj[argument]
            except (TypeError, LookupError):
                pass
        return self.getattr(obj, argument) if isinstance(argument, str) else self.undefined(obj=obj, name=argument)

    def call(__self, __context: Context, __obj: Value, *args: Value, **kwargs: Value) -> Value:
        """Call a listed method, a macro, or one of the few functions there are."""
        __self.meter.charge(1 + len(args) + len(kwargs))
        if isinstance(__obj, BuiltinMethodType):
            own = {name: value for name, value in kwargs.items() if name not in {"_loop_vars", "_block_vars"}}
            return __self._method(__obj, args, own)
        if isinstance(__obj, (type, FunctionType)):
            for argument in args:
                __self.meter.weigh(argument)
        return super().call(__context, __obj, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Value, right: Value) -> Value:
        """Arithmetic within 64 bits; text and lists as long as they are paid for."""
        meter = self.meter
        if isinstance(left, str) and isinstance(right, str) and operator == "+":
            meter.charge(1 + (len(left) + len(right) >> 4))
        elif _number(left) and _number(right):
            meter.charge(1)
            if operator == "**" and (abs(left) > 1024 or abs(right) > 6):
                raise OverflowError("a power is out of bounds")
        elif isinstance(left, list) and isinstance(right, list):
            meter.charge(1 + (len(left) + len(right) >> 3))
        elif operator == "*" and (_number(left) or _number(right)):
            times, value = (left, right) if _number(left) else (right, left)
            length = _length(value) * max(int(times), 0)
            meter.charge(1 + (length >> 4 if isinstance(value, str) else length))
        elif operator == "%" and isinstance(left, str):
            if _WIDE.search(left):
                raise SecurityError(f"a width in a format is over {MAX_WIDTH}")
            meter.charge(left.count("%") * (meter.weigh(left) + meter.weigh(right)))
        else:
            meter.weigh(left)
            meter.weigh(right)
        result = self.binop_table[operator](left, right)
        if _number(result) and abs(result) >= MAX_NUMBER:
            raise OverflowError("a number is out of bounds")
        return result

    def call_filter(self, name: str, *args: Value, **kwargs: Value) -> Value:
        """For `map`, whose filter is named while the template runs: none of those that only the rewriting may use."""
        if name.endswith(" "):
            raise SecurityError(f"there is no filter {name!r}")
        return super().call_filter(name, *args, **kwargs)

    def _method(self, method: BuiltinMethodType, args: tuple[Value, ...], kwargs: Mapping[str, Value]) -> Value:
        name, owner, meter = method.__name__, method.__self__, self.meter
        weight = sum(map(meter.weigh, (*args, *kwargs.values())))
        if isinstance(owner, str):
            weight += meter.weigh(owner)
            if name == "format":
                meter.charge(owner.count("{") * weight)
                return _Formatter(self).vformat(owner, args, kwargs)
            if name == "join":
                meter.charge(sum(map(_length, args)) * len(owner) >> 4)
            elif name == "replace" and len(args) >= 2:
                meter.charge(_replacements(owner, args[0]) * _length(args[1]) >> 4)
            elif name in _SLOW_SEARCHES:
                meter.charge(sum(map(_length, (*args, *kwargs.values()))) * len(owner) >> 6)
        elif isinstance(owner, (list, tuple)):
            meter.weigh(owner)
        return self._paid(method(*args, **kwargs))

    def _filter(self, name: str) -> Function:
        function, meter = FILTERS[name], self.meter
        wants = getattr(getattr(function, "jinja_pass_arg", None), "name", "")

        def run(context: Context, value: Value, *args: Value, **kwargs: Value) -> Value:
            if name in _DEEP:
                meter.weigh(value)
            meter.charge(1 + (_length(value) if name in _EACH else 0))
            for argument in (*args, *kwargs.values()):
                if name in _DEEP or isinstance(argument, str):
                    meter.weigh(argument)
            lead = {"context": (context,), "eval_context": (context.eval_ctx,), "environment": (self,)}.get(wants, ())
            return self._paid(function(*lead, value, *args, **kwargs))

        return pass_context(run)

    def _indent(self, value: Value, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
        text = self._text(value)
        self.meter.charge((text.count("\n") + 1) * (len(width) if isinstance(width, str) else width) >> 4)
        return str(self._paid(FILTERS["indent"](text, width, first, blank)))

    def _join(self, value: Value, d: Value = "", attribute: Value = None) -> str:
        separator, items = self._text(d), list(value)
        if attribute is not None:
            items = [*map(make_attrgetter(self, attribute), items)]
        self.meter.charge(len(items) * (1 + len(separator) >> 4))
        return separator.join(map(self._text, items))

    def _replace(self, value: Value, old: Value, new: Value, count: int | None = None) -> str:
        text, old, new = self._text(value), self._text(old), self._text(new)
        self.meter.charge(_replacements(text, old) * len(new) >> 4)
        return text.replace(old, new, -1 if count is None else count)

    def _round(self, value: Value, precision: Value = 0, method: str = "common") -> Value:
        if not _number(value) or not isinstance(precision, int) or abs(precision) > MAX_WIDTH:
            raise SecurityError(f"only numbers are rounded, to at most {MAX_WIDTH} digits")
        self.meter.charge(abs(precision))
        return FILTERS["round"](value, precision, method)

    def _trim(self, value: Value, chars: str | None = None) -> str:
        text = self._text(value)
        self.meter.charge(_length(chars) * len(text) >> 6)
        return text.strip(chars)

    def _comparison(self, compare: Function, *, numeric: bool = False) -> Function:
        def run(*values: Value) -> Value:
            for value in values:
                self.meter.weigh(value)
                if numeric and not _number(value):
                    raise TypeError("not a number")
            return compare(*values)

        return run

    def _chain(self, left: Value, operators: tuple[str, ...], *operands: Value) -> bool:
        values = (left, *operands)
        for value in values:
            self.meter.weigh(value)
        return all(_OPERATORS[name](*pair) for name, pair in zip(operators, pairwise(values), strict=True))

    def _charge(self, units: int) -> bool:
        self.meter.charge(units)
        return True

    def _key(self, key: Value) -> Value:
        self.meter.weigh(key)
        return key

    def _slice(self, value: Value, *bounds: Value) -> Value:
        self.meter.charge(1 + (_length(value) >> 3))
        return value[slice(*bounds)]

    def _text(self, value: Value) -> str:
        self.meter.weigh(value)
        return str(value)

    def _paid(self, result: Value) -> Value:
        """Charge for what a method or filter made; nothing lazy leaves them, and no `Markup`."""
        if isinstance(result, str):
            self.meter.charge(len(result) >> 4)
            return str(result)
        if hasattr(result, "__next__"):
            result = _Lazy(result)
        if isinstance(result, list):
            self.meter.charge(len(result))
        return result

    def _json(
        self,
        value: Value,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        """JSON as the authors of templates expect it: not escaped for HTML, letters as they are."""
        if not (indent is None or (_number(indent) and 0 <= indent <= 8)):
            raise SecurityError("an indent of JSON is over 8")
        weight = self.meter.weigh(value)
        self.meter.charge(weight * self.meter.weigh(separators))
        encoder = json.JSONEncoder(ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
        if indent is None:
            return self._text(encoder.encode(value))
        return "".join(map(self._text, encoder.iterencode(value)))


def _with_context(function: Function) -> Function:
    """As a filter or test that jinja2 never works out while it compiles, when nobody pays."""
    return pass_context(lambda context, *args, **kwargs: function(*args, **kwargs))


def _number(value: Value) -> bool:
    return isinstance(value, (int, float))


def _replacements(text: str, old: Value) -> int:
    return text.count(old) if old else len(text) + 1


def _length(value: Value) -> int:
    return len(value) if hasattr(value, "__len__") else 0
