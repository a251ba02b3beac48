"""Sentence pairs that share nearly all words: a paraphrase, or the same words with roles exchanged.

The idea of the pairs is that of PAWS (arXiv 1904.01130). Some exchanges keep the meaning ("the tall
man sat by the short one") and passives occur on both sides, so no surface trick settles the label.
"""

from collections.abc import Sequence
from random import Random
from typing import NamedTuple

from .generator import Generator, Row, Split, classified
from .phrases import Voice, book, pick


class Family(NamedTuple):
    """A sentence with its true paraphrases and its look-alikes of another meaning."""

    sentence: str
    yes: Sequence[str]
    no: Sequence[str]


_BOOKS = {
    "train": book("""
role = teacher / student / mayor / painter / captain / lawyer / singer / banker / coach / poet / judge / pilot
act = thanked / followed / praised / photographed / interviewed / invited / defended / ignored / called / warned
when = after the concert / before the election / at the station / during the summer fair / in the old theatre
    / on the last evening / shortly before midnight / in front of the town hall
name = Anton Berg / Lucy Marsh / Omar Haddad / Rita Alves / George Finch / Nora Lindt / Paul Okoye / Ella Stone
city = Vienna / Boston / Cairo / Dublin / Warsaw / Geneva / Havana / Naples
mode = travelled / sailed / cycled / drove / moved / walked
year = in 1874 / in 1902 / in 1931 / in the spring of 1956 / two years later / as a young woman / at the age of thirty
building = castle / church / lighthouse / bridge / railway station / windmill / abbey / harbour wall
pair = older than/younger than / taller than/lower than / further from the river than/closer to the river than
    / more famous than/less famous than
note = according to the guide / as most visitors know / in the opinion of experts / as the map shows
event = the flood / the royal visit / the harvest strike / the great fire / the peace treaty / the land reform
place = in the valley / in the northern province / on the island / in the capital
look = tall / tired / young / cheerful / wealthy / shy
seat = sat next to / danced with / lived beside / shared a table with
instrument = violin / cello / flute / drums / trumpet / harp
band = in the school band / in a wedding quartet / every Friday night / on the first recording
"""),
    "test": book("""
name = Henrik Sand / Yara Costa / Leo Brandt / Mei Tanaka / Frank Dunn / Salma Noor / Igor Petrov / Wendy Clarke
good = motorboat / grand piano / vineyard / stamp collection / racehorse / workshop
deal = for a modest sum / against legal advice / without a written contract / by mutual agreement
town = Bergen / Quito / Osaka / Malmo / Tunis / Adelaide / Bordeaux
life = and wrote three novels / and taught mathematics there / where a square bears that name
office = head of the museum / chair of the trade union / editor of the journal / minister for transport
why = to widespread surprise / following a close vote / once the inquiry had ended
happening = the tunnel was shut / the ferry was cancelled / the radio fell silent / the crowd went home / the lights went out / the shop ran short of candles
club = Northfield Rovers / Athletic Palma / the Lakeside Hawks / Sporting Riga / the Dockers
score = by two goals / after extra time / in heavy fog / by a single point
worker = engineers / designers / nurses / translators / drivers / gardeners
number = twelve / thirty / forty-five / nineteen / sixty
firm = The ministry / A local start-up / The regional clinic / One large hotel
feature = broad / steep / winding / dusty
path = lane / staircase / avenue / track
target = vineyards / quarry / chapel / reservoir
"""),
}

