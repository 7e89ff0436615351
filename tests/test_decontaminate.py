from __future__ import annotations

import gzip
import json
import random
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from eval_corpus import corpus, edits, noise, sentences
from hypothesis import example, given
from hypothesis import strategies as st

from corpusgen.curation.decontaminate import EvalSet, Settings
from corpusgen.curation.evals import EvalFile
from corpusgen.curation.grams import grams_of, marks_of, passage, words
from corpusgen.errors import EvalFileError

QUESTION = (
    "A farmer has seventeen sheep in the upper meadow and all but nine of them run away through the broken gate "
    "before the evening bell; how many sheep are left in the meadow?"
)
OTHER = (
    "Explain in your own words why the tide in a narrow bay can be several metres higher than on the open coast, "
    "and name one place where this is used to make electricity."
)


def lines(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def evals(path: Path, columns: Sequence[str] = (), template: Sequence[str] = (), **settings: Any) -> EvalSet:
    return EvalSet.read([EvalFile(path=path, columns=tuple(columns))], template=template, **settings)


def of_texts(folder: Path, *texts: str, template: Sequence[str] = (), **settings: Any) -> EvalSet:
    return evals(lines(folder / "eval.jsonl", *({"question": text} for text in texts)), template=template, **settings)


def complaint(path: Path, columns: Sequence[str] = ()) -> str:
    with pytest.raises(EvalFileError) as raised:
        evals(path, columns)
    return str(raised.value)


def test_a_copy_is_dropped_and_the_passage_is_shown_as_the_text_has_it(tmp_path: Path) -> None:
    text = f"Please help me: {QUESTION.upper().replace(' ', '  ')} Thanks."
    found = of_texts(tmp_path, OTHER, QUESTION).check(text)
    assert found is not None
    assert (found.check, found.kept, found.score, found.other) == ("decontaminate", False, 1, "eval.jsonl:2")
    assert found.reason == "repeats an item of an eval file"
    assert found.detail is not None
    assert found.detail.startswith("A FARMER HAS SEVENTEEN SHEEP")
    assert found.detail.endswith("LEFT IN THE MEADOW")


def test_a_text_that_has_a_quarter_of_an_item_is_reported_and_kept(tmp_path: Path) -> None:
    found = of_texts(tmp_path, QUESTION).check(
        "A farmer has seventeen sheep in the upper meadow and all but nine dogs."
    )
    assert found is not None
    assert found.kept
    assert (found.score, found.threshold, found.metric) == (0.2308, 0.2, "share of the item's 8-grams")
    assert found.detail == "A farmer has seventeen sheep in the upper meadow and all but nine"


def test_a_text_with_nothing_of_it_is_not_remarked_upon(tmp_path: Path) -> None:
    assert of_texts(tmp_path, QUESTION).check(OTHER) is None


def test_a_long_passage_is_shown_in_part(tmp_path: Path) -> None:
    text = " ".join(sentences()[100:140])
    found = of_texts(tmp_path, text).check(text)
    assert found is not None
    assert found.detail is not None
    assert len(found.detail) <= 300
    assert found.detail.endswith("…")


NOISES: dict[str, Callable[[str], str]] = {
    "case": str.swapcase,
    "space": lambda text: text.replace(" ", " \n\t"),
    "punctuation": lambda text: text.replace(" ", ", ").replace("?", "!!"),
    "other quotes and hidden signs": lambda text: text.replace("e", "e\u200b").replace("a", "a\u00ad"),
    "full width": lambda text: "".join(chr(ord(c) + 0xFEE0) if c.isascii() and c.isalnum() else c for c in text),
    "decomposed": lambda text: unicodedata.normalize("NFD", text),
}


@pytest.mark.parametrize("change", NOISES.values(), ids=list(NOISES))
def test_case_spaces_punctuation_and_unicode_form_hide_nothing(change: Callable[[str], str], tmp_path: Path) -> None:
    question = QUESTION.replace("farmer", "fermière d’Orléans")
    found = of_texts(tmp_path, question).check(change(question))
    assert found is not None
    assert not found.kept
    assert found.score == 1


@pytest.mark.parametrize("seed", [11, 12])
def test_noisy_and_edited_copies_are_dropped_and_clean_texts_are_not(seed: int, tmp_path: Path) -> None:
    made = corpus(seed, items=200, clean=500)
    against = evals(made.write(tmp_path))

    def dropped(texts: list[str]) -> float:
        found = [against.check(text) for text in texts]
        return sum(one is not None and not one.kept for one in found) / len(texts)

    assert dropped(made.noisy) == 1
    assert dropped(made.edited) >= 0.95
    assert dropped(made.clean) <= 0.015


INSTRUCTION = (
    "You are given a short problem. Read it with care, think about it step by step, and write nothing but the final "
    "answer on a line of its own."
)


def test_an_instruction_that_all_items_share_is_no_leak(tmp_path: Path) -> None:
    items = [f"{INSTRUCTION} {text}" for text in sentences()[200:230]]
    against = of_texts(tmp_path, *items)
    assert against.check(f"{INSTRUCTION} {QUESTION}") is None
    assert against.check(INSTRUCTION) is None


def test_behind_a_shared_instruction_leaks_are_still_found_with_it_and_without(tmp_path: Path) -> None:
    items = sentences()[200:230]
    against = of_texts(tmp_path, *(f"{INSTRUCTION} {text}" for text in items))
    for number, text in enumerate(items, 1):
        for told in (f"{INSTRUCTION} {text}", text, f"Well then. {text}"):
            found = against.check(told)
            assert found is not None, told
            assert found.other == f"eval.jsonl:{number}"
            assert not found.kept


def test_sums_behind_an_instruction_differ_by_their_numbers_and_operators(tmp_path: Path) -> None:
    against = of_texts(tmp_path, *(f"{INSTRUCTION} What is {n} + {3 * n}?" for n in range(10, 60)))
    leak = against.check(f"{INSTRUCTION} What is 12 + 36?")
    assert leak is not None
    assert leak.other == "eval.jsonl:3"
    assert against.check(f"{INSTRUCTION} What is 12 + 37?") is None
    assert against.check(f"{INSTRUCTION} What is 12 - 36?") is None


def test_an_instruction_that_two_items_share_is_no_leak_where_there_are_but_two(tmp_path: Path) -> None:
    against = of_texts(tmp_path, f"{INSTRUCTION} {QUESTION}", f"{INSTRUCTION} {OTHER}")
    assert against.check(INSTRUCTION) is None
    assert against.check(QUESTION) is not None


def test_what_the_tasks_own_template_says_is_no_leak(tmp_path: Path) -> None:
    items = [f"{INSTRUCTION} {text}" for text in (QUESTION, OTHER, *sentences()[:3])]
    prompt = f"{INSTRUCTION} Which river is it?"
    assert of_texts(tmp_path, items[0]).check(prompt) is not None
    assert of_texts(tmp_path, items[0], template=[INSTRUCTION]).check(prompt) is None
    assert of_texts(tmp_path, items[0], template=[INSTRUCTION]).check(QUESTION) is not None


def test_an_item_that_stands_in_the_file_many_times_is_one_item(tmp_path: Path) -> None:
    against = of_texts(tmp_path, *[QUESTION] * 20, OTHER)
    assert against.summary.items == 2
    assert against.check(QUESTION) is not None


def test_what_every_row_says_is_no_item(tmp_path: Path) -> None:
    rows = [{"system": INSTRUCTION, "licence": "free for all of us", "question": text} for text in sentences()[:3]]
    against = evals(lines(tmp_path / "e.jsonl", *rows))
    assert against.check(INSTRUCTION) is None
    assert against.check("It is free for all of us.") is None
    assert against.check(sentences()[1]) is not None


def test_addresses_and_ids_are_no_items(tmp_path: Path) -> None:
    rows = [
        {"url": f"https://example.org/a/page/of/questions/{n}", "id": f"a-b-c-d-{n}", "q": QUESTION} for n in (1, 2)
    ]
    against = evals(lines(tmp_path / "e.jsonl", *rows, {"q": OTHER}))
    assert against.check("See https://example.org/a/page/of/questions/2 or a-b-c-d-1") is None
    assert against.check(QUESTION) is not None


SHORT = {
    "five words anywhere": ("Who painted the Mona Lisa?", f"{OTHER} Also: who painted the mona lisa", True),
    "five words in another order": ("Who painted the Mona Lisa?", f"{OTHER} the Mona Lisa, who painted", False),
    "four words as the text": ("Name a red fruit", "Name a red fruit!", True),
    "four words as half of the text": ("Name a red fruit", "Now please: name a red fruit", True),
    "four words in passing": ("Name a red fruit", f"{OTHER} Name a red fruit.", False),
    "two words": ("Hello there", "Hello there", False),
    "a number": ("42", "42", False),
    "a sum": ("12 + 7", "What is 12 + 7?", True),
    "another sum": ("12 + 7", "What is 12 - 7?", False),
    "no words": ("🙂🙂", "🙂🙂", False),
    "nine words of which one differs": (
        "the largest city and chief port of the Senegal", "the largest city and chief port of the Gambia", False,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("item", "text", "leaks"), SHORT.values(), ids=list(SHORT))
def test_short_items_are_matched_as_a_whole(item: str, text: str, leaks: bool, tmp_path: Path) -> None:
    found = of_texts(tmp_path, item).check(text)
    assert (found is not None and not found.kept) is leaks


def test_items_that_are_no_evidence_are_counted(tmp_path: Path) -> None:
    summary = of_texts(tmp_path, "oh yes", "oh no", "42", QUESTION).summary
    assert (summary.files, summary.items, summary.without_evidence) == (("eval.jsonl",), 4, 3)


SCRIPTS = {
    "Chinese": (
        "小明有十七只羊,除了九只以外都跑掉了,请问草地上还剩下多少只羊?",
        "今天的天气很好,我们一起去公园散步吧,顺便买一些水果。",
    ),
    "Japanese": (
        "次の文章を読んで、主人公が最後に選んだ道を説明してください。",
        "明日の会議の時間を教えてください。場所も知りたいです。",
    ),
    "Thai": ("ชาวนามีแกะสิบเจ็ดตัวและทั้งหมดยกเว้นเก้าตัววิ่งหนีไป", "วันนี้อากาศดีมากเราไปเดินเล่นที่สวนสาธารณะกันเถอะ"),
    "Hindi": (
        "एक किसान के पास सत्रह भेड़ें हैं और नौ को छोड़कर सब भाग जाती हैं तो कितनी बचीं",
        "आज मौसम बहुत अच्छा है चलो हम सब मिलकर बगीचे में घूमने चलते हैं और फल खरीदते हैं",
    ),
    "Arabic": (
        "مزارع عنده سبعة عشر خروفا هربت كلها إلا تسعة فكم خروفا بقي في الحقل",
        "الطقس جميل اليوم هيا بنا نتمشى في الحديقة ونشتري بعض الفواكه الطازجة من السوق",
    ),
    "Korean": (
        "농부에게 양이 열일곱 마리 있는데 아홉 마리만 빼고 모두 도망갔다면 몇 마리가 남았나요",
        "오늘은 날씨가 아주 좋으니 우리 함께 공원에 가서 산책하고 과일도 좀 사 옵시다",
    ),
}


@pytest.mark.parametrize(("item", "other"), SCRIPTS.values(), ids=list(SCRIPTS))
def test_every_script_is_compared(item: str, other: str, tmp_path: Path) -> None:
    against = of_texts(tmp_path, item)
    found = against.check(f"{other} {item} {other}")
    assert found is not None
    assert (found.kept, found.score) == (False, 1)
    assert found.detail is not None
    assert words(found.detail) == words(item)
    assert against.check(other) is None


def test_conversations_are_items_turn_by_turn(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": [{"type": "text", "text": OTHER}]}]
    against = evals(lines(tmp_path / "chat.jsonl", {"id": "a", "messages": turns}), ["messages"])
    for text in (QUESTION, OTHER):
        found = against.check(text)
        assert found is not None
        assert (found.score, found.other) == (1, "chat.jsonl:1")


def test_questions_and_answers_of_several_columns_are_items_of_their_own(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "qa.jsonl", {"id": 7, "question": QUESTION, "answer": OTHER, "choices": {"text": ["a", "b"]}}
    )
    found = evals(path).check(OTHER)
    assert found is not None
    assert (found.score, found.other) == (1, "qa.jsonl:1 answer")


def test_every_kind_of_file_says_the_same(tmp_path: Path) -> None:
    rows = [{"question": QUESTION}, {"question": OTHER}]
    lines(tmp_path / "a.jsonl", *rows)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress((tmp_path / "a.jsonl").read_bytes()))
    (tmp_path / "c.json").write_text(json.dumps(rows))
    (tmp_path / "d.csv").write_text(f'question,id\n"{QUESTION}",1\n"{OTHER}",2\n')
    (tmp_path / "e.tsv").write_text(f"question\tid\n{QUESTION}\t1\n{OTHER}\t2\n")
    (tmp_path / "f.txt").write_text(f"{QUESTION}\n\n{OTHER}\n")
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "g.parquet")
    names = {"a.jsonl": 2, "b.jsonl.gz": 2, "c.json": 2, "d.csv": 3, "e.tsv": 3, "f.txt": 3, "g.parquet": 2}
    for name, place in names.items():
        found = evals(tmp_path / name).check(OTHER)
        assert found is not None
        assert found.other is not None
        assert (found.score, found.other.split()[0]) == (1, f"{name}:{place}")


def test_a_text_file_has_an_item_a_line_or_one_between_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "f.txt"
    path.write_text("One item\nof two lines.\n\n\nAnother item\nhere.\n")
    assert EvalSet.read([EvalFile(path=path)]).summary.items == 4
    assert EvalSet.read([EvalFile(path=path, separated="blank")]).summary.items == 2


def test_a_folder_and_a_pattern_stand_for_their_files(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / ".cache").mkdir()
    (tmp_path / "LICENSE.txt").write_text("Not an item.")
    lines(tmp_path / ".cache" / "x.jsonl", {"q": "hidden"})
    lines(tmp_path / "data" / "test.jsonl", {"q": QUESTION})
    lines(tmp_path / "data" / "train.jsonl", {"q": OTHER})
    assert evals(tmp_path).summary.files == ("test.jsonl", "train.jsonl")
    assert evals(tmp_path / "data" / "te*.jsonl").summary.files == ("test.jsonl",)


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        lines(tmp_path / name / "test.jsonl", {"q": f"{name}{name} {QUESTION}"})
    assert evals(tmp_path).summary.files == (str(tmp_path / "a/test.jsonl"), str(tmp_path / "b/test.jsonl"))


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = lines(tmp_path / "e.jsonl", {"question": QUESTION}, {"frage": OTHER})
    assert complaint(path, ["question"]) == f"{path}:2: question: no such column here; there is: frage"
    path.write_text('{"question": "x"}\n{"question": \n')
    assert complaint(path).startswith(f"{path}:2: is not JSON: ")
    path.write_text("[1, 2]\n")
    assert "1: is neither a text nor a JSON object" in complaint(path)
    path.write_bytes(b'{"q": "a"}\n{"q": "\xff"}\n')
    assert complaint(path) == f"{path}:2: is not UTF-8 text; save it as UTF-8"
    assert "there is no such file or folder" in complaint(tmp_path / "none.jsonl")
    assert "no file matches this pattern" in complaint(tmp_path / "*.csv")
    assert "unknown kind of eval file '.xlsx'" in complaint(lines(tmp_path / "e.xlsx"))
    (tmp_path / "e.gz.jsonl.gz").write_bytes(b"no")
    assert "is not a sound gzip file" in complaint(tmp_path / "e.gz.jsonl.gz")
    (tmp_path / "e.csv").write_text("q,r\n1,2,3\n")
    assert "e.csv:2: has more cells than the header" in complaint(tmp_path / "e.csv")
    (tmp_path / "e.parquet").write_bytes(b"PAR1")
    assert "is not a sound Parquet file" in complaint(tmp_path / "e.parquet")
    (tmp_path / "empty").mkdir()
    assert "the folder holds no .parquet" in complaint(tmp_path / "empty")


def test_a_missing_column_of_a_table_is_named_with_those_there_are(tmp_path: Path) -> None:
    pq.write_table(pa.table({"prompt": ["a"], "answer": ["b"]}), tmp_path / "e.parquet")
    told = complaint(tmp_path / "e.parquet", ["question"])
    assert told == f"{tmp_path / 'e.parquet'}: question: no such column here; there is: prompt, answer"
    (tmp_path / "e.txt").write_text("a\n")
    assert "a text file has no columns; it was asked for question" in complaint(tmp_path / "e.txt", ["question"])


@pytest.mark.parametrize("text", ["", "\n\n", '{"question": ""}\n', '{"question": null, "id": 3}\n'])
def test_an_eval_file_without_text_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "e.jsonl").write_text(text)
    assert "there is no text in it" in complaint(tmp_path / "e.jsonl")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"report": 0.4}, r"report \(0.4\) may not be above drop \(0.3\)"),
        ({"drop": 1.2}, "drop is a share from 0 to 1, found 1.2"),
        ({"report": -0.1}, "report is a share from 0 to 1, found -0.1"),
        ({"report": float("nan")}, "report is a share from 0 to 1, found nan"),
        ({"ngram": 2}, "ngram is 3 to 50 words, found 2"),
    ],
)
def test_settings_outside_their_range_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Settings(**settings)


