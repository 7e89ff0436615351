"""Near-duplicates: what repeats a kept text and what does not."""
# ruff: noqa: SIM905, E501

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from near_corpus import PLANTED, Labelled, instructions, prose

from corpusgen.curation.finding import Finding
from corpusgen.curation.near import NearIndex, digests, without_template

SAME = [
    ("What is the capital of France?", "What is  the capital of france"),
    ("What is the capital of France?", "Please, what is the capital of France?"),
    ("Write a story about a dog", "Write a story about the dog"),
    ("Explain photosynthesis to a child.", "Explain photosynthsis to a child"),
    ("Sort the list. Then print the result.", "Then print the result. Sort the list."),
    ("法国的首都是什么？", "法国的首都是什么"),
    ("Où est la bibliothèque ?", "OÙ EST LA BIBLIOTHE\u0300QUE"),
    ("नमस्ते, आप कैसे हैं?", "नमस्ते आप कैसे हैं"),
    ("naïve café 🙂", "Naïve  café 🙂"),
    ("It holds 1,000 rows", "It holds 1000 rows."),
]
DIFFERENT = [
    ("12 + 7", "12 + 8"),
    ("12 + 7", "12 - 7"),
    ("12 - 7", "7 - 12"),
    ("Paris", "Rome"),
    ("What is the capital of France?", "What is the capital of Spain?"),
    ("what is the capital of france", "what is the capital of spain"),
    ("Is Paris bigger than Rome?", "Is Rome bigger than Paris?"),
    ("Paris has two rivers.", "Rome has two rivers."),
    ("Walk 5 km to the lake", "Walk 5 miles to the lake"),
    ("It costs $5", "It costs €5"),
    ("Is it -5 degrees?", "Is it 5 degrees?"),
    ("List all primes below 100", "List no primes below 100"),
    ("Ist das richtig?", "Ist das nicht richtig?"),
    ("Find the maximum of the list", "Find the minimum of the list"),
    ("Name the first president", "Name the second president"),
    ("Describe hypertension treatment options", "Describe hypotension treatment options"),
    ("Fix `get_user` in the code", "Fix `get_users` in the code"),
    ("Summarise https://example.org/a", "Summarise https://example.org/b"),
    ("What happened on 2024-05-06?", "What happened on 2024-05-07?"),
    ("法国的首都是什么？", "西班牙的首都是什么？"),
    ("東京の人口は？", "大阪の人口は？"),
    ("กรุงเทพอยู่ที่ไหน", "เชียงใหม่อยู่ที่ไหน"),
    ("Alice: yes. Bob: no.", "Bob: yes. Alice: no."),
    ("Sort these:\n3\n1\n2", "Sort these:\n1\n3\n2"),
    ("Is it (a) red or (b) hot?", "Is it (b) red or (a) hot?"),
    ("列出9种主要材料", "列出7种主要材料"),
    ("What is this?", "What are you?"),
    ("I love it 😀", "I love it 😡"),
    ("Write a story about a dog", "Write a story about a cat"),
]
LONG = (
    "The library keeps the old maps in a dry room on the upper floor. A visitor who wants to see them asks the guard"
    " for a key and signs a list. On quiet days about 40 visitors come, most of them from Lisbon, and the guard enjoys"
    " talking to them about the long history of the house and the people who once lived there."
)


def index_of(texts: Sequence[str], *, template: Sequence[str] = ()) -> NearIndex:
    return NearIndex(text_of=texts.__getitem__, template=template)


def kept(texts: Sequence[str], *, template: Sequence[str] = ()) -> list[int]:
    index = index_of(texts, template=template)
    return [n for n, found in enumerate(index.add_many(texts, range(len(texts)))) if found is None]


def counted(items: Sequence[Labelled]) -> tuple[float, float, float]:
    """F1 of what is removed, and the shares of hard negatives lost: of a template, with another number or name."""
    texts = [item.text for item in items]
    left = set(kept(texts))
    planted = {n for n, item in enumerate(items) if item.plant in PLANTED}
    gone = set(range(len(items))) - left
    one = {n for n, item in enumerate(items) if item.plant in ("number", "name")}
    template = {n for n, item in enumerate(items) if item.plant == "template"}
    f1 = 2 * len(planted & gone) / (len(planted) + len(gone))
    return f1, len(template & gone) / len(template), len(one & gone) / len(one)


@pytest.mark.parametrize(("first", "second"), SAME)
def test_case_spacing_order_politeness_and_slips_leave_a_text_the_same(first: str, second: str) -> None:
    assert kept([first, second]) == [0]
    assert kept([second, first]) == [0]


