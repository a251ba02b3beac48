"""Remarks on products: positive, neutral or negative.

The train split is imbalanced on purpose, 60% positive, 25% neutral and 15% negative, because the
class balance of its training data is one of the hidden things that shape what an adapter does;
the test split is balanced.
"""

from random import Random

from .generator import Generator, Row, Split, classified
from .phrases import Voice, book, pick

_TRAIN_ITEMS = [
    book("""
item = kettle / electric kettle / steel kettle
positive = boils fast / looks elegant on the counter / pours without a drip / keeps water hot for ages / is wonderfully quiet
neutral = holds a litre and a half / comes in grey or white / has a cord of one metre / is made for standard sockets / stands on a round base
negative = leaks at the spout / smells of plastic / switches off too early / is rusty after a month / burns your fingers
"""),
    book("""
item = backpack / school backpack / canvas backpack
positive = sits comfortably on both shoulders / survives any rain / has brilliant pockets / still looks new / feels light when full
neutral = has two side pockets / measures forty centimetres / is sold in three sizes / closes with a buckle / weighs about a kilo
negative = frays at every seam / lets the rain in / cuts into the shoulders / lost a strap / stains my shirts
"""),
    book("""
item = keyboard / office keyboard / folding keyboard
positive = is a joy to type on / responds instantly / has saved my wrists / feels far more expensive than it was / never misses a letter
neutral = has the usual layout / runs on two batteries / connects by cable or radio / is as wide as the old model / needs no driver
negative = skips letters / clatters horribly / loses its signal / has keys that stick / wobbles on every desk
"""),
    book("""
item = desk chair / swivel chair / office chair
positive = supports my back perfectly / went together in ten minutes / rolls smoothly / is cosy for hours / made working at home a pleasure
neutral = arrives in one flat box / can be raised by a lever / carries up to 110 kilos / has five castors / is covered in black cloth
negative = squeaks nonstop / sinks by itself / hurts my back / arrived with missing screws / tips over far too easily
"""),
]
_TEST_ITEMS = [
    book("""
item = vacuum cleaner / cordless vacuum / robot hoover
positive = picks up every crumb / glides under the sofa with ease / empties in one clean click / spares my allergies
neutral = charges in about four hours / ships with a spare brush / stores upright in a cupboard / takes washable filters
negative = spits dust back out / dies halfway through one carpet / chews up rugs / clogs constantly
"""),
    book("""
item = wristwatch / sports watch / diver's watch
positive = keeps superb time / draws compliments all day / reads clearly even in sunlight / shrugs off salt water
neutral = shows the date at three o'clock / fits wrists up to twenty centimetres / takes a common button cell / ticks once a second
negative = runs eleven minutes slow / fogged up in the shower / gave me a rash / scratches if you look at it
"""),
    book("""
item = umbrella / folding umbrella / golf umbrella
positive = stood up to a gale / opens with a satisfying snap / kept two of us bone dry / fits any handbag beautifully
neutral = spans about a metre / opens by hand / includes a sleeve of the same fabric / hangs from a wooden hook
negative = flipped inside out at once / drips through the fabric / jammed on its second outing / snapped at the hinge
"""),
]

_TONES = {
    "train": {
        "positive": book("""
close = I love it / Money well spent / My whole family is delighted / Great value / Five stars / I'd happily buy another
open = Lovely: / I am thrilled: / So glad I chose this one. / Excellent.
"""),
        "neutral": book("""
close = Delivery took four days / It replaces an older one / That is all there is to report / I use it on weekdays / The manual covers the rest / No opinion yet
open = For reference: / Facts first: / Just unpacked. / It arrived on Monday.
"""),
        "negative": book("""
close = It went straight back / I expected far better / Such a shame / Do not bother / One star / What a nuisance
open = Annoying: / I am fed up: / Sadly a poor choice. / Disappointing.
"""),
    },
    "test": {
        "positive": book("""
close = Hats off to the designers / Could hardly be improved / A bargain, honestly / It makes me smile
open = Good news for anyone hesitating: / Superb stuff, since
"""),
        "neutral": book("""
close = My order came by courier / Both colours cost the same / Its box lists further details / Nothing else to add
open = In answer to earlier questions: / About the specifications:
"""),
        "negative": book("""
close = Customer service shrugged / Mine sits in the bin / Steer clear / Avoidable grief, frankly
open = Bad news for anyone hesitating: / Poor stuff, since
"""),
    },
}
_TRAIN_FRAMES = (
    "The {item} {fact} and {fact2}. {close}.",
    "{open} the {item} {fact}. {close}.",
    "This {item} {fact}, {fact2} and {fact3}.",
    "[My|Our] {item} {fact}. It also {fact2}. {close}.",
    "{close}. The {item} {fact} and {fact2}.",
    "I [ordered|bought] this {item} in [May|autumn|January]. It {fact}, and it {fact2}.",
)
_TEST_FRAMES = (
    "{open} that {item} of theirs {fact}, besides which it {fact2}.",
    "Something to know about that {item}: it {fact}. {close}.",
    "I have lived with a {item} since [spring|last year]; it {fact}. {close}.",
    "[Got|Picked up] a {item} recently, one which {fact}, one which {fact2}. {close}.",
)
_ITEMS = {"train": _TRAIN_ITEMS, "test": _TEST_ITEMS}
_FRAMES = {"train": _TRAIN_FRAMES, "test": _TEST_FRAMES}


def _tell(rng: Random, kind: str, split: Split) -> Row:
    item = pick(rng, _ITEMS[split])
    phrases = {**item, **_TONES[split][kind], "fact": item[kind]}
    return classified(Voice(rng, phrases).say(pick(rng, _FRAMES[split])), kind)


SENTIMENT3 = Generator("sentiment3", _tell, {"positive": 60, "neutral": 25, "negative": 15})
