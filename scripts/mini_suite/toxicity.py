"""Forum comments: mild insults against polite, neutral or firmly critical but civil ones.

What is insulting is aimed at a person. Civil rows use harsh words about a thing, about oneself or
to object to an insult, and toxic rows may sound polite, so a list of bad words does not suffice.
"""

from random import Random

from .generator import Generator, Row, Split, classified
from .phrases import Voice, book, pick

_BOOKS = {
    "train": book("""
topic = the bike lane plan / the new timetable / the article on medieval ships / the club budget / the garden rulebook
    / the latest software update / the school menu / the photo contest / the river clean-up
fool = a clown / a fool / a dimwit / an airhead / a clueless amateur / a total joke / a pompous windbag
fools = clowns / fools / dimwits / losers / idiots
jab = you have the brains of a turnip / nobody can stand your whining / a goldfish has more sense than you
    / you are too thick to read a table / you make everyone cringe / your ego is bigger than your talent
shush = go bother someone else / do us a favour and log off / keep your silly mouth shut / crawl back to your couch
objection = the figures leave out rent / it ignores people who work nights / the second source is thirty years old
    / nobody has tested it in winter / the costs are counted twice / two of the dates contradict each other
wish = could you add a source? / please share the figures. / let us talk it over on Friday. / I would welcome a second opinion. / can we meet halfway?
fact = the draft is open until Friday / page four has a new table / the meeting starts at six / two members voted against it
harsh = a terrible idea / plainly wrong / a waste of public money / the worst draft so far / badly written

toxic = Only {fool} would [write|believe|post] this about {topic}. {jab}.
 / {jab}, and your comment on {topic} proves it. / You are {fool}. {objection}, but {shush}.
 / With respect, {jab}; {objection}. / {fools} like you ruin {topic} for everyone. {shush}.
 / Thanks for your view on {topic}. [Sadly|As always], {jab}. / {shush}. {topic} does not need {fools} like you.
polite = Thanks for your work on {topic}. {wish} / I enjoyed your comment on {topic}; {objection}, though, so {wish}
 / Good point about {topic}. {wish} / Sorry, I misread {topic} and felt like {fool}. {fact}.
neutral = A note on {topic}: {fact}. / {fact}, and {topic} will be discussed then. / Does anyone know more about {topic}? I heard {fact}.
critical = I disagree with you about {topic}: {objection}. / In my view {topic} is {harsh}, because {objection}.
 / {topic} is {harsh}. {objection}, so {wish} / Please do not call [other members|the authors] {fools}. If {topic} is {harsh}, say why.
"""),
    "test": book("""
topic = that lentil stew recipe / our choir's programme / the parking scheme / this chess opening guide / the bus shelter design
    / my translation of the poem / the dog park petition
fool = a nitwit / a blockhead / a twit / a smug know-it-all / an overgrown toddler / a fraud
fools = nitwits / muppets / twits / blockheads / buffoons
jab = your head must be filled with custard / even your shadow is embarrassed by you / thinking was never your hobby
    / everything you type lowers the average / a wet sponge argues better
shush = spare us your drivel / go play with your crayons / take your pathetic rant elsewhere
objection = half of the claims have no author / step three contradicts step one / newcomers were never asked
    / everything takes twice as long as promised / the drawbacks are passed over
wish = perhaps we can fix that together. / would a shorter version help? / I am happy to lend a hand. / no hurry, though.
fact = copies lie at the front desk / version two appeared in April / the vote has been moved to Tuesday / it has nine pages
harsh = a real disappointment / dreadful as things stand / hopelessly confused / unworkable

toxic = Did {fool} come up with {topic}? Ah, it was you – {jab}. / Bless you for trying. {jab}, so {shush}.
 / Where {topic} is concerned, nobody listens to {fools} of your sort: {objection}.
 / How typical of {fool} to defend {topic}! {shush}. / Dear genius, {objection}. {jab}.
polite = What a kind reply regarding {topic}! {wish} / Having tried {topic} myself, I like it a lot – {wish}
 / Silly me, I behaved like {fool} over {topic}; my apologies to all.
neutral = For those asking where to find {topic}: {fact}. / Status of {topic} as of today: {fact}.
critical = Having read {topic} twice, I find it {harsh}: {objection}. / My vote goes against {topic}, since {objection}; {fact}.
 / Name-calling such as "{fools}" helps no one here, even if {objection}. / Honestly, {objection}, which makes {topic} {harsh}. {wish}
"""),
}
_MANNERS = ("polite", "neutral", "critical", "critical")


def _tell(rng: Random, kind: str, split: Split) -> Row:
    phrases = _BOOKS[split]
    manner = "toxic" if kind == "toxic" else pick(rng, _MANNERS)
    return classified(Voice(rng, phrases).say(pick(rng, phrases[manner])), kind)


TOXICITY = Generator("toxicity", _tell, {"toxic": 1, "not toxic": 1})