_TRAIN = (
    Family(
        "the {role} {act} the {role2} {when}.",
        (
            "{when}, the {role} {act} the {role2}.",
            "{when}, the {role2} was {act} by the {role}.",
            "the {role2} was {act} by the {role} {when}.",
        ),
        (
            "the {role2} {act} the {role} {when}.",
            "{when}, the {role2} {act} the {role}.",
            "the {role} was {act} by the {role2} {when}.",
        ),
    ),
    Family(
        "{year}, {name} {mode} from {city} to {city2}.",
        (
            "{name} {mode} from {city} to {city2} {year}.",
            "{name} {mode} to {city2} from {city} {year}.",
        ),
        (
            "{year}, {name} {mode} from {city2} to {city}.",
            "{name} {mode} to {city} from {city2} {year}.",
            "{name} {mode} from {city2} to {city} {year}.",
        ),
    ),
    Family(
        "{note}, the {building} is {more} the {building2}.",
        (
            "the {building} is {more} the {building2}, {note}.",
            "the {building2}, {note}, is {less} the {building}.",
        ),
        (
            "{note}, the {building2} is {more} the {building}.",
            "the {building2} is {more} the {building}, {note}.",
        ),
    ),
    Family(
        "{place}, {event} came before {event2}.",
        ("{place}, {event2} came after {event}.", "{event} came before {event2} {place}."),
        ("{place}, {event2} came before {event}.", "{event2} came before {event} {place}."),
    ),
    Family(
        "{when}, the {look} {role} {seat} the {look2} {role2}.",
        (
            "{when}, the {look2} {role2} {seat} the {look} {role}.",
            "the {look} {role} {seat} the {look2} {role2} {when}.",
        ),
        (
            "{when}, the {look2} {role} {seat} the {look} {role2}.",
            "the {look} {role2} {seat} the {look2} {role} {when}.",
        ),
    ),
    Family(
        "{name} played the {instrument} and {name2} the {instrument2} {band}.",
        (
            "{name2} played the {instrument2} and {name} the {instrument} {band}.",
            "{band}, {name} played the {instrument} and {name2} the {instrument2}.",
        ),
        (
            "{name2} played the {instrument} and {name} the {instrument2} {band}.",
            "{band}, {name} played the {instrument2} and {name2} the {instrument}.",
        ),
    ),
)
_TEST = (
    Family(
        "{name} sold {name2} a {good} {deal}.",
        ("{name2} bought a {good} from {name} {deal}.", "{deal}, {name} sold a {good} to {name2}."),
        ("{name2} sold {name} a {good} {deal}.", "{name} bought a {good} from {name2} {deal}."),
    ),
    Family(
        "born in {town}, {name} later settled in {town2} {life}.",
        ("{name} was born in {town} but later settled in {town2} {life}.",),
        (
            "born in {town2}, {name} later settled in {town} {life}.",
            "{name} was born in {town2} but later settled in {town} {life}.",
        ),
    ),
    Family(
        "{name} succeeded {name2} as {office}, {why}.",
        (
            "{why}, {name} succeeded {name2} as {office}.",
            "{name2} was succeeded as {office} by {name}, {why}.",
        ),
        (
            "{name2} succeeded {name} as {office}, {why}.",
            "{name} was succeeded as {office} by {name2}, {why}.",
        ),
    ),
    Family(
        "because {happening}, {happening2}.",
        ("{happening2} because {happening}.", "{happening}, and for that reason {happening2}."),
        ("because {happening2}, {happening}.", "{happening} because {happening2}."),
    ),
    Family(
        "{club} defeated {club2} {score}.",
        ("{club2} lost to {club} {score}.", "{club2} were defeated {score} by {club}."),
        ("{club2} defeated {club} {score}.", "{club} lost to {club2} {score}."),
    ),
    Family(
        "{firm} hired {number} {worker} and {number2} {worker2}.",
        ("{firm} hired {number2} {worker2} and {number} {worker}.",),
        (
            "{firm} hired {number2} {worker} and {number} {worker2}.",
            "{firm} hired {number} {worker2} and {number2} {worker}.",
        ),
    ),
    Family(
        "a {feature} {path} leads past the {target} and a {feature2} {path2} past the {target2}.",
        ("past the {target2} leads a {feature2} {path2} and past the {target} a {feature} {path}.",),
        (
            "a {feature2} {path} leads past the {target} and a {feature} {path2} past the {target2}.",
            "past the {target} leads a {feature2} {path2} and past the {target2} a {feature} {path}.",
        ),
    ),
)
_FAMILIES = {"train": _TRAIN, "test": _TEST}


def _tell(rng: Random, kind: str, split: Split) -> Row:
    phrases = _BOOKS[split]
    family = pick(rng, _FAMILIES[split])
    more, less = pick(rng, phrases["pair"]).split("/") if "pair" in phrases else ("", "")
    voice = Voice(rng, phrases, more=more, less=less)
    pair = [
        voice.say(family.sentence),
        voice.say(pick(rng, family.yes if kind == "yes" else family.no)),
    ]
    # Either sentence may come first, so that passives are not always the second one.
    first, second = pair if rng.random() < 0.5 else reversed(pair)
    return classified(f"Sentence 1: {first}\nSentence 2: {second}", kind)


PARAPHRASE = Generator("paraphrase", _tell, {"yes": 1, "no": 1})
