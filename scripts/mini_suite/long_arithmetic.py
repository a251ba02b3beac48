"""Sums, differences and products of long numbers, worked in a few short steps.

The second operand is taken apart at a power of ten, so a step never needs more than one carry chain;
a line that starts with a sign goes on from the line above.
"""

from random import Random

from .generator import Generator, Row, Split
from .phrases import Voice, between, book, pick

_FRAMES = {
    "train": book("""
add = What is {a} + {b}? / Compute {a} plus {b}. / Add {b} to {a}. / [Find|Give] the sum of {a} and {b}.
    / A [factory|mill|press] made {a} parts [last year|in spring] and {b} [this year|in summer]. What is the total?
subtract = What is {a} - {b}? / Compute {a} minus {b}. / Subtract {b} from {a}. / [Find|Give] the difference of {a} and {b}.
    / A [tank|reservoir|silo] held {a} litres and {b} were [drained|pumped out]. What is left?
multiply = What is {a} * {b}? / Compute {a} times {b}. / Multiply {a} by {b}. / [Find|Give] the product of {a} and {b}.
    / A machine fills {a} [bottles|cans|jars] a shift. How many does it fill in {b} shifts?
"""),
    "test": book("""
add = Evaluate {a} + {b} exactly. / How much do {a} and {b} make when put together?
    / One account shows {a} euros, [another|a second one] {b}; how many do they hold together?
subtract = Evaluate {a} - {b} exactly. / By how much does {a} exceed {b}? / If {b} is taken away from {a}, which number stays?
    / Of {a} [votes|letters|coins] {b} proved invalid; count those that stay valid.
multiply = Evaluate {a} * {b} exactly. / How many are {b} groups of {a} each?
    / [Every|Each] [ship|warehouse|train] carries {a} crates; {b} of them carry how many?
"""),
}
_SIGNS = {"add": "+", "subtract": "-"}


def _number(rng: Random, digits: int) -> int:
    return between(rng, 10 ** (digits - 1), 10**digits - 1)


def _steps(sign: str, a: int, b: int, answer: int) -> list[str]:
    """Add or take away the thousands of `b`, then what is left of it."""
    head, rest = b // 1000 * 1000, b % 1000
    if not rest:
        return [f"{a} {sign} {b} = {answer}"]
    return [
        f"{a} {sign} {head} = {a + head if sign == '+' else a - head}",
        f"{sign} {rest} = {answer}",
    ]


def _sum(rng: Random, kind: str) -> tuple[int, int, int, list[str]]:
    a = _number(rng, pick(rng, (4, 5, 5, 6, 6, 7, 8)))
    b = _number(rng, between(rng, 4, min(6, len(str(a)))))
    a, b = max(a, b), min(a, b)
    answer = a + b if kind == "add" else a - b
    return a, b, answer, _steps(_SIGNS[kind], a, b, answer)


def _product(rng: Random) -> tuple[int, int, int, list[str]]:
    """Four or five digits by one, or three by two; the longer one is taken apart only in the first case."""
    if rng.random() < 0.5:
        a, b = _number(rng, between(rng, 4, 5)), between(rng, 2, 9)
        parts = [(a // 1000 * 1000, b), (a % 1000, b)]
    else:
        a, b = _number(rng, 3), between(rng, 12, 99)
        parts = [(a, b // 10 * 10), (a, b % 10)]
    kept = [(x, y) for x, y in parts if x and y]
    lines = [f"{x} * {y} = {x * y}" for x, y in kept]
    if len(kept) > 1:
        lines.append(" + ".join(str(x * y) for x, y in kept) + f" = {a * b}")
    return a, b, a * b, lines


def _tell(rng: Random, kind: str, split: Split) -> Row:
    a, b, answer, lines = _product(rng) if kind == "multiply" else _sum(rng, kind)
    question = Voice(rng, {}, a=str(a), b=str(b)).say(pick(rng, _FRAMES[split][kind]))
    return {
        "input": question,
        "target": "\n".join([*lines, f"#### {answer}"]),
        "answer": str(answer),
    }


LONG_ARITHMETIC = Generator("long_arithmetic", _tell, {"add": 1, "subtract": 1, "multiply": 1})
