"""Facts told in conversations, and questions about them in other words: made of a seed.

500 facts about 40 people, told by the user over 200 threads, among small talk and answers that
repeat names. Each question asks for one fact, with a template drawn apart from that of its telling:
some share all the words that matter, some only the name. Nothing here was chosen by what a search
finds.
"""

import random
from dataclasses import dataclass

FACTS = 500
THREADS = 200
SEED = 2024

PEOPLE = (
    "Anna", "Bernd", "Carla", "Dmitri", "Elif", "Farid", "Greta", "Hiro", "Ines", "Jonas",
    "Katya", "Lionel", "Mei", "Nadia", "Omar", "Paula", "Quentin", "Rosa", "Sven", "Tara",
    "Ursula", "Viktor", "Wanda", "Xavier", "Yara", "Zoltan", "Amina", "Bruno", "Chiara", "Duncan",
    "Esther", "Felix", "Gloria", "Henrik", "Iris", "Jamal", "Klara", "Lorenzo", "Mona", "Nils",
)  # fmt: skip


@dataclass(frozen=True)
class Relation:
    """How a kind of fact is told and asked for; `{p}` is the person, `{v}` the value."""

    tellings: tuple[str, ...]
    questions: tuple[str, ...]
    values: tuple[str, ...]


@dataclass(frozen=True)
class Fact:
    """A sentence of a user, and a question that it answers."""

    telling: str
    question: str


RELATIONS = (
    Relation(
        ("{p} got a dog last month, it is called {v}.", "The puppy of {p} answers to {v}.",
         "We walked {v} in the park, the dog that belongs to {p}."),
        ("What is the name of {p}'s dog?", "How is the pet of {p} called?",
         "Which animal did {p} adopt?"),
        ("Biscuit", "Rex", "Luna", "Pepper", "Ziggy", "Mocha"),
    ),
    Relation(
        ("{p} moved to {v} in spring.", "{p} has an apartment in {v} now.",
         "Since the new job, {p} lives in {v}."),
        ("Where does {p} live?", "In which city is {p}'s home?", "Which town did {p} move to?"),
        ("Lisbon", "Graz", "Leeds", "Osaka", "Tampere", "Quito", "Bologna"),
    ),
    Relation(
        ("{p} cannot eat {v}, it makes the throat swell.",
         "Careful when cooking: {p} is allergic to {v}.",
         "{p} had to see a doctor after a bite with {v} in it."),
        ("What is {p} allergic to?", "Which food must we avoid when {p} comes for dinner?",
         "What does {p} not tolerate?"),
        ("peanuts", "shellfish", "celery", "sesame", "kiwi", "hazelnuts"),
    ),
    Relation(
        ("{p} works as a {v}.", "By profession {p} is a {v}.",
         "{p} earns a living as a {v} these days."),
        ("What is {p}'s job?", "What does {p} do for work?", "Which profession does {p} have?"),
        ("carpenter", "nurse", "notary", "beekeeper", "translator", "geologist", "tram driver"),
    ),
    Relation(
        ("The birthday of {p} is on {v}.", "{p} was born on {v}.",
         "We celebrate {p} every year on {v}."),
        ("When is {p}'s birthday?", "On which day was {p} born?",
         "When should I congratulate {p}?"),
        ("3 March", "17 July", "29 October", "8 December", "21 May", "12 January"),
    ),
    Relation(
        ("{p} drives an old {v}.", "The car of {p} is a {v}.", "{p} bought a used {v}."),
        ("Which car does {p} drive?", "What vehicle does {p} own?",
         "What make is {p}'s automobile?"),
        ("Volvo", "Skoda", "Fiat Panda", "Citroen", "Subaru", "Land Rover"),
    ),
    Relation(
        ("{p} plays the {v} in a small band.", "On Thursdays {p} has {v} lessons.",
         "{p} practises the {v} every evening."),
        ("Which instrument does {p} play?", "What does {p} make music with?",
         "What is {p} learning to play?"),
        ("cello", "accordion", "trumpet", "harp", "banjo", "oboe"),
    ),
    Relation(
        ("The favourite dish of {p} is {v}.", "{p} could eat {v} every day.",
         "If you want to make {p} happy, cook {v}."),
        ("What is {p}'s favourite food?", "What should I cook for {p}?",
         "Which meal does {p} like best?"),
        ("lasagne", "ramen", "goulash", "paella", "dumplings", "falafel"),
    ),
    Relation(
        ("{p} and {v} got married in June.", "The wife of {p} is called {v}.",
         "{p} introduced us to {v}, they are a couple."),
        ("Who is {p} married to?", "What is the name of {p}'s spouse?", "Who is {p}'s partner?"),
        ("Sofia", "Marek", "Leila", "Tomas", "Renate", "Kofi"),
    ),
    Relation(
        ("{p} is reading {v} at the moment.", "On the nightstand of {p} lies {v}.",
         "{p} recommended the novel {v} to everybody."),
        ("Which book is {p} reading?", "What novel did {p} recommend?",
         "What does {p} read before sleeping?"),
        ("Middlemarch", "Dune", "The Trial", "Solaris", "Emma", "Kim"),
    ),
    Relation(
        ("{p} goes {v} at the weekend.", "The hobby of {p} is {v}.",
         "In their free time, {p} loves {v}."),
        ("What is {p}'s hobby?", "How does {p} spend weekends?",
         "What does {p} do for fun?"),
        ("climbing", "kayaking", "birdwatching", "fencing", "gardening", "skating"),
    ),
    Relation(
        ("The meeting with {p} was moved to {v}.", "{p} can only meet us on {v}.",
         "Appointment with {p}: {v}."),
        ("When do I meet {p}?", "When is the appointment with {p}?",
         "What time did {p} suggest for our talk?"),
        ("Monday at nine", "Tuesday at noon", "Wednesday at three", "Friday at ten"),
    ),
    Relation(
        ("{p} speaks fluent {v}.", "At home {p} talks {v} with the children.",
         "{p} grew up with {v} as mother tongue."),
        ("Which language does {p} speak?", "What is {p}'s native language?",
         "In what language should I write to {p}?"),
        ("Catalan", "Farsi", "Danish", "Tagalog", "Hungarian", "Swahili"),
    ),
    Relation(
        ("{p} left a spare key with {v}.", "If {p} is away, {v} waters the plants.",
         "{v} lives next door to {p}."),
        ("Who is {p}'s neighbour?", "Who has the key to {p}'s flat?",
         "Who looks after {p}'s plants?"),
        ("Mrs Novak", "old Peter", "the Hansens", "Doctor Weiss", "Signora Conti"),
    ),
    Relation(
        ("{p} is saving money for {v}.", "The dream of {p} is {v}.",
         "One day {p} wants to afford {v}."),
        ("What is {p} saving for?", "What does {p} dream of?", "What does {p} want to buy?"),
        ("a sailing boat", "a piano", "a trip to Patagonia", "a cabin", "a camper van"),
    ),
    Relation(
        ("{p} takes {v} for the blood pressure.", "The doctor prescribed {v} to {p}.",
         "Remind {p} to take {v} after breakfast."),
        ("Which medicine does {p} take?", "What did the doctor prescribe to {p}?",
         "What are {p}'s pills?"),
        ("ramipril", "candesartan", "amlodipine", "bisoprolol"),
    ),
    Relation(
        ("{p} supports {v}, never miss a match.", "On Saturdays {p} watches {v} in the stadium.",
         "{p} wears the scarf of {v}."),
        ("Which football club does {p} support?", "What is {p}'s favourite team?",
         "Whose fan is {p}?"),
        ("Ajax", "Celtic", "Benfica", "Werder", "Malmo", "Torino"),
    ),
    Relation(
        ("{p} studied {v} in the nineties.", "{p} has a degree in {v}.",
         "At university, {p} chose {v}."),
        ("What did {p} study?", "What subject is {p}'s degree in?",
         "What was {p}'s field at college?"),
        ("archaeology", "chemistry", "law", "botany", "economics", "linguistics"),
    ),
    Relation(
        ("{p} wants the kitchen painted in {v}.", "The colour that {p} likes most is {v}.",
         "Everything {p} wears is {v}."),
        ("What is {p}'s favourite colour?", "In which colour should we paint {p}'s room?",
         "Which shade does {p} prefer?"),
        ("teal", "ochre", "crimson", "lilac", "olive", "turquoise"),
    ),
    Relation(
        ("The daughter of {p} is called {v}.", "{p} picked up {v} from kindergarten.",
         "{p} became a parent: little {v} was born."),
        ("What is the name of {p}'s daughter?", "How is {p}'s child called?",
         "Who is {p}'s kid?"),
        ("Ida", "Noemi", "Freya", "Lucia", "Salma", "Juno"),
    ),
)  # fmt: skip

