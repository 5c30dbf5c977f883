"""Evaluates arithmetic in a text without executing it as Python."""

import ast
import math
from collections.abc import Callable
from typing import Any, cast

MAX_CHARS = 200
MAX_EXPONENT = 1000
MAX_DIGITS = 1000

Number = int | float


def _rounded(number: Number, *digits: Any) -> Number:
    # Python computes 10 to the power of the digits, which takes forever for a large number.
    if any(abs(wanted) > MAX_DIGITS for wanted in digits):
        raise ValueError(f"round() takes at most {MAX_DIGITS} digits.")
    return round(number, *digits)


_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
    ast.FloorDiv: lambda a, b: a // b,
    ast.Mod: lambda a, b: a % b,
    ast.Pow: lambda a, b: a**b,
}
_UNARY: dict[type[ast.unaryop], Callable[[Number], Number]] = {
    ast.UAdd: lambda a: +a,
    ast.USub: lambda a: -a,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": abs,
    "max": max,
    "min": min,
    "round": _rounded,
    "sqrt": math.sqrt,
}
_CONSTANTS: dict[str, Number] = {"pi": math.pi, "e": math.e}


def evaluate(expression: str) -> Number:
    """Returns the value of an arithmetic expression.

    It may contain + - * / // % **, brackets, abs, max, min, round, sqrt, pi and e. Raises
    `ValueError` for anything else, for a result that is not a real number, and above 200
    characters, an exponent of 1,000 or a number of 1,000 digits.
    """
    if len(expression) > MAX_CHARS:
        raise ValueError(f"The expression is longer than {MAX_CHARS} characters.")
    text = (
        expression.strip()
        .replace("\N{MULTIPLICATION SIGN}", "*")
        .replace("\N{DIVISION SIGN}", "/")
        .replace("^", "**")
    )
    try:
        tree = ast.parse(text, mode="eval")
        return _real(_value(tree.body))
    except SyntaxError as error:
        raise ValueError(f"{expression!r} is not an arithmetic expression.") from error
    except (ArithmeticError, TypeError) as error:
        raise ValueError(f"{expression!r} has no value: {error}.") from error


def _value(node: ast.expr) -> Number:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return _bounded(number)
        case ast.Name(id=name) if name in _CONSTANTS:
            return _CONSTANTS[name]
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
            return _UNARY[type(op)](_value(operand))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return _binary(op, _value(left), _value(right))
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _FUNCTIONS:
            return _FUNCTIONS[name](*(_value(argument) for argument in arguments))
        case _:
            raise ValueError(
                f"{ast.unparse(node)!r} is not arithmetic; use numbers, + - * / // % ** and ()."
            )


def _binary(op: ast.operator, left: Number, right: Number) -> Number:
    if isinstance(op, ast.Pow) and abs(right) > MAX_EXPONENT:
        raise ValueError(f"The exponent is above {MAX_EXPONENT}.")
    if isinstance(op, ast.Pow) and isinstance(left, int) and isinstance(right, int):
        # Refused before it is computed, because a million digits take long.
        _require_small_power(left, right)
    return _bounded(_real(_BINARY[type(op)](left, right)))


def _require_small_power(base: int, exponent: int) -> None:
    if abs(base) > 1 and (abs(base).bit_length() - 1) * exponent > MAX_DIGITS * math.log2(10):
        raise ValueError(f"The number has more than {MAX_DIGITS} digits.")


def _bounded(number: Number) -> Number:
    if isinstance(number, int) and abs(number) >= 10**MAX_DIGITS:
        raise ValueError(f"The number has more than {MAX_DIGITS} digits.")
    return number


def _real(number: object) -> Number:
    # A root of a negative number is complex in Python.
    if isinstance(number, complex):
        raise ValueError("The result is not a real number.")
    return cast("Number", number)