def test_thresholds_are_as_they_are_set(tmp_path: Path) -> None:
    part = " ".join(QUESTION.split()[:20])
    strict, loose = (of_texts(tmp_path, QUESTION, report=at, drop=at).check(part) for at in (0.4, 0.6))
    assert strict is not None
    assert not strict.kept
    assert loose is None


def test_a_threshold_of_nothing_drops_for_any_eight_words(tmp_path: Path) -> None:
    text = "Once more: all but nine of them run away through nothing."
    assert of_texts(tmp_path, QUESTION).check(text) is None
    found = of_texts(tmp_path, QUESTION, report=0, drop=0).check(text)
    assert found is not None
    assert not found.kept


def test_thirteen_words_may_be_compared_instead(tmp_path: Path) -> None:
    found = of_texts(tmp_path, QUESTION, ngram=13).check(QUESTION)
    assert found is not None
    assert (found.score, found.metric) == (1, "share of the item's 13-grams")


def test_of_a_pool_that_is_the_eval_file_everything_is_dropped_under_its_name(tmp_path: Path) -> None:
    items = sentences()[:40]
    against = of_texts(tmp_path, *items)
    found = [one for one in map(against.check, items) if one is not None and not one.kept]
    assert len(found) == 40
    assert {(one.other or "").rpartition(":")[0] for one in found} == {"eval.jsonl"}