SMALL_TALK = (
    "The weather is awful today.", "Can you help me plan the week?", "I slept badly.",
    "Thanks, that was useful.", "What should I wear for the concert?", "Let us talk about work.",
    "I saw {p} on the bus today.", "{p} sends greetings.", "Maybe I will call {p} tonight.",
    "Traffic was terrible again.", "I have to buy milk and bread.", "The printer is broken again.",
    "Remind me to pay the rent.", "I met {p} and we had coffee.", "Is there anything new?",
)  # fmt: skip

ANSWERS = (
    "I will remember that about {p}.", "Noted.", "Good to know.", "Of course.",
    "Thanks for telling me about {p}.", "How nice for {p}!", "I am sorry to hear that.",
    "Sure, what else?",
)  # fmt: skip


def facts() -> list[Fact]:
    """Returns the facts in the order in which they are told."""
    chance = random.Random(SEED)
    pairs = [(person, relation) for person in PEOPLE for relation in RELATIONS]
    made: list[Fact] = []
    for person, relation in chance.sample(pairs, FACTS):
        value = chance.choice(relation.values)
        telling = chance.choice(relation.tellings).format(p=person, v=value)
        made.append(Fact(telling, chance.choice(relation.questions).format(p=person)))
    return made


def conversations() -> list[list[tuple[str, str]]]:
    """Returns what the user says on each thread, with the answers; the facts are among it."""
    chance = random.Random(SEED + 1)
    threads: list[list[tuple[str, str]]] = [[] for _ in range(THREADS)]
    for number, fact in enumerate(facts()):
        name = next(person for person in PEOPLE if person in fact.telling)
        said = [fact.telling, chance.choice(SMALL_TALK).format(p=chance.choice(PEOPLE))]
        chance.shuffle(said)
        for text in said:
            answer = chance.choice(ANSWERS).format(p=name)
            threads[number % THREADS].append((text, answer))
    return threads
