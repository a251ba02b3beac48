"""Grade-school word problems with small numbers, told as little stories and solved in one to three steps."""

import re
from operator import add, floordiv, mul, sub
from random import Random
from typing import NamedTuple

from .generator import Generator, Row, Split
from .phrases import Voice, between, book, pick

_OPERATIONS = {"+": add, "-": sub, "*": mul, "/": floordiv}
_LARGEST = 150


class Story(NamedTuple):
    """A frame with numbers `{a}` to `{d}`, and the steps that solve it: `a * b = p {thing}`."""

    frame: str
    steps: tuple[str, ...]


_BOOKS = {
    "train": book("""
name = Amara / Ben / Carlos / Divya / Elena / Farid / Grace / Hiro / Ines / Jonas / Kemi / Lars / Mina / Pavel
thing = pencils / stickers / marbles / shells / stamps / buttons / beads / postcards / badges / toy cars
food = plums / rolls / muffins / cookies / pears / oranges / pretzels / buns
box = boxes / bags / jars / trays / baskets / tins
shop = bakery / corner shop / market stall / school kiosk
item = notebook / ticket / scarf / paintbrush / bus pass / puzzle
day = Monday / Tuesday / Thursday / Saturday
vehicle = bus / tram / minibus
room = hall / gym / music room / theatre
"""),
    "test": book("""
name = Tariq / Ursula / Viktor / Wanda / Xenia / Yusuf / Zoe / Quinn / Rosa / Samuel
team = red team / visiting side / school's junior squad / hockey club
load = bricks / roof tiles / floorboards / gravel
plant = tulips / lavender bushes / tomato seedlings / ferns
volume = novels / atlases / comics / cookbooks
bird = hen / duck / quail
bulky = wardrobes / sofas / pianos / fridges
"""),
}

_TRAIN = {
    "add": (
        Story(
            "{name} [has|keeps] {a} {thing} [in a drawer|on a shelf|at home] and [buys|finds|is given] {b} more "
            "[at the market|on the way home|on {day}]. How many {thing} does {name} have now?",
            ("a + b = r {thing}",),
        ),
        Story(
            "[In the morning|Before lunch] a {shop} [prepares|puts out] {a} {food}, and [in the afternoon|later] {b} more. "
            "How many {food} is that [for the whole day|in all]?",
            ("a + b = r {food}",),
        ),
        Story(
            "There are {a} [children|passengers] on the {vehicle}. At the next stop {b} more get on[ and nobody gets off|]. "
            "How many are on the {vehicle} now?",
            ("a + b = r",),
        ),
        Story(
            "{name} [reads|copies] {a} pages [of a thick book|of a diary|of notes] on {day} and {b} pages on {day2}. "
            "How many pages is that [altogether|on the two days]?",
            ("a + b = r pages",),
        ),
    ),
    "subtract": (
        Story(
            "{name} had {a} {thing} but [lost|gave away|swapped] {b} of them [at school|on a trip|during the break]. "
            "How many {thing} are left?",
            ("a - b = r {thing}",),
        ),
        Story(
            "A {shop} [opens with|starts {day} with] {a} {food} and sells {b} [before noon|by closing time]. "
            "How many {food} remain?",
            ("a - b = r {food}",),
        ),
        Story(
            "{name} is {a} years old. {name2}, [a cousin|a neighbour|the youngest in the class], is {b} years younger. "
            "How old is {name2}?",
            ("a - b = r years",),
        ),
        Story(
            "A [rope|ribbon|wire] is {a} metres long. {name} cuts off {b} metres [for a swing|to wrap a gift|for a tent]. "
            "How many metres [are left|remain]?",
            ("a - b = r metres",),
        ),
    ),
    "multiply": (
        Story(
            "{name} [packs|fills|sorts] {a} {box} with {b} {thing} in each. How many {thing} [are packed|are there] in all?",
            ("a * b = r {thing}",),
        ),
        Story(
            "One {item} costs {a} dollars[ in the {shop}|]. What does {name} pay for {b} of them?",
            ("a * b = r dollars",),
        ),
        Story(
            "In the {room} there are {a} rows of chairs[ for the concert|], and every row has {b} chairs. "
            "How many [chairs are there|people can sit down]?",
            ("a * b = r chairs",),
        ),
        Story(
            "{name} [runs|cycles|walks] {a} kilometres [every morning|each day]. How far is that in {b} days?",
            ("a * b = r kilometres",),
        ),
    ),
    "two-step": (
        Story(
            "{name} buys {a} {box} with {b} {thing} in each and already [had|owned] {c}. "
            "How many {thing} does {name} have altogether?",
            ("a * b = p {thing}", "p + c = r {thing}"),
        ),
        Story(
            "A farmer picks {a} [apples|melons] from one field and {b} from another, then sells {c} [at the market|to a {shop}]. "
            "How many are left over?",
            ("a + b = p", "p - c = r"),
        ),
        Story(
            "{name} saves {a} dollars a week for {b} weeks and then spends {c} dollars on [a present|a {item}|lunch]. "
            "How many dollars are left?",
            ("a * b = p dollars", "p - c = r dollars"),
        ),
        Story(
            "{name} bakes {a} {food}, buys {b} more and shares them all equally among {c} [friends|classmates]. "
            "How many {food} does each one get?",
            ("a + b = p {food}", "p / c = r {food}"),
        ),
        Story(
            "A school orders {a} packs of {b} red folders and {c} packs of {d} blue folders[ for {day}|]. "
            "How many folders does it order?",
            ("a * b = p red", "c * d = q blue", "p + q = r folders"),
        ),
    ),
}