@pytest.mark.parametrize(("first", "second"), DIFFERENT)
def test_another_number_name_sign_or_word_makes_another_text(first: str, second: str) -> None:
    assert kept([first, second]) == [0, 1]
    assert kept([second, first]) == [0, 1]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("quiet", "busy"),
        ("enjoys", "likes"),
        ("about the long", "about the"),
        ("asks", "always asks"),
        ("dry", "small"),
    ],
)
def test_another_wording_here_and_there_leaves_a_long_text_the_same(old: str, new: str) -> None:
    assert kept([LONG, LONG.replace(old, new)]) == [0]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("40", "400"),
        ("Lisbon", "Madrid"),
        ("upper floor", "cellar below ground"),
        ("keeps", "never keeps"),
        ("A visitor", "No visitor"),
        ("upper", "lower"),
    ],
)
def test_one_other_number_name_or_negation_makes_a_long_text_another(old: str, new: str) -> None:
    assert kept([LONG, LONG.replace(old, new)]) == [0, 1]


def test_two_names_that_change_places_make_a_long_text_another() -> None:
    way = f"{LONG} They travelled from New York City to Los Angeles California by train."
    back = f"{LONG} They travelled from Los Angeles California to New York City by train."
    assert kept([way, back]) == [0, 1]


def test_sentences_in_another_order_leave_a_long_text_the_same() -> None:
    first, second, third = LONG.split(". ")
    assert kept([LONG, f"{third} {first}. {second}."]) == [0]
    assert kept([LONG, f"{third} {first.replace('dry', 'cool')}. {second}."]) == [0]


def test_a_finding_says_which_text_is_repeated_how_much_and_what_differs() -> None:
    texts = [LONG, LONG.replace("quiet", "busy")]
    index = index_of(texts)
    assert index.add(texts[0], 0) is None
    found = index.add(texts[1], 1)
    assert found == Finding(
        check="near",
        kept=False,
        reason="nearly repeats an earlier text",
        metric="word-multiset Jaccard",
        score=found.score if found else None,
        threshold=0.64,
        other="0",
        detail="'busy' instead of 'quiet'",
    )
    assert found.score is not None
    assert 0.9 < found.score < 1


def test_an_exact_repeat_is_told_apart_from_a_near_one() -> None:
    found = index_of(["A  cat."]).add_many(["A  cat.", "a CAT."], [0, 1])[1]
    assert found is not None
    assert (found.metric, found.score, found.other) == ("exact", 1.0, "0")


TEMPLATE = ("Translate the word that follows into French, and answer with the word alone: ", "\n\nThank you very much.")
WORDS = "apple river candle winter harbour pencil mountain button violin pepper ladder copper meadow saddle".split()


def test_a_templated_set_that_differs_only_in_content_loses_nothing() -> None:
    texts = [word.join(TEMPLATE) for word in WORDS] + [f"{n} horses".join(TEMPLATE) for n in range(200)]
    assert kept(texts, template=TEMPLATE) == list(range(len(texts)))


def test_the_same_set_with_planted_copies_loses_exactly_the_copies() -> None:
    own = [*WORDS, *(f"{n} horses by the water" for n in range(300))]
    texts = [content.join(TEMPLATE) for content in own]
    copies = [f"  {content.upper()}!".join(TEMPLATE) for content in own[::3]]
    copies += [f"please {content}".join(TEMPLATE) for content in own[1::3]]
    assert kept(texts + copies, template=TEMPLATE) == list(range(len(texts)))


def test_a_template_nobody_named_loses_nothing_either() -> None:
    """Half a thousand prompts of one form: the buckets of what they share are long full, and copies are found yet."""
    texts = [f"A train leaves at {n} o'clock and drives {n * 7 % 301} km. When does it arrive in {w.title()}?"
             for n in range(40) for w in WORDS]  # fmt: skip
    copies = [text.replace("A train", "a  TRAIN").replace("drives", "then drives") for text in texts[::5]]
    assert kept(texts + copies) == list(range(len(texts)))


@pytest.mark.parametrize(
    ("text", "own"),
    [("Say: cat please", "cat"), ("nothing of it", "nothing of it"), ("Say:  please", "Say:  please")],
)
def test_what_is_left_of_a_text_without_its_template(text: str, own: str) -> None:
    assert without_template(text, ["Say: ", " please"]).strip() == own


def test_chains_do_not_grow() -> None:
    """Each is a duplicate of the one before it; only those near a kept one go."""
    words = LONG.split()
    texts = []
    for step in range(12):
        changed = list(words)
        changed[1 : 2 + step * 5 : 3] = ["thing"] * len(changed[1 : 2 + step * 5 : 3])
        texts.append(" ".join(changed))
    index = index_of(texts)
    for n, found in enumerate(index.add_many(texts, range(len(texts)))):
        assert found is None or index.repeats(texts[n], texts[int(found.other or 0)])