@pytest.mark.parametrize("text", ["", " ", "\ud800" * 9, "🙂" * 20, "\x00" * 9, "word " * 3_000, "中" * 3_000])
def test_odd_texts_are_checked_like_others(text: str, tmp_path: Path) -> None:
    assert of_texts(tmp_path, QUESTION).check(text) is None


def test_an_eval_item_of_one_repeated_word_is_found_in_itself(tmp_path: Path) -> None:
    found = of_texts(tmp_path, "word " * 30).check("Word, " * 30)
    assert found is not None
    assert found.score == 1


@given(st.text(min_size=1, max_size=200), st.integers(0, 50), st.integers(1, 20))
@example("0/0", 0, 2)
def test_a_passage_is_what_its_words_are(text: str, first: int, count: int) -> None:
    known = words(text)
    found = words(passage(text, first, count, of=len(known), longest=10_000))
    asked = {word for word in known[first : first + count] if word.isalnum()}  # an operator is one only between numbers
    assert asked <= set(found)


@given(st.text(max_size=100))
def test_words_are_the_same_in_every_case_and_form(text: str) -> None:
    assert words(unicodedata.normalize("NFD", text)) == words(unicodedata.normalize("NFC", text))
    assert words(f"  {text}\n") == words(text)


@given(st.lists(st.sampled_from("abcdefgh"), max_size=30), st.integers(3, 9))
def test_equal_grams_are_equal_words(letters: list[str], length: int) -> None:
    grams = grams_of(marks_of(" ".join(letters)), length).tolist()
    runs = [tuple(letters[at : at + length]) for at in range(len(letters) - length + 1)]
    assert len(grams) == len(runs)
    assert len(set(grams)) == len(set(runs))


@given(st.integers(0, 2**32))
def test_every_noisy_copy_of_a_long_item_is_dropped(seed: int) -> None:
    chance = random.Random(seed)
    assert words(noise("plain words here and there", chance)) == ["plain", "words", "here", "and", "there"]
    assert edits("a b c", chance, 0) == "a b c"
