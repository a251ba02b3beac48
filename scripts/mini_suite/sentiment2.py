"""Short reviews of products, films and restaurants, positive or negative.

Both labels speak through the same frames, and a review often grants the other side a point, so
neither a frame nor a single word gives the label away.
"""

from random import Random

from .generator import Generator, Row, Split, classified
from .phrases import Voice, book, pick, shuffled

_TRAIN_SUBJECTS = [
    book("""
thing = these headphones / this pair of headphones / these wireless earbuds
intro = I bought {thing} [in March|for my commute|on sale] / My brother gave me {thing} / I have worn {thing} for two weeks
good = the sound is warm and clear / the battery lasts for days / they sit lightly on the ears / pairing took seconds
 / the noise of the train simply disappears / the case feels solid / calls come through crisply
bad = the sound is thin and tinny / the battery is empty by lunchtime / they pinch after an hour / the connection keeps dropping
 / every footstep rattles in my ears / the hinge cracked within a week / callers hear only static
"""),
    book("""
thing = this blender / the new blender / this kitchen mixer
intro = We ordered {thing} [for smoothies|after the old one broke] / I have used {thing} every morning / {thing} came last month
good = it crushes ice without complaint / cleaning takes a minute / it is far quieter than I feared / the jug pours neatly
 / soups come out silky / the motor never gets hot / the buttons are easy to grasp
bad = it leaves lumps in everything / the lid is impossible to clean / it howls like a siren / the jug leaks
 / the blades went blunt / the motor smelled burnt on day two / the buttons stick
"""),
    book("""
thing = this thriller / this family comedy / the sequel / this science fiction film
intro = We saw {thing} [on Friday|with friends|at the old cinema] / I watched {thing} [last night|on a plane] / My sister dragged me to {thing}
good = the leads have real chemistry / the ending surprised everyone / every scene earns its place / the jokes land
 / the score gave me goosebumps / the camera work is gorgeous / I was hooked from the first shot
bad = the leads seem bored / the ending makes no sense / the middle drags badly / the jokes fall flat
 / the music drowns the dialogue / the effects look cheap / I checked my watch again and again
"""),
    book("""
thing = this trattoria / the noodle bar by the station / the new tapas place / this little bistro
intro = We ate at {thing} [for my birthday|on Sunday|after a show] / A colleague took me to {thing} / I finally tried {thing}
good = the waiter was attentive / the sauce was rich and fresh / the portions were generous / our table was ready on time
 / the bread was still warm / prices are more than fair / the dessert was a small wonder
bad = the waiter ignored us / the sauce tasted of salt and little else / the portions were tiny / we waited fifty minutes
 / the bread was stale / the bill was outrageous / the dessert was still frozen
"""),
    book("""
thing = this suitcase / the blue cabin bag / this travel bag
intro = I took {thing} [to Rome|on three flights] / We got {thing} for our honeymoon / {thing} has seen [two|four] airports by now
good = the wheels roll like a dream / it swallows a week of clothes / the zips glide / there is not a scratch on it
 / the handle feels sturdy / the pockets are cleverly placed / it weighs almost nothing
bad = a wheel snapped off / it holds barely two shirts / the zip split open / the shell is full of dents
 / the handle wobbles / the lining tore at once / it is heavy even when empty
"""),
]