def test_what_is_planted_goes_and_hard_negatives_stay() -> None:
    f1, template, one = counted(prose(101, 1500))
    assert f1 >= 0.985
    assert template <= 0.01
    assert one <= 0.02


def test_short_prompts_of_unnamed_templates_keep_their_contents() -> None:
    f1, template, one = counted(instructions(102, 1500))
    assert f1 >= 0.98
    assert template <= 0.01
    assert one <= 0.02


@pytest.mark.parametrize("text", ["", " \n", "?", "\ud800", "a\ud800b c", "🙂🙂", "\x00", "e\u0301", "・・・"])
def test_odd_texts_are_kept_once(text: str) -> None:
    assert kept([text, LONG, text, text + " "]) == [0, 1]


def test_one_text_many_times_is_kept_once_and_found_quickly() -> None:
    assert kept([LONG] * 5_000) == [0]


def test_ten_megabytes_are_compared_in_bounded_time() -> None:
    draw = random.Random(1)
    words = [draw.choice(WORDS) + str(draw.randrange(99)) for _ in range(300_000)]
    text = " ".join(words)
    other = [*words[:250_000], *(draw.choice(WORDS) + str(draw.randrange(99)) for _ in range(50_000))]
    assert kept([text, text.upper(), text + " and so on", " ".join(words[::-1]), " ".join(other)]) == [0, 3, 4]
    assert len(kept(["a" * 10_000_000, "a " * 2_000_000, "好" * 1_000_000])) == 3


def test_a_threshold_outside_its_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"threshold is 1\.5; it must be above 0 and at most 1"):
        NearIndex(text_of=str, threshold=1.5)
    with pytest.raises(ValueError, match="max_bucket is 0"):
        NearIndex(text_of=str, max_bucket=0)


def test_a_digest_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="a digest of 3 bytes"):
        NearIndex(text_of=str).add_digested(b"abc", 0)


PHRASES = st.sampled_from(
    "the cat sat|on a mat|Paris|Rome|12|13|not|please|and then|it ran home.|A dog barked.|法国|+|-|🙂|x_1|first|last".split(
        "|"
    )
)
TEXTS = st.lists(st.lists(PHRASES, max_size=9).map(" ".join), max_size=25)


@settings(max_examples=60, deadline=None)
@given(TEXTS, st.integers(1, 7))
def test_portions_decide_as_one_by_one(texts: list[str], portion: int) -> None:
    one, many = index_of(texts), index_of(texts)
    numbers = list(range(len(texts)))
    singly = [one.add(text, n) for n, text in enumerate(texts)]
    together = [
        found
        for begin in range(0, len(texts), portion)
        for found in many.add_many(texts[begin : begin + portion], numbers[begin : begin + portion])
    ]
    assert singly == together


@settings(max_examples=60, deadline=None)
@given(TEXTS, st.integers(0, 25))
def test_an_index_built_again_from_digests_decides_the_same_from_there_on(texts: list[str], cut: int) -> None:
    whole, again = index_of(texts), index_of(texts)
    before = whole.add_many(texts[:cut], range(len(texts[:cut])))
    for n, found in enumerate(before):
        if found is None:
            again.add_digested(digests([texts[n]])[0], n)
    rest = range(len(texts[:cut]), len(texts))
    assert whole.add_many(texts[cut:], rest) == again.add_many(texts[cut:], rest)


@settings(max_examples=60, deadline=None)
@given(TEXTS)
def test_nothing_kept_repeats_an_earlier_kept_candidate(texts: list[str]) -> None:
    index = index_of(texts)
    for n, text in enumerate(texts):
        earlier = index.candidates(text)
        if index.add(text, n) is None:
            assert not any(index.repeats(text, texts[other]) for other in earlier)


@settings(max_examples=60, deadline=None)
@given(TEXTS, st.randoms(use_true_random=False))
def test_the_order_of_equal_items_does_not_change_what_is_kept(texts: list[str], draw: random.Random) -> None:
    """Copies of one text may come in any order among themselves."""
    named = [(text, name) for name, text in enumerate(texts * 2)]
    by_text: dict[str, list[tuple[str, int]]] = {}
    for text, name in draw.sample(named, len(named)):
        by_text.setdefault(text, []).append((text, name))
    shuffled = [by_text[text].pop()[0] for text, _ in named]
    assert [shuffled[n] for n in kept(shuffled)] == [texts[n] for n in kept(texts)]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(max_size=60), max_size=12))
def test_any_text_is_taken(texts: list[str]) -> None:
    assert len(kept(texts)) <= len(texts)
