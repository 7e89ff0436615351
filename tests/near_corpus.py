"""Texts of which it is known which repeat which: four generators, the same for the same seed.

`prose` makes documents of 5 to 350 words from sentences of installed packages and of a small grammar; `instructions`
makes prompts as people write them, most of them short and many from one template; `requests` makes others, in
several languages. `exercises` makes what a teacher or an editor asks; it was the last to be looked at. In all, some texts are
planted copies of an earlier one, and some are hard negatives: the same template with another content, the same text with
another number or name.
"""
# ruff: noqa: SIM905, E501

from __future__ import annotations

import os
import random
import re
import sysconfig
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

Plant = Literal["exact", "case", "light", "heavy", "reorder", "base", "template", "number", "name"]
PLANTED: frozenset[Plant] = frozenset(("exact", "case", "light", "heavy", "reorder"))
BRIEF = 20
"""Words below which only politeness, articles and slips leave a text the same."""

PACKAGES = ("numpy", "scipy", "sklearn", "pyarrow", "networkx", "aiohttp", "pydantic")
NUMBERED = (
    "The limit is set to {n} entries by default.",
    "It was measured {n} times in a row.",
    "About {n} of the readers gave an answer.",
    "Each box holds {n} bolts and one key.",
    "The report covers {n} months of work.",
)
NAMED = (
    "The first draft was written by {who} in the spring.",
    "According to {who}, the effect is small.",
    "The samples were sent from {where} by train.",
    "A second team in {where} found the same.",
    "It was tested by {who} near {where}.",
)
PEOPLE = (
    "Ada Lovelace|Maria Sanchez|Kofi Mensah|Olga Petrova|Jean Moreau|Priya Natarajan|Tom Becker|Ingrid Larsen|Yuki Tanaka"
    "|Samuel Okoro|Helen Fisher|Carlos Vega|Nadia Haddad|Peter Novak|Linda Osei|Bruno Keller"
).split("|")
PLACES = "Paris|Rome|Lisbon|Nairobi|Oslo|Quito|Hanoi|Toronto|Prague|Lima|Dakar|Seoul|Perth|Geneva|Cairo|Austin".split(
    "|"
)
SUBJECTS = (
    "the committee|a small team|the old engine|every visitor|the river|our neighbour|the second shift|a careful reader"
    "|the library|the harbour|that machine|the evening class|a young baker|the museum|the supplier"
).split("|")
VERBS = (
    "checks|repairs|describes|collects|delivers|prepares|watches|measures|borrows|paints|orders|records|compares|carries"
    "|cleans"
).split("|")
OBJECTS = (
    "the wooden stairs|a box of letters|the weather station|two kinds of flour|the morning papers|an unusual map"
    "|the glass roof|several short films|the water pump|a list of repairs|the narrow bridge|a set of keys|the garden wall"
    "|the new timetable|a basket of apples"
).split("|")
ENDINGS = (
    "before breakfast|with great care|in the rain|for the third year|without any help|on quiet days|at the far end of town"
    "|when the bell rings|as the rules demand|under a grey sky|during the holidays|near the station|while others sleep"
).split("|")
KEPT_WORDS = frozenset("not no never none without nor neither cannot nothing".split())
POLITE = ("please", "kindly", "just", "really", "also", "simply", "very")
PUNCTUATION = re.compile(r"(?<!\d)[.,;:!?](?!\d)")


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """A text, what it is, and which of the earlier texts it repeats (by its place), if any."""

    text: str
    plant: Plant
    of: int | None = None


@cache
def sentences() -> tuple[str, ...]:
    """Sentences of docstrings, sorted, each once."""
    paths = sysconfig.get_paths()
    folders = [Path(paths["stdlib"]), *(Path(paths["purelib"]) / package for package in PACKAGES)]
    files = [
        path
        for folder in folders
        if folder.is_dir()
        for path in sorted(folder.rglob("*.py"))
        if "test" not in str(path.relative_to(folder))
        and (folder.name != "python3.11" or "site-packages" not in str(path))
    ]
    found = {sentence for path in files for sentence in _sentences(path.read_text("utf-8", "replace"))}
    return tuple(sorted(found))


def _sentences(source: str) -> Iterator[str]:
    for passage in re.findall(r'"""(.*?)"""', source, re.DOTALL):
        for sentence in re.split(r"(?<=[.!?])\s+|\n\s*\n", passage):
            flat = " ".join(sentence.split())
            if re.fullmatch(r"[A-Z][\x20-\x7e]*[a-z][.!?]", flat) and ">>>" not in flat and 4 <= flat.count(" ") <= 39:
                yield flat