_TEST_SUBJECTS = [
    book("""
thing = my two-person tent / the hiking tent / a dome tent from this brand
span = one wet night / a season of camping / five days in the hills
good = not a drop got inside / the poles click together blindfolded / it shrugs off strong wind / it packs down very small
 / the seams show fine workmanship / there is space for boots
bad = water pooled around my mat / the poles bend under the slightest breeze / the pegs are made of butter / it never fits back in its sack
 / a seam gave way at dawn / condensation soaked our sleeping bags
"""),
    book("""
thing = the bedside lamp / my reading lamp / a floor lamp from this shop
span = half a year / one winter / ten evenings of reading
good = the light is gentle on tired eyes / dimming works smoothly / the brass finish looks far pricier than it was / the base never tips
 / bulbs are simple to replace / it brightens the whole corner
bad = the light flickers / the switch gives up every other evening / the finish peels / the base topples when touched
 / it hums all night / the cord is ridiculously short
"""),
    book("""
thing = the documentary / that animated adventure / the courtroom drama / her debut feature
span = two hours in row six / a second viewing / one evening on the couch
good = the storytelling is wise and tender / the voices are perfectly cast / the pacing never slackens / it trusts its audience
 / I left the building beaming / each twist felt earned
bad = the plot is a heap of clichés / the voices grate / it lectures instead of telling a story / half the audience walked out
 / the acting is wooden / each twist could be seen miles off
"""),
    book("""
thing = the corner bakery café / the seafood grill / the vegan diner / that rooftop brasserie
span = one long brunch / three visits / an anniversary evening
good = the crab was superb / staff remembered our names / the terrace is heavenly / the coffee alone merits the trip
 / plates arrived hot and beautiful / they handled my allergy with care
bad = the fish smelled off / staff rolled their eyes at us / our cutlery was greasy / the coffee was dishwater
 / plates arrived lukewarm / they charged us for food we never got
"""),
]

_TRAIN_FRAMES = (
    "{intro}, and {fact}. {fact2}. {verdict}.",
    "{verdict}: {fact}, and {fact2}.",
    "{intro}. Although {other}, {fact} and {fact2}. {verdict}.",
    "{fact}, {fact2} and {fact3}. {verdict}.",
    "{intro}: {fact}, and what is more, {fact2}. {verdict}.",
    "{verdict}. [To be fair|Granted], {other}, but {fact}, and that decides it.",
    "{intro}. {fact}. [On top of that|Besides], {fact2}.",
)
_TEST_FRAMES = (
    "Thoughts on {thing} after {span}: {fact}; {fact2}. {verdict}.",
    "[Where to begin|What can one say]? {fact}, while {fact2}.",
    "Yes, {other}. Even so, {fact}, which counts for more with me. {verdict}.",
    "{span} with {thing} taught me one thing – {fact}. {verdict}!",
    "Friends had told me {other}, yet my own experience of {thing} differs: {fact}, plus {fact2}.",
    "{verdict}, because {fact} and because {fact2}.",
)

_VERDICTS = {
    "train": {
        "positive": book("""
verdict = [Warmly|Highly] recommended / I would choose it again in a heartbeat / Worth every penny
 / What a lovely surprise / I could not be happier / A real treat / Easily the best in years
"""),
        "negative": book("""
verdict = [Best|Better] avoided / I want my money back / Never again / What a letdown
 / I regret it already / A complete waste of an evening and of cash / Easily the worst in years
"""),
    },
    "test": {
        "positive": book("""
verdict = Full marks from our household / Count me among the fans / Bravo to everyone involved
 / I keep telling neighbours about it / Ten out of ten
"""),
        "negative": book("""
verdict = Zero stars if that were possible / Consider yourselves warned / Shame on everyone involved
 / I keep warning neighbours about it / Two out of ten
"""),
    },
}
_SUBJECTS = {"train": _TRAIN_SUBJECTS, "test": _TEST_SUBJECTS}
_FRAMES = {"train": _TRAIN_FRAMES, "test": _TEST_FRAMES}


def _tell(rng: Random, kind: str, split: Split) -> Row:
    subject = pick(rng, _SUBJECTS[split])
    fact, other = ("good", "bad") if kind == "positive" else ("bad", "good")
    # Phrases at one place of `good` and `bad` are about one aspect: a review must not say both.
    aspects = shuffled(rng, range(len(subject["good"])))
    phrases = {
        **subject,
        **_VERDICTS[split][kind],
        "fact": [subject[fact][aspect] for aspect in aspects[:3]],
        "other": [subject[other][aspect] for aspect in aspects[3:]],
    }
    return classified(Voice(rng, phrases).say(pick(rng, _FRAMES[split])), kind)


SENTIMENT2 = Generator("sentiment2", _tell, {"positive": 1, "negative": 1})