_TEST = {
    "add": (
        Story(
            "The {team} scored {a} points before the break and another {b} after it. What was the final score?",
            ("a + b = r points",),
        ),
        Story(
            "Two lorries came to a building site: [the first|a grey one] brought {a} pallets of {load}, [the second|a green one] {b}. "
            "[Altogether, how many|How many] pallets arrived?",
            ("a + b = r pallets",),
        ),
    ),
    "subtract": (
        Story(
            "Of the {a} seats in a [village cinema|lecture room|small ferry], {b} were taken when {name} came in. "
            "How many stood empty?",
            ("a - b = r seats",),
        ),
        Story(
            "A thermometer [outside {name}'s window|at the harbour|on the balcony] showed {a} degrees at noon; "
            "by midnight it had dropped by {b}. What did it show then?",
            ("a - b = r degrees",),
        ),
    ),
    "multiply": (
        Story(
            "Every {bird} on {name}'s [smallholding|farm] lays {a} eggs a month. How many eggs do {b} of these birds lay in that time?",
            ("a * b = r eggs",),
        ),
        Story(
            "It takes {name} {a} minutes to [varnish|repair] one [window frame|garden bench]. "
            "How many minutes will a set of {b} take?",
            ("a * b = r minutes",),
        ),
    ),
    "two-step": (
        Story(
            "Washing windows, {name} earned {a} euros an hour. After {b} hours of work, and with {c} euros paid for soap, "
            "what profit was made?",
            ("a * b = p euros", "p - c = r euros"),
        ),
        Story(
            "A library [received|unpacked] {a} crates, each holding {b} {volume}; {c} turned out to be damaged. "
            "How many {volume} could be lent out?",
            ("a * b = p {volume}", "p - c = r {volume}"),
        ),
        Story(
            "A gardener [set out|planted] {a} {plant} in spring, added {b} in autumn, and divided the lot evenly over {c} beds. "
            "How many grew in each bed?",
            ("a + b = p", "p / c = r"),
        ),
        Story(
            "On its first {a} trips a removal van carried {b} {bulky} a time, on the next {c} trips {d} a time. "
            "How many {bulky} were moved?",
            ("a * b = p {bulky}", "c * d = q {bulky}", "p + q = r {bulky}"),
        ),
    ),
}

_STORIES = {"train": _TRAIN, "test": _TEST}


def _solve(rng: Random, steps: tuple[str, ...]) -> dict[str, int]:
    """Numbers for a story such that every result is whole, at least 2 and not large."""
    while True:
        numbers = {letter: between(rng, 2, 20) for letter in "abcd"}
        exact = True
        for step in steps:
            left, sign, right, _, result, *_ = step.split()
            x, y = numbers[left], numbers[right]
            numbers[result] = _OPERATIONS[sign](x, y)
            exact &= sign != "/" or x % y == 0
            exact &= 2 <= numbers[result] <= _LARGEST
        if exact:
            return numbers


def _tell(rng: Random, kind: str, split: Split) -> Row:
    story = pick(rng, _STORIES[split][kind])
    numbers = {letter: str(number) for letter, number in _solve(rng, story.steps).items()}
    voice = Voice(rng, _BOOKS[split], **numbers)
    question = voice.say(story.frame)
    # A letter that stands alone in a step is a number; the unit behind it is a phrase.
    lines = [voice.say(re.sub(r"\b([abcdpqr])\b", r"{\1}", step)) for step in story.steps]
    target = "\n".join([*lines, f"#### {numbers['r']}"])
    return {"input": question, "target": target, "answer": numbers["r"]}


WORD_PROBLEMS = Generator("word_problems", _tell, dict.fromkeys(_TRAIN, 1))
