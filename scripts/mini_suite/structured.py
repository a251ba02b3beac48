"""Requests to an assistant, turned into an intent with its slots; every slot value stands in the request."""

import json
from random import Random

from .generator import Generator, Row, Split
from .phrases import Voice, book, pick

# The order of an intent's slots here is their order in the JSON.
_SLOTS = {
    "book_table": ("restaurant", "people", "day", "time"),
    "set_alarm": ("time", "day"),
    "order_food": ("quantity", "dish", "address"),
    "play_music": ("song", "artist", "room"),
    "get_weather": ("city", "day"),
    "add_reminder": ("task", "day", "time"),
    "send_message": ("recipient", "message"),
    "book_taxi": ("origin", "destination", "time"),
}

_TRAIN = book("""
greeting = / Hello. / Hi there! / Good morning.
please = Please / Kindly / I'd like you to / I need you to / Now please
time = 7 pm / 8:30 pm / six o'clock / 12:15 / 9 am / half past seven / 6:45 am / 5 am / 10:20
day = tomorrow / Friday / Saturday evening / next Tuesday / Sunday / the 3rd of May / tonight
restaurant = Luigi's / the Blue Door / Casa Verde / Golden Wok / the Old Mill / Chez Anna
people = two / four / five / six / eight
quantity = two / three / four / six
dish = pepperoni pizzas / chicken wraps / veggie burgers / spring rolls / lentil soups / poke bowls
address = 12 Oak Street / 40 Mill Lane / the office on Park Road / 9 Station Square
song = Blue Lanterns / River Song / Cold Coffee / Paper Boats / Slow Summer
artist = the Night Trains / Mara Bell / Juno and the Owls / Otis Grant
room = kitchen / living room / bedroom / garage
city = Lisbon / Oslo / Nairobi / Toronto / Madrid / Prague
task = call the dentist / water the plants / pay the rent / pick up the parcel / feed the cat
recipient = Mum / Daniel / my boss / Aunt Clara / the landlord
message = I will be ten minutes late / the keys are under the mat / dinner is ready / the meeting is cancelled
origin = the central station / my hotel / the museum / 5 Hill Road
destination = the airport / the harbour / the city hospital / the concert hall

book_table = {please} book a table for {people} at {restaurant} {day} at {time}.
 / {please} reserve a table at {restaurant} for {people} people[, at {time}|].
 / We are {people} and want to eat at {restaurant} {day}. Is there a table[ at {time}|]?
 / {please} get us into {restaurant} {day}, {people} guests, around {time}.
set_alarm = {please} set an alarm for {time}[ {day}|]. / {please} wake me [up|] at {time} {day}.
 / I have to be up by {time}, so set the alarm. / Alarm at {time} {day}, [please|loud, please].
order_food = {please} order {quantity} {dish} to {address}. / I am hungry: get me {quantity} {dish}.
 / {please} have {quantity} {dish} delivered to {address}[ as soon as possible|].
play_music = {please} play {song}[ by {artist}|]. / Put on {song}[ in the {room}|, and not too loud].
 / I want to hear something by {artist} in the {room}. / {please} play {artist}[ in the {room}|].
get_weather = What will the weather be like in {city} {day}? / {please} tell me the forecast for {city}[, {day}|].
 / Do I need a coat in {city} {day}? / Will it be sunny in {city}?
add_reminder = {please} remind me to {task} {day}[ at {time}|]. / Don't let me forget to {task}[ {day}|].
 / I must {task}, so remind me at {time}.
send_message = {please} text {recipient} that {message}. / {please} tell {recipient}: {message}.
 / Send {recipient} a message saying {message}.
book_taxi = {please} book a taxi from {origin} to {destination}[ at {time}|]. / I need a cab to {destination} at {time}.
 / {please} get me a ride to {destination} from {origin}.
""")

_TEST = book("""
greeting = / Quick request. / Hey, one more thing! / When you get a moment. / Thanks in advance.
time = 1:40 pm / eleven o'clock / a quarter to nine / 4:10 am / 3 pm / 21:30 / noon
day = this Wednesday / this Monday / the day after tomorrow / Easter Sunday / next Thursday morning
restaurant = Harbour Grill / Saffron Garden / Trattoria Nove / the Lemon Tree / Sakura
people = three / seven / nine / ten
quantity = five / seven / a dozen / eleven
dish = beef tacos / falafel plates / cheese omelettes / noodle salads / salmon bagels
address = 77 Cedar Avenue / flat 3 on Bridge Row / the workshop by the canal / 210 Queen's Walk
song = Midnight Orchard / Glass Mountain / Seven Kites / Lost at Sea
artist = Petra Lowe / the Copper Foxes / Sami Idris / Winter Parade
room = study / bathroom / attic / dining room
city = Reykjavik / Lima / Seoul / Hamburg / Cape Town
task = renew the passport / collect the dry cleaning / back up the laptop / ring the plumber
recipient = Priya / the babysitter / Uncle Joe / my flatmate / Coach Weber
message = practice moves to the upper field / there is soup in the fridge / I found the umbrella / we won the case
origin = the ferry pier / the university library / gate B / my sister's place
destination = the botanical garden / the tax office / Elm Crescent / the ice rink

book_table = A party of {people} hopes to dine {day} – try {restaurant}[, say {time}|].
 / See whether {restaurant} has room for {people} of us at {time}.
 / Dinner at {restaurant} {day}, {time}, with {people} people: make the reservation.
set_alarm = Make sure I'm awake at {time}[ {day}|]. / My phone should ring at {time} {day} because of an early train.
 / Early start {day}: ring the bell at {time}.
order_food = Lunch for the team: {quantity} {dish}, bring it all to {address}. / We could really go for {quantity} {dish} right now, so place the order.
 / Send the courier to {address} with {quantity} {dish}.
play_music = Some music would be nice, maybe {song}[ from {artist}|]. / Start {song} over the speakers of the {room}.
 / Nothing but {artist} in the {room} from now on.
get_weather = I'm flying to {city} {day}; how warm does it get there? / Is rain expected {day} over {city}?
 / Umbrella or sunglasses for {city}?
add_reminder = Put it on my list: {task}, {day}[, {time}|]. / I keep forgetting to {task} – nudge me {day}.
 / At {time} I should {task}; ping me then.
send_message = Drop a line to {recipient} with the words {message}. / Let {recipient} know [right away|quickly]: {message}.
 / I want {recipient} to hear that {message}.
book_taxi = Have a driver collect me at {origin} [by {time}|soon] and drop me at {destination}. / How do I reach {destination} by {time}? Call a car.
 / Two suitcases, one passenger, {origin} to {destination}: arrange a car.
""")

_BOOKS = {"train": _TRAIN, "test": _TEST}


def _tell(rng: Random, kind: str, split: Split) -> Row:
    voice = Voice(rng, _BOOKS[split])
    request = voice.say("{greeting} " + pick(rng, _BOOKS[split][kind]))
    slots = {slot: voice.said[slot] for slot in _SLOTS[kind] if slot in voice.said}
    target = json.dumps({"intent": kind, "slots": slots}, separators=(",", ":"), ensure_ascii=False)
    return {"input": request, "target": target}


STRUCTURED = Generator("structured", _tell, dict.fromkeys(_SLOTS, 1))