def sentence_of_grammar(draw: random.Random) -> str:
    return f"{draw.choice(SUBJECTS)} {draw.choice(VERBS)} {draw.choice(OBJECTS)} {draw.choice(ENDINGS)}.".capitalize()


@cache
def ordinary_words() -> tuple[str, ...]:
    """Lower-case words as often as they stand in the sentences."""
    return tuple(word for sentence in sentences()[::3] for word in sentence.split() if ordinary(word))


def ordinary(word: str) -> bool:
    return len(word) > 2 and word.isalpha() and word.islower() and word not in KEPT_WORDS


def document(draw: random.Random, words: int) -> list[str]:
    """Sentences of about so many words in all."""
    chosen: list[str] = []
    while sum(sentence.count(" ") + 1 for sentence in chosen) < words:
        chosen.append(sentence_of_grammar(draw) if draw.random() < 0.15 else draw.choice(sentences()))
    return chosen


def length(draw: random.Random) -> int:
    """5 to 350 words, a fifth of them below 20."""
    return draw.randint(5, 19) if draw.random() < 0.2 else draw.randint(20, 330)


# What is planted: each takes a text and gives a copy that says the same.


def recased(text: str, draw: random.Random) -> str:
    """Another case, spacing or punctuation, or several of them."""
    if draw.random() < 0.5:
        text = draw.choice((str.upper, str.lower, str.capitalize))(text)
    if draw.random() < 0.6:
        text = PUNCTUATION.sub(lambda found: draw.choice((found.group(), "", " ,", "!", ";")), text)
    return "  ".join(text.split(" ")) + draw.choice(("", "\n", "!", " ..."))


def edited(text: str, draw: random.Random, count: int) -> str:
    """So many words replaced, left out or put in, by other ordinary words."""
    words = text.split(" ")
    places = [at for at, word in enumerate(words) if ordinary(word)]
    for at in sorted(draw.sample(places, min(count, len(places))), reverse=True):
        chance, word = draw.random(), draw.choice(ordinary_words())
        if chance < 0.5:
            words[at] = word
        elif chance < 0.75:
            words.insert(at, word)
        else:
            del words[at]
    return " ".join(words)


def lightly(text: str, draw: random.Random) -> str:
    """1 to 3 words changed; of a short text only what leaves it the same."""
    if text.count(" ") + 1 >= BRIEF + 4:
        return edited(text, draw, draw.randint(1, 3))
    return draw.choice((politely, slipped, with_article))(text, draw)


def politely(text: str, draw: random.Random) -> str:
    words = text.split(" ")
    words.insert(draw.randint(0, len(words) - 1), draw.choice(POLITE))
    return " ".join(words)


def slipped(text: str, draw: random.Random) -> str:
    """Two neighbouring letters of a long word swapped, or one left out."""
    words = text.split(" ")
    places = [at for at, word in enumerate(words) if ordinary(word) and len(word) >= 8]
    if not places:
        return politely(text, draw)
    at = draw.choice(places)
    word, cut = words[at], draw.randint(2, len(words[at]) - 3)
    words[at] = draw.choice((word[:cut] + word[cut + 1 :], word[:cut] + word[cut + 1] + word[cut] + word[cut + 2 :]))
    return " ".join(words)


def with_article(text: str, draw: random.Random) -> str:
    other = {"a": "the", "the": "a", "this": "the", "an": "the"}
    words = text.split(" ")
    places = [at for at, word in enumerate(words) if word in other]
    if not places:
        return politely(text, draw)
    at = draw.choice(places)
    words[at] = other[words[at]]
    return " ".join(words)


def heavily(text: str, draw: random.Random) -> str:
    """10 to 20 % of the words changed."""
    return edited(text, draw, round((text.count(" ") + 1) * draw.uniform(0.1, 0.2)))


def reordered(text: str, draw: random.Random) -> str:
    parts = re.split(r"(?<=[.!?]) ", text)
    draw.shuffle(parts)
    return " ".join(parts)


