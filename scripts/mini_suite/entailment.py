"""Natural-language inference: a premise, and a hypothesis it entails, contradicts or leaves open.

Every label has hypotheses with and without a negation, and of every length, so that the hypothesis
alone says little.
"""

from random import Random

from .generator import Generator, Row, Split, classified
from .phrases import Voice, book, pick

# who / more general / is or are
_PEOPLE = {
    "train": """
a young woman / a woman / is
an elderly man in a straw hat / a man wearing a hat / is
two boys / some children / are
a girl with red boots / a child / is
three nurses / a few people / are
a tall student / a student / is
a couple in matching jackets / two people / are
a bearded farmer / a farmer / is
""",
    "test": """
a grey-haired lady / an older person / is
four teenagers / a group of youngsters / are
a sailor with a tattoo / a seafarer / is
twin sisters / a pair of siblings / are
a plumber in blue overalls / a tradesman / is
several tourists / a number of travellers / are
""",
}
# doing / more general / incompatible / where / indoors or outdoors / the other / open detail
_SCENES = {
    "train": """
painting a fence / working on a fence / tearing a fence down / behind a farmhouse / outdoors / indoors / for a neighbour
playing the violin / making music / listening in silence / on a street corner / outdoors / indoors / to earn money for a trip
slicing onions / preparing food / eating in a restaurant / in a small kitchen / indoors / outdoors / for a wedding soup
walking a brown dog / out with a dog / washing a cat / along a muddy path / outdoors / indoors / before going to work
reading newspapers / reading something / watching a film / in the city library / indoors / outdoors / to find a new flat
repairing a bicycle / fixing a bike / riding a motorcycle / in a cluttered garage / indoors / outdoors / for a race on Sunday
selling flowers / selling plants / buying fish / at a crowded market / outdoors / indoors / at half price
building a snowman / playing in the snow / swimming in a lake / in front of a school / outdoors / indoors / to win a bet
ironing shirts / doing housework / hanging pictures / in a narrow hallway / indoors / outdoors / before a job interview
""",
    "test": """
picking cherries / harvesting fruit / chopping firewood / in a sunny orchard / in the open air / under a roof / to make jam for charity
mending a fishing net / repairing equipment / hauling in a catch / on a stony beach / in the open air / under a roof / with help from a manual
folding paper cranes / crafting with paper / moulding clay / at a hospital bedside table / under a roof / in the open air / as a birthday surprise
playing chess / busy with a board game / juggling oranges / in a hotel lobby / under a roof / in the open air / for the first time this year
photographing swans / taking pictures of birds / feeding ducks / beside a frozen canal / in the open air / under a roof / for a magazine
tuning a piano / working on an instrument / dismantling an organ / in an empty concert hall / under a roof / in the open air / without being paid
""",
}
_DETAILS = {
    "train": book("""
time = On a rainy afternoon / On a quiet morning / Late in the evening / On the first day of spring
while = while a radio plays / as people pass by / while the sun goes down / while it snows / as church bells ring
idle = asleep / lying in bed / sitting in a moving car / on a plane
mood = tired / in a good mood / hungry / new in town / nervous / late for an appointment
"""),
    "test": book("""
source = According to the caption / As the photograph shows / In the painting / In the opening scene of the play
aside = a radio humming / gulls crying somewhere / lunch already eaten / a storm brewing / hardly a sound around
idle = snoring on a couch / driving a lorry / underwater / running a marathon
mood = related to the photographer / dreaming of retirement / fluent in Spanish / feeling homesick / about to be interviewed
"""),
}
_PREMISES = {
    "train": (
        "{who} {be} {doing} {where}.",
        "{where}, {who} {be} {doing}.",
        "{who} {be} {doing} {where} {while}.",
        "{time}, {who} {be} {doing} {where}.",
    ),
    "test": (
        "{source}, {who}, with {aside}, {be} {where}, {doing}.",
        "You can see {who} {doing} {where}, {aside}.",
        "Someone filmed {who} {doing}; all this happens {where}, with {aside}.",
    ),
}
_HYPOTHESES = {
    "train": {
        "entailment": book("""
say = {group} {be} {general}. / {who} {be} {side}. / {group} {be} {doing}. / {who} {be} not {idle}. / Somebody is {where}. / {group} {be} not {wrong}.
"""),
        "neutral": book("""
say = {who} {be} {doing} {open}. / {group} {be} {mood}. / {who} {be} not {mood}. / {group} {be} {general} {open}. / A friend is waiting nearby. / Nobody has paid for this.
"""),
        "contradiction": book("""
say = {group} {be} {wrong}. / {who} {be} {otherside}. / Nobody is {doing}. / {group} {be} {idle}. / {who} {be} not {general}. / There is no one {where}.
"""),
    },
    "test": {
        "entailment": book("""
say = What we see here is {group} {side}. / There {be} {group} busy with something {where}. / It is untrue that {group} {be} {wrong}. / The activity shown: {general}.
"""),
        "neutral": book("""
say = Apparently {group} {be} {mood}. / The reason for {doing}: it is done {open}. / It is untrue that {group} {be} {mood}. / This spot gets crowded at weekends.
"""),
        "contradiction": book("""
say = What we see here is {group} {otherside}. / There {be} {group} {idle} at this moment. / It is untrue that {group} {be} {general}. / The activity shown: {wrong}.
"""),
    },
}


def _records(text: str) -> list[list[str]]:
    return [line.split(" / ") for line in text.strip().splitlines()]


def _facts(rng: Random, split: Split) -> dict[str, str]:
    person = pick(rng, _records(_PEOPLE[split]))
    scene = pick(rng, _records(_SCENES[split]))
    keys = ("who", "group", "be", "doing", "general", "wrong", "where", "side", "otherside", "open")
    return dict(zip(keys, person + scene, strict=True))


def _tell(rng: Random, kind: str, split: Split) -> Row:
    voice = Voice(rng, _DETAILS[split], **_facts(rng, split))
    premise = voice.say(pick(rng, _PREMISES[split]))
    hypothesis = voice.say(pick(rng, _HYPOTHESES[split][kind]["say"]))
    return classified(f"Premise: {premise}\nHypothesis: {hypothesis}", kind)


ENTAILMENT = Generator("entailment", _tell, {"entailment": 1, "neutral": 1, "contradiction": 1})