Copy = Callable[[str, random.Random], str]
COPIES: tuple[tuple[Plant, float, int, Copy], ...] = (
    ("exact", 0.05, 0, lambda text, draw: text),
    ("case", 0.05, 0, recased),
    ("light", 0.07, 0, lightly),
    ("heavy", 0.07, 30, heavily),
    ("reorder", 0.06, 30, reordered),
)
"""What is planted, the share of the whole, the least words of what is copied, and how."""


class _Corpus:
    """What has been made so far."""

    def __init__(self, draw: random.Random) -> None:
        self.draw = draw
        self.items: list[Labelled] = []
        self.texts: set[str] = set()
        self.originals: list[int] = []

    def new(self, text: str, plant: Plant) -> None:
        """A text that repeats no other; one that was there already is left out."""
        if text not in self.texts:
            self.texts.add(text)
            self.originals.append(len(self.items))
            self.items.append(Labelled(text=text, plant=plant))

    def copy(self, plant: Plant, least: int, how: Copy) -> None:
        for _ in range(50):
            of = self.draw.choice(self.originals)
            if self.items[of].text.count(" ") + 1 >= least:
                break
        else:
            return
        text = how(self.items[of].text, self.draw)
        self.items.append(Labelled(text=text, plant=plant, of=of))


def prose(seed: int, count: int) -> list[Labelled]:
    """Documents of 5 to 350 words."""
    draw = random.Random(f"prose {seed}")
    corpus = _Corpus(draw)
    families = [_family(draw) for _ in range(max(2, count // 120))]
    while len(corpus.items) < count:
        _prose_item(corpus, families)
    return corpus.items


def _prose_item(corpus: _Corpus, families: Sequence[Callable[[], str]]) -> None:
    draw, chance = corpus.draw, corpus.draw.random()
    if corpus.originals:
        for plant, share, least, how in COPIES:
            if chance < share:
                return corpus.copy(plant, least, how)
            chance -= share
    if chance < 0.1:
        return corpus.new(draw.choice(families)(), "template")
    if chance < 0.13:
        return _varied(corpus, "number")
    if chance < 0.16:
        return _varied(corpus, "name")
    return corpus.new(" ".join(document(draw, length(draw))), "base")


def _varied(corpus: _Corpus, plant: Plant) -> None:
    """A text, and the same with another number or name."""
    draw = corpus.draw
    parts = document(draw, length(draw) - 6) if draw.random() < 0.9 else []
    form = draw.choice(NUMBERED if plant == "number" else NAMED)
    at = draw.randint(0, len(parts))
    people, places = draw.sample(PEOPLE, 2), draw.sample(PLACES, 2)
    numbers = draw.sample(range(2, 2_000), 2)
    one = form.format(n=numbers[0], who=people[0], where=places[0])
    other = (
        form.format(n=numbers[1], who=people[1], where=places[0])
        if "{where}" not in form or "{who}" in form
        else (form.format(n=numbers[1], who=people[0], where=places[1]))
    )
    for sentence in (one, other):
        corpus.new(" ".join([*parts[:at], sentence, *parts[at:]]), plant)


def _family(draw: random.Random) -> Callable[[], str]:
    """Texts of which 40 to 75 % is boilerplate, and the rest their own."""
    total, share = draw.randint(14, 200), draw.uniform(0.4, 0.75)
    shared = " ".join(document(draw, total)).split(" ")[: max(4, round(total * share))]
    cut = draw.randint(1, len(shared))
    own = max(3, round(len(shared) * (1 - share) / share))

    def make() -> str:
        content = " ".join(document(draw, own)).split(" ")[:own]
        content[draw.randrange(len(content))] = str(draw.randint(2, 999))
        return " ".join([*shared[:cut], *content, *shared[cut:]])

    return make


# The second style: what people ask.

TOPICS = (
    "photosynthesis|compound interest|the French Revolution|binary search|tectonic plates|supply and demand|sourdough bread"
    "|the water cycle|machine translation|solar panels|vaccination|jazz harmony|recursion in Python|black holes|chess openings"
    "|inflation|bird migration|the Roman senate|color theory|typhoons|antibiotic resistance|blockchain|urban gardening"
    "|renewable energy|time zones|neural networks|medieval castles|coral reefs|game theory|tax brackets|haiku"
    "|battery chemistry|human memory|sleep hygiene|marathon training|cheese making|volcanoes|Norse mythology|data privacy"
).split("|")
READERS = (
    "a ten-year-old|a busy manager|university students|someone new to the field|my grandmother|a technical audience"
    "|a sceptical journalist|high school teachers"
).split("|")
COUNTRIES = (
    "France|Spain|Kenya|Japan|Peru|Norway|India|Egypt|Canada|Brazil|Vietnam|Poland|Greece|Chile|Morocco|Austria|Ghana|Nepal"
    "|Ireland|Mexico|Turkey|Iran|Cuba|Laos"
).split("|")
FACTS = (
    "capital|population|official language|currency|highest mountain|national anthem|largest river|main export".split(
        "|"
    )
)
FORMS = (
    "Explain {topic} to {reader} in {n} sentences.",
    "What is the {fact} of {country}?",
    "Write a short poem about {topic}.",
    "List {n} interesting facts about {topic} that would surprise {reader}.",
    "Compute {n} * {m} + {k}.",
    "If a train leaves {country} at {n} km/h and another follows {m} minutes later, when do they meet?",
    "Give me {n} ideas for a lesson on {topic}. Each idea should fit on one line. Avoid jargon.",
    "Translate the following sentence into the language of {country}: {sentence}",
    "Classify the sentiment of this review as positive, negative or neutral. Answer with one word. Review: {sentence}",
    "You are a helpful tutor. A student from {country} asks about {topic}. Answer step by step, then ask a question back.",
    "Read the passage and answer the question.\n\nPassage: {passage}\n\nQuestion: what does it say about {topic}?",
    "Summarise this in {n} bullet points: {passage}",
    "Is {country} larger than {other}? Answer yes or no and give the areas in square kilometres.",
    "Rewrite the text below for {reader}. Keep the meaning. Use plain words.\n\n{passage}",
    "How would {who} from {country} describe {topic}?",
    "Convert {n} kilometres to miles and round to {digit} digits.",
)
OPENERS = ("Please ", "Could you ", "Hi, ", "Kindly ", "")
SYNONYMS = {
    "short": "brief", "interesting": "fascinating", "helpful": "friendly", "fit": "go",
    "Summarise": "Summarize", "below": "that follows", "describe": "portray",
}  # fmt: skip


def instructions(seed: int, count: int) -> list[Labelled]:
    """Prompts in the manner of instruction sets: questions, tasks, passages with a task; many of one form."""
    draw = random.Random(f"instructions {seed}")
    corpus = _Corpus(draw)
    while len(corpus.items) < count:
        chance = draw.random()
        if chance < 0.62 or not corpus.originals:
            corpus.new(*_asked(draw))
        elif chance < 0.7:
            _number_or_name(corpus)
        else:
            plant, least, how = draw.choice(WAYS)
            corpus.copy(plant, least, how)
    return corpus.items


def _asked(draw: random.Random) -> tuple[str, Plant]:
    return draw.choice(FORMS).format(**_filling(draw)), "template"


def _filling(draw: random.Random) -> dict[str, str]:
    country, other = draw.sample(COUNTRIES, 2)
    return {
        "topic": draw.choice(TOPICS), "reader": draw.choice(READERS), "country": country, "other": other,
        "fact": draw.choice(FACTS), "who": draw.choice(PEOPLE), "sentence": sentence_of_grammar(draw),
        "n": str(draw.randint(2, 99)), "m": str(draw.randint(2, 999)), "k": str(draw.randint(2, 9999)),
        "digit": str(draw.randint(1, 9)), "passage": " ".join(document(draw, draw.randint(25, 160))),
    }  # fmt: skip


def _number_or_name(corpus: _Corpus) -> None:
    """An earlier prompt with one number, or one country or person, changed."""
    draw = corpus.draw
    text = corpus.items[draw.choice(corpus.originals)].text
    numbers = list(re.finditer(r"\b\d+\b", text))
    names = [found for name in (*COUNTRIES, *PEOPLE) for found in re.finditer(rf"\b{name}\b", text)]
    if numbers and (not names or draw.random() < 0.5):
        found = draw.choice(numbers)
        other = str(int(found.group()) + draw.randint(1, 50))
        return corpus.new(text[: found.start()] + other + text[found.end() :], "number")
    if names:
        found = draw.choice(names)
        other = draw.choice([name for name in (PEOPLE if " " in found.group() else COUNTRIES) if name not in text])
        corpus.new(text[: found.start()] + other + text[found.end() :], "name")
    return None


def _opened(text: str, draw: random.Random) -> str:
    opener = draw.choice(OPENERS)
    return opener + (text[0].lower() + text[1:] if opener else text) + draw.choice(("", " Thanks!", " Thank you."))


def _with_synonym(text: str, draw: random.Random) -> str:
    """A word of the template by another that means the same; of short texts only their spelling."""
    if len(text.split()) < BRIEF + 4:
        return _opened(text, draw)
    known = [word for word in SYNONYMS if word in text.split()]
    return text.replace(word := draw.choice(known), SYNONYMS[word], 1) if known else _opened(text, draw)


def _long_edit(text: str, draw: random.Random) -> str:
    return edited(text, draw, max(1, round(len(text.split()) * draw.uniform(0.03, 0.15))))


WAYS: tuple[tuple[Plant, int, Copy], ...] = (
    ("exact", 0, lambda text, draw: text),
    ("case", 0, recased),
    ("light", 0, _opened),
    ("light", 0, slipped),
    ("light", 0, _with_synonym),
    ("heavy", 45, _long_edit),
    ("reorder", 60, reordered),
)


# The third style: what comes in at a help desk, a shop and a school, in several languages.

PRODUCTS = (
    "kettle|raincoat|desk lamp|bicycle bell|water bottle|backpack|electric drill|board game|yoga mat|wall clock".split(
        "|"
    )
)
QUALITIES = "light|sturdy|foldable|quiet|washable|handmade|cheap|waterproof|compact|elegant".split("|")
BUYERS = "commuters|students|new parents|hikers|night workers|collectors|gardeners|travellers".split("|")
FAULTS = (
    "the screen stays black|the invoice shows the wrong address|the parcel never arrived|the password link has expired"
    "|the app closes when I take a photo|the handle broke off|the sound cuts out|two pages are missing|the colour is faded"
).split("|")
FIRMS = "Northwind|Contoso|Fabrikam|Initech|Globex|Umbrella|Soylent|Vandelay".split("|")
GOODS = "apples|tickets|tiles|pencils|litres of paint|loaves|chairs|postcards".split("|")
PUPILS = "Amir|Bea|Chen|Dora|Emil|Fatou|Gus|Hana|Ivo|Jana".split("|")
TOWNS = "Hamburg|Lyon|Sevilla|Turin|Porto|Krakau|Basel|Gent|Malmö|Graz".split("|")
THINGS = "Brot|Milch|Schuhe|Bücher|Blumen|Fahrräder|Möbel|Uhren".split("|")
DISHES = "麻婆豆腐|红烧肉|宫保鸡丁|酸辣汤|小笼包|北京烤鸭|番茄炒蛋|扬州炒饭".split("|")
SHAPES = (
    "Write a product description for a {quality} {product} aimed at {buyers}. Keep it under {n} words and end with a call to buy.",
    "Ticket #{m}: customer of {firm} writes that {fault}. Draft a reply that apologises, asks for the order number and offers a refund of {n} euros.",
    "{pupil} buys {n} {goods} at {digit}.50 each and pays with a {m} note. How much change does {pupil} get?",
    "{pupil} and {other} share {n} {goods} so that {pupil} gets {digit} more. How many does each get?",
    "Schreibe eine kurze Anzeige für {things} in einem Laden in {town}.",
    "Wie viele Einwohner hat {town}, und wann wurde die Stadt gegründet?",
    "Quel temps fait-il à {town} en hiver, et que peut-on y visiter pendant {digit} jours ?",
    "请介绍一下{dish}的做法，并列出{digit}种主要材料。",
    "Fix this function so that it returns {n} for {m}:\n\ndef {code}(x):\n    return x * {digit}",
    "Return JSON with the keys name, town and age for: {pupil}, {n}, {town}",
    "Which of these is cheaper per piece: {n} {goods} for {m} dollars or {m} {goods} for {n} dollars?",
    "From the minutes below, list every decision and who is responsible for it. Leave out what was only discussed.\n\n{passage}",
    "{passage}\n\nBased on the text above, write {digit} multiple choice questions with four options each, and mark the right one.",
    "Act as a {firm} support agent. A customer says: '{fault}'. Ask at most {digit} questions before you propose a solution.",
)
BEFORE = ("Would you mind: ", "Dear assistant, ", "Quick one: ", "Please, ", "Hello! ")
AFTER = (" Thanks a lot!", " Many thanks.", " Please.", " :)", "")


def requests(seed: int, count: int) -> list[Labelled]:
    """Requests to a help desk, a shop or a school, mostly short, in four languages; many of one form."""
    draw = random.Random(f"requests {seed}")
    corpus = _Corpus(draw)
    while len(corpus.items) < count:
        chance = draw.random()
        if chance < 0.62 or not corpus.originals:
            corpus.new(draw.choice(SHAPES).format(**_request(draw)), "template")
        elif chance < 0.7:
            _one_slot(corpus)
        else:
            plant, least, how = draw.choice(MANNERS)
            corpus.copy(plant, least, how)
    return corpus.items


def _request(draw: random.Random) -> dict[str, str]:
    pupil, other = draw.sample(PUPILS, 2)
    return {
        "product": draw.choice(PRODUCTS), "quality": draw.choice(QUALITIES), "buyers": draw.choice(BUYERS),
        "fault": draw.choice(FAULTS), "firm": draw.choice(FIRMS), "goods": draw.choice(GOODS), "pupil": pupil,
        "other": other, "town": draw.choice(TOWNS), "things": draw.choice(THINGS), "dish": draw.choice(DISHES),
        "n": str(draw.randint(12, 99)), "m": str(draw.randint(100, 9999)), "digit": str(draw.randint(2, 9)),
        "code": "_".join(draw.sample(["get", "row", "sum", "cell", "page", "rate"], 2)),
        "passage": " ".join(document(draw, draw.randint(30, 250))),
    }  # fmt: skip


def _one_slot(corpus: _Corpus) -> None:
    """Two requests that differ in one number or one name."""
    draw = corpus.draw
    shape, values, others = draw.choice(SHAPES), _request(draw), _request(draw)
    slots = [slot for slot in ("n", "m", "digit", "pupil", "town", "firm") if f"{{{slot}}}" in shape]
    if not slots:
        return
    slot = draw.choice(slots)
    plant: Plant = "number" if slot in ("n", "m", "digit") else "name"
    if others[slot] in values.values():
        return
    corpus.new(shape.format(**values), plant)
    corpus.new(shape.format(**(values | {slot: others[slot]})), plant)


def _wrapped(text: str, draw: random.Random) -> str:
    return draw.choice(BEFORE) + text + draw.choice(AFTER)


MANNERS: tuple[tuple[Plant, int, Copy], ...] = (
    ("exact", 0, lambda text, draw: text),
    ("case", 0, recased),
    ("light", 0, _wrapped),
    ("light", 0, slipped),
    ("light", 40, lambda text, draw: edited(text, draw, draw.randint(1, 3))),
    ("heavy", 50, heavily),
    ("reorder", 70, reordered),
)


# The fourth style: what a teacher or an editor asks.

METALS = "iron|copper|zinc|nickel|silver|tin|lead|gold|cobalt|titanium".split("|")
AUTHORS = "Woolf|Achebe|Kafka|Borges|Austen|Murakami|Neruda|Chekhov|Morrison|Goethe|Pamuk|Lem".split("|")
GENRES = "sonnet|limerick|fable|diary entry|stage dialogue|news report|riddle|eulogy|sea shanty|ghost story".split("|")
MOODS = "hopeful|bitter|playful|solemn|nostalgic|restless|dry|tender".split("|")
OBJECTS_OF_CODE = "queue|binary tree|hash map|linked list|priority queue|trie|bitset|ring buffer|skip list".split("|")
LANGUAGES = "Rust|Go|Java|Ruby|Kotlin|Swift|Haskell|Lua".split("|")
ORGANS = "liver|spleen|pancreas|kidney|thyroid|lung|retina|cochlea".split("|")
CITIES = "Madrid|Bogotá|Sevilla|Quito|Lima|Valencia|Rosario|Cuenca".split("|")
ANIMALS = "лиса|сова|черепаха|выдра|рысь|цапля|белка|барсук".split("|")
STATIONS = "新宿|渋谷|上野|品川|池袋|横浜|大宮|千葉".split("|")
TASKS = (
    "Balance the equation for {metal} reacting with {n} mol of oxygen.",
    "In the style of {author}, write a {mood} {genre} of {n} lines.",
    "Who wrote more novels, {author} or {author2}?",
    "Implement a {structure} in {language} without using the standard library. Include tests.",
    "What does the {organ} do, and what happens when it fails?",
    "¿Cuántos habitantes tiene {city} y qué se puede visitar en {digit} días?",
    "Напиши короткую сказку, в которой главный герой {animal}, а длина не больше {n} предложений.",
    "{station}駅から空港まで{n}分で行けますか？",
    "The density of {metal} is {n}.{digit} g/cm3. What is the mass of a cube of {digit} cm?",
    "Proofread the paragraph. Mark every change and give a reason for each one.\n\n{passage}",
    "A {metal} wire of {n} m is cut into {digit} pieces of equal length; how long is each piece?",
    "Grade this answer from 0 to {digit}0 and justify the grade in two sentences. Answer: {passage}",
    "Compare {language} and {language2} for writing a {structure}: speed, safety and how easy it is to read.",
    "Solve for x: {digit}x + {n} = {m}",
    "Which came first, the {genre} or the {genre2}? Name one early example of each and the century it is from.",
    "Extract all dates, names and amounts from the following contract clause as a table with three columns.\n\n{passage}",
)
FIRST = ("Hey there, ", "If you can: ", "Good morning. ", "Kindly: ", "Hello, ")
LAST = (" Thank you so much!", " Cheers", " Thanks in advance.", "", "")


def exercises(seed: int, count: int) -> list[Labelled]:
    """Exercises and editing tasks, in four languages; many of one form."""
    draw = random.Random(f"exercises {seed}")
    corpus = _Corpus(draw)
    while len(corpus.items) < count:
        chance = draw.random()
        if chance < 0.6 or not corpus.originals:
            corpus.new(draw.choice(TASKS).format(**_exercise(draw)), "template")
        elif chance < 0.7:
            _one_value(corpus)
        else:
            corpus.copy(*draw.choice(HABITS))
    return corpus.items


def _exercise(draw: random.Random) -> dict[str, str]:
    (author, author2), (language, language2), (genre, genre2) = (
        draw.sample(several, 2) for several in (AUTHORS, LANGUAGES, GENRES)
    )
    return {
        "metal": draw.choice(METALS), "author": author, "author2": author2, "genre": genre, "genre2": genre2,
        "mood": draw.choice(MOODS), "structure": draw.choice(OBJECTS_OF_CODE), "language": language,
        "language2": language2, "organ": draw.choice(ORGANS), "city": draw.choice(CITIES), "animal": draw.choice(ANIMALS),
        "station": draw.choice(STATIONS), "n": str(draw.randint(10, 99)), "m": str(draw.randint(100, 999)),
        "digit": str(draw.randint(2, 9)), "passage": " ".join(document(draw, draw.randint(20, 280))),
    }  # fmt: skip


def _one_value(corpus: _Corpus) -> None:
    """Two exercises that differ in one number or one name."""
    draw = corpus.draw
    task, values, others = draw.choice(TASKS), _exercise(draw), _exercise(draw)
    slots = [slot for slot in ("n", "m", "digit", "author", "language", "city") if f"{{{slot}}}" in task]
    slot = draw.choice(slots) if slots else ""
    if not slot or others[slot] in values.values():
        return
    plant: Plant = "number" if slot in ("n", "m", "digit") else "name"
    corpus.new(task.format(**values), plant)
    corpus.new(task.format(**(values | {slot: others[slot]})), plant)


def _greeted(text: str, draw: random.Random) -> str:
    return draw.choice(FIRST) + text + draw.choice(LAST)


HABITS: tuple[tuple[Plant, int, Copy], ...] = (
    ("exact", 0, lambda text, draw: text),
    ("case", 0, recased),
    ("light", 0, _greeted),
    ("light", 0, politely),
    ("light", 45, lambda text, draw: edited(text, draw, draw.randint(1, 3))),
    ("heavy", 60, heavily),
    ("reorder", 80, reordered),
)


@contextmanager
def many_documents(seed: int, count: int) -> Iterator[Callable[[int], str]]:
    """Reads back one of many documents that lie on the disk: of ten, nine are new and one is an edited copy."""
    draw = random.Random(f"many {seed}")
    ends = [0]
    with tempfile.TemporaryFile() as file:
        recent: list[str] = []
        for _ in range(count):
            if recent and draw.random() < 0.1:
                text = edited(draw.choice(recent), draw, 2)
            else:
                text = " ".join(draw.choices(sentences(), k=draw.randint(1, 20)))
                recent = [*recent[-99:], text]
            ends.append(ends[-1] + file.write(text.encode()))
        file.flush()
        yield lambda n: os.pread(file.fileno(), ends[n + 1] - ends[n], ends[n]).decode()
