"""What curate: does, seen from the command line and from the teacher's side."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

import pytest
from command import corpusgen
from task_samples import write_label_task, write_text_task

from corpusgen.mock.server import Options, mock_teacher

ORDINARY = [
    "Describe how a canal lock lifts a barge from one level to the next.",
    "Explain why bread dough rises when it is left in a warm place overnight.",
    "Write a short letter that thanks a neighbour for watering the tomatoes.",
    "What does a lighthouse keeper do on a foggy night in late autumn?",
    "Compare the taste of green tea with the taste of black tea.",
    "How far is it from the village of Anstead to the mill by the river?",
]


def written(folder: Path, texts: list[str], curate: str, **files: str) -> Path:
    """A free-text task whose pool is these texts."""
    spec = write_text_task(folder, pool=2, more=f"curate:\n{curate}")
    rows = [{"id": f"row-{n}", "text": text} for n, text in enumerate(texts)]
    (folder / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    for name, text in files.items():
        (folder / name.replace("_", ".")).write_text(text, "utf-8")
    (folder / "answers.yaml").write_text("answers: []\ndefault: {text: An answer of no importance.}\n", "utf-8")
    spec.write_text(spec.read_text("utf-8").replace("limit: 12,", "limit: 1000,"), "utf-8")
    return spec


def drops(corpus: Path, table: str = "drops") -> list[dict[str, Any]]:
    found = corpusgen("query", f"select * from {table} order by all", "--corpus", corpus, "--json")
    return [dict(row) for row in found.object["rows"]]


def test_copies_are_dropped_before_anything_is_spent_and_templates_are_not(tmp_path: Path) -> None:
    templated = [f"What is {n} + {n + 3}? Show how you got there, step by step, as for a child." for n in range(40)]
    copies = [templated[3].upper(), f"Please {ORDINARY[0]}"]
    spec = written(tmp_path, [*ORDINARY, *templated, *copies], "  near: {}\n")
    here = ("--corpus", tmp_path / "corpus", "--json")
    assert corpusgen("plan", spec, *here).object["to_send"] == 46
    assert corpusgen("run", spec, *here, "-q").object["requests"] == 46
    found = {row["item_id"]: row for row in drops(tmp_path / "corpus")}
    assert found.keys() == {"train:row-46", "train:row-47"}
    assert found["train:row-47"]["repeat_of"] == "train:row-0"
    assert corpusgen("run", spec, *here, "-q").object["requests"] == 0


def test_more_rows_are_held_against_what_was_kept_before(tmp_path: Path) -> None:
    spec = written(tmp_path, ORDINARY, "  near: {}\n")
    here = ("--corpus", tmp_path / "corpus", "--json")
    assert corpusgen("run", spec, *here, "-q").object["requests"] == 6
    written(
        tmp_path,
        [*ORDINARY, f"Please {ORDINARY[2]}", "Name three rivers of Wales."],
        "  near: {}\n",
    )
    assert corpusgen("run", spec, *here, "-q").object["requests"] == 1
    assert [(row["item_id"], row["repeat_of"]) for row in drops(tmp_path / "corpus")] == [
        ("train:row-6", "train:row-2")
    ]


def test_what_an_eval_file_asks_is_not_asked_and_the_passage_is_shown(tmp_path: Path) -> None:
    leak = "Here is one: what does a lighthouse keeper do on a foggy night in late autumn, please?"
    curate = "  decontaminate: {files: [{path: exam.txt}]}\n"
    spec = written(tmp_path, [*ORDINARY[:3], leak], curate, exam_txt=ORDINARY[3] + "\n")
    here = ("--corpus", tmp_path / "corpus", "--json")
    assert corpusgen("run", spec, *here, "-q").object["requests"] == 3
    (row,) = drops(tmp_path / "corpus")
    assert (row["stage"], row["item_id"]) == ("decontaminate", "train:row-3")
    assert row["repeat_of"] == "exam.txt:1"
    assert "foggy night in late autumn" in row["detail"]
    assert row["score"] >= row["threshold"] == 0.3


def test_what_an_eval_file_asks_no_longer_is_asked_about_and_no_drop(tmp_path: Path) -> None:
    curate = "  decontaminate: {files: [{path: exam.txt}]}\n"
    here = ("--corpus", tmp_path / "corpus", "--json")
    for exam, told in ((1, ["train:row-1"]), (2, ["train:row-2"]), (1, ["train:row-1"])):
        spec = written(tmp_path, ORDINARY[:3], curate, exam_txt=ORDINARY[exam])
        assert corpusgen("run", spec, *here, "-q").code == 0
        assert [row["item_id"] for row in drops(tmp_path / "corpus")] == told
    assert corpusgen("query", "select count(*) as n from runs", *here).object["rows"] == [{"n": 1}]


def test_personal_data_is_masked_or_blocked_as_the_spec_says(tmp_path: Path) -> None:
    texts = [
        *ORDINARY[:2],
        "Write to ann.lee@post.example.org about the boat.",
        "Her card is 4111 1111 1111 1111, use it.",
    ]
    spec = written(tmp_path, texts, "  pii: {default: allow, kinds: {email: mask, credit_card: block}}\n")
    here = ("--corpus", tmp_path / "corpus", "--json")
    assert corpusgen("run", spec, *here, "-q").object["requests"] == 3
    asked = corpusgen("query", "select input from records order by 1", *here).object["rows"]
    assert "Write to [EMAIL_1] about the boat." in [row["input"] for row in asked]
    assert [row["item_id"] for row in drops(tmp_path / "corpus")] == ["train:row-3"]


def test_records_name_the_personal_data_in_them_and_answers_can_be_masked(tmp_path: Path) -> None:
    for stored, said in (("tag", "Ask bo@post.example.org."), ("mask", "Ask [EMAIL_1].")):
        spec = written(tmp_path / stored, ORDINARY[:2], f"  pii: {{default: allow, stored: {stored}}}\n")
        answers_of(tmp_path / stored, ["Ask bo@post.example.org.", "Nobody knows."])
        here = ("--corpus", tmp_path / stored / "corpus", "--json")
        corpusgen("run", spec, *here, "-q")
        rows = corpusgen("query", "select response, pii_kinds from records order by 1", *here).object["rows"]
        assert [tuple(row.values()) for row in rows] == [(said, ["email"]), ("Nobody knows.", [])]
        assert corpusgen("verify", *here).code == 0


SECRET = "AKIA" + "Q7ZP4N2XW6TLB3VY"
"""Of the shape of an access key, and nobody's."""


async def test_a_canary_is_never_sent_and_the_run_says_which_row_and_what(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    async with mock_teacher(Options(log=log)) as teacher:
        texts = [*ORDINARY, f"Why does aws configure say {SECRET} is not valid?"]
        spec = written(tmp_path, texts, "  near: {}\n")
        said = (
            spec.read_text("utf-8").replace("name: scripted/test", "name: vllm/m").replace("script: answers.yaml", "")
        )
        spec.write_text(
            said.replace(
                "free: true", f"free: true\n    base_url: {teacher.base_url}\n    provider: corpusgen\n    route: mock"
            ),
            "utf-8",
        )
        command = (sys.executable, "-m", "corpusgen", "run", spec, "--corpus", tmp_path / "corpus", "-q")
        process = await asyncio.create_subprocess_exec(*map(str, command), stdout=PIPE, stderr=PIPE)
        out, err = await process.communicate()
        assert teacher.bill.requests == 6
    assert process.returncode == 0, err
    (row,) = await asyncio.to_thread(drops, tmp_path / "corpus")
    assert (row["stage"], row["item_id"], row["reason"]) == ("pii", "train:row-6", "holds a secret")
    assert row["detail"].startswith("aws_access_key at character ")
    files = [path for path in (tmp_path / "corpus").rglob("*") if path.is_file()]
    everything = b"".join(path.read_bytes() for path in [*files, log]) + out + err
    assert log.read_text("utf-8").count("lighthouse keeper") == 1
    assert SECRET.encode() not in everything


def test_no_drop_quotes_a_secret_or_what_is_blocked(tmp_path: Path) -> None:
    leaks = [f"Tell me why the old configure command says that {held} is not valid any more today"
             for held in (SECRET, "bo@post.example.org", "the region")]  # fmt: skip
    curate = "  decontaminate: {files: [{path: exam.txt}]}\n  pii: {kinds: {email: block}}\n"
    spec = written(tmp_path, [*ORDINARY, *leaks], curate, exam_txt="\n".join(leaks))
    here = ("--corpus", tmp_path / "corpus", "--json")
    assert corpusgen("run", spec, *here, "-q").object["requests"] == 6
    assert sorted(row["item_id"] for row in drops(tmp_path / "corpus")) == ["train:row-6", "train:row-7", "train:row-8"]
    everything = b"".join(path.read_bytes() for path in (tmp_path / "corpus").rglob("*") if path.is_file())
    assert SECRET.encode() not in everything
    assert b"bo@post" not in everything


def answers_of(folder: Path, texts: list[str]) -> None:
    """Have the scripted teacher give the n-th of these to the n-th item."""
    rules = [{"contains": prompt[:40], "text": text} for prompt, text in zip(ORDINARY, texts, strict=False)]
    (folder / "answers.yaml").write_text(json.dumps({"answers": rules, "default": {"text": "Nothing."}}), "utf-8")


LONG = (
    "The gates at both ends of the chamber are shut, and water runs in through a sluice from the upper pound until the"
    " level inside is that of the canal above; then the upper gates swing open and the barge moves on."
)


def test_selecting_tells_its_funnel_and_lists_every_row_it_leaves_out(tmp_path: Path) -> None:
    exam = "Nobody knows how many grains of sand lie on the beach of the village, said the old teacher."
    curate = (
        "  near: {}\n  decontaminate: {files: [{path: exam.txt}], prompts: false}\n"
        "  quality: {length: {min_words: 3}, refusal: {}}\n"
    )
    spec = written(tmp_path, ORDINARY, curate, exam_txt=exam + "\n")
    answers_of(
        tmp_path, [LONG, "I'm sorry, but I can't help with that.", LONG.lower(), f"He said: {exam}", LONG, "Far."]
    )
    here = ("--corpus", tmp_path / "corpus", "--json")
    corpusgen("run", spec, *here, "-q")
    refused = corpusgen("select", "sentences", *here)
    assert refused.code == 2
    assert "--spec" in refused.stderr
    made = corpusgen("select", "sentences", "--spec", spec, *here).object
    assert made["rows"] == 1
    assert made["steps"] == {
        "generated": 6, "after exact": 4, "after near": 4, "after contaminated": 3, "after filtered": 1, "chosen": 1,
    }  # fmt: skip
    found = corpusgen("query", "select stage, kept, count(*) as many from findings group by 1, 2 order by 1", *here)
    assert [tuple(row.values()) for row in found.object["rows"]] == [
        ("decontaminate", False, 1), ("length", False, 1), ("near", False, 2), ("refusal", False, 1),
    ]  # fmt: skip


def test_splits_share_no_item_and_no_wording(tmp_path: Path) -> None:
    texts = [f"Say where the {word} of house {n} stands." for n in range(60) for word in ("door", "well")]
    spec = written(tmp_path, texts, "  {}\n")
    spec.write_text(spec.read_text("utf-8").replace("order: file", "order: file, samples: 2"), "utf-8")
    here = ("--corpus", tmp_path / "corpus", "--json")
    assert corpusgen("run", spec, *here, "-q").object["requests"] == 240
    made = corpusgen("select", "sentences", "--splits", "train=0.8,test=0.2", "--spec", spec, *here).object
    assert made["splits"].keys() == {"train", "test"}
    assert sum(made["splits"].values()) == 240


def test_what_reads_alike_is_remarked_on_and_kept(tmp_path: Path) -> None:
    twins = [f"Describe the blue harbour lantern of {town} at dusk." for town in ("Arles", "Bruges", "Cork")]
    spec = written(tmp_path, [*ORDINARY, *twins], "  semantic: {embedding: hashing, flag: 0.5}\n")
    here = ("--corpus", tmp_path / "corpus", "--json")
    corpusgen("run", spec, *here, "-q")
    assert corpusgen("select", "sentences", "--spec", spec, *here).object["rows"] == 9
    found = drops(tmp_path / "corpus", "findings")
    assert {row["reason"] for row in found} >= {"prompt shares its rarer words with an earlier text"}
    assert all(row["kept"] for row in found)


def test_what_is_asked_covers_the_pool_by_stratum(tmp_path: Path) -> None:
    rows = [{"id": f"{kind}-{n}", "text": f"Tell of {kind} {n} {'at sea' * (n % 3)}.", "kind": kind}
            for kind, count in (("gulls", 50), ("kites", 6)) for n in range(count)]  # fmt: skip
    spec = written(tmp_path, ["x"], "  diverse: {strata: kind, quotas: {kites: 0.5}}\n")
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    spec.write_text(spec.read_text("utf-8").replace("limit: 1000, order: file", "limit: 10, order: diverse"), "utf-8")
    here = ("--corpus", tmp_path / "corpus", "--json")
    assert corpusgen("run", spec, *here, "-q").object["requests"] == 10
    asked = corpusgen("query", "select source_ids[1] as item from records", *here).object["rows"]
    assert sum("kites" in row["item"] for row in asked) == 5
    assert corpusgen("run", spec, *here, "-q").object["requests"] == 0


def test_two_versions_are_compared_row_by_row(tmp_path: Path) -> None:
    spec = written(tmp_path, ORDINARY, "  quality: {refusal: {}}\n")
    answers_of(tmp_path, [LONG, "I'm sorry, but I can't help with that.", "Fine.", "Well.", "Good.", "So."])
    here = ("--corpus", tmp_path / "corpus", "--json")
    corpusgen("run", spec, *here, "-q")
    assert corpusgen("select", "sentences", "--uncurated", *here).object["rows"] == 6
    assert corpusgen("select", "sentences", "--spec", spec, *here).object["rows"] == 5
    found = corpusgen("diff", "sentences-1", "sentences-2", *here).object
    assert (found["rows"], found["kept"], found["changes"]) == ([6, 5], 5, {"removed": 1})
    assert found["records"][0]["why"].startswith("refusal: ")
    told = corpusgen("diff", "sentences-1", "sentences-2", "--corpus", tmp_path / "corpus")
    assert "removed    ours#row-1" in told.stdout


def test_a_student_and_an_export_see_the_train_split_alone(tmp_path: Path) -> None:
    spec = write_label_task(tmp_path, pool=120, limit=100)
    here = ("--corpus", tmp_path / "corpus", "--json")
    corpusgen("distill", spec, *here, "-q")
    made = corpusgen("select", "kinds", "--splits", "train=0.7,test=0.3", *here).object["splits"]
    assert min(made.values()) > 10
    corpusgen("seal", "kinds", "--spec", spec, *here)
    assert corpusgen("train", "kinds", "--spec", spec, *here).object["rows"] == made["train"]
    for split in ("train", "test"):
        out = corpusgen("export", "kinds", tmp_path / f"{split}.jsonl", "--to", "chat", "--split", split, *here)
        assert out.object["rows"] == made[split]
    written_out = corpusgen("export", "kinds", tmp_path / "all.jsonl", "--to", "chat", *here)
    assert written_out.object["split"] == "train"
    refused = corpusgen("export", "kinds", tmp_path / "x.jsonl", "--to", "chat", "--split", "x", *here)
    assert "there are: " in refused.stderr


def test_an_empty_split_is_told(tmp_path: Path) -> None:
    spec = written(tmp_path, ORDINARY, "  {}\n")
    here = ("--corpus", tmp_path / "corpus")
    corpusgen("run", spec, *here, "-q")
    told = corpusgen("select", "sentences", "--splits", "train=1,test=0.00001", *here)
    assert (told.code, "warning: split test is empty" in told.stderr) == (0, True)


def test_a_quota_that_nothing_fills_is_told(tmp_path: Path) -> None:
    spec = write_label_task(tmp_path)
    here = ("--corpus", tmp_path / "corpus")
    corpusgen("run", spec, *here, "-q")
    chosen = ("--diverse", "8", "--strata", "label", "--quotas", "fungus=0.5")
    made = corpusgen("select", "kinds", *chosen, *here)
    assert (made.code, "warning: " in made.stderr, "fungus" in made.stderr) == (0, True, True)


@pytest.mark.parametrize(
    ("curate", "complaint"),
    [
        ("  near: {threshold: 2}\n", "curate.near.threshold: must be 1.0 or less, found 2"),
        ("  near: {tresh: 1}\n", "curate.near.tresh: no such field; did you mean 'threshold'?"),
        ("  decontaminate: {report: 0.5, drop: 0.3}\n", "curate.decontaminate.report: is 0.5 and drop is 0.3"),
        ("  decontaminate: {files: [{path: nowhere.jsonl}]}\n", "nowhere.jsonl: there is no such file or folder"),
        ("  decontaminate: {}\n", "curate.decontaminate: names no files"),
        ("  pii: {kinds: {emial: mask}}\n", "there is no kind 'emial' of personal data; the nearest: email"),
        ("  pii: {kinds: {aws_access_key: allow}}\n", "is a secret and always blocks"),
        ("  quality: {lenght: {}}\n", "curate.quality.lenght: no such filter, did you mean 'length'?"),
        ("  quality: {length: {min_words: x}}\n", "curate.quality.length.min_words: must be a whole number"),
        ("  diverse: {quotas: {a: 1}}\n", "diverse.quotas: are for the values of a column; name it under strata"),
        ("  diverse: {strata: nothing}\n", "nothing"),
        ("  active: {}\n", "curate.active: asks for labels in rounds"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told_before_anything_is_spent(tmp_path: Path, curate: str, complaint: str) -> None:
    spec = written(tmp_path, ORDINARY, curate)
    ran = corpusgen("run", spec, "--corpus", tmp_path / "corpus")
    assert ran.code == 2, ran
    assert complaint in ran.stderr
    assert not (tmp_path / "corpus").exists()


def test_odd_texts_are_ordinary_input(tmp_path: Path) -> None:
    odd = [
        "🦀",
        "日本語の文章です。",
        "日本語の文章でした。",
        "שלום עולם",
        "a" * 200_000,
        *["the same"] * 50,
        "é",
        "é",
    ]
    everything = "  near: {}\n  pii: {default: mask}\n  injection: {}\n  moderation: {}\n  quality: {length: {min_characters: 0}, repetition: {}}\n"  # noqa: E501
    spec = written(tmp_path, odd, everything)
    here = ("--corpus", tmp_path / "corpus", "--json")
    assert corpusgen("run", spec, *here, "-q").code == 0
    assert corpusgen("select", "sentences", "--spec", spec, *here).object["rows"] >= 1


def test_a_pool_that_is_the_eval_file_leaves_nothing_to_ask_and_says_so(tmp_path: Path) -> None:
    spec = written(tmp_path, ORDINARY, "  decontaminate: {files: [{path: pool.jsonl, columns: [text]}]}\n")
    ran = corpusgen("run", spec, "--corpus", tmp_path / "corpus")
    assert ran.code == 2
    assert "curate: leaves nothing of the 6 items to ask about (6 decontaminate)" in ran.stderr


def test_labels_get_their_quota_of_what_is_chosen(tmp_path: Path) -> None:
    spec = write_label_task(tmp_path, pool=40, limit=40)
    here = ("--corpus", tmp_path / "corpus", "--json")
    corpusgen("run", spec, *here, "-q")
    how = ("--diverse", "10", "--strata", "label", "--quotas", "animal=0.8")
    assert corpusgen("select", "kinds", *how, *here).object["rows"] == 10
    assert corpusgen("seal", "kinds", "--spec", spec, *here).code == 0
    found = corpusgen("diff", "kinds-1", "kinds-1", *here).object["tallies"]["label"]
    assert {name: rows for name, (rows, _) in found.items()} == {"animal": 8, "plant": 2}
    assert corpusgen("select", "kinds", "--quotas", "animal=0.8", *here).code == 2


def test_a_secret_in_tools_is_told_with_its_line_and_never_sent(tmp_path: Path) -> None:
    tools = f"tools: [{{type: function, function: {{name: f, description: key {SECRET}}}}}]\n"
    spec = write_text_task(tmp_path, pool=2, more=tools)
    ran = corpusgen("plan", spec, "--corpus", tmp_path / "corpus")
    assert ran.code == 2
    assert "tools: holds a secret (aws_access_key at character" in ran.stderr
    assert SECRET not in ran.stderr


def test_what_is_blocked_is_sent_in_no_split_and_not_in_the_prompt(tmp_path: Path) -> None:
    spec = write_label_task(tmp_path, pool=40, limit=20, more="curate: {pii: {kinds: {credit_card: block}}}\n")
    gold = (tmp_path / "gold.jsonl").read_text("utf-8").splitlines()
    row = json.loads(gold[0])
    (tmp_path / "gold.jsonl").write_text(
        json.dumps(row | {"text": "A cat paid with 4111 1111 1111 1111."}) + "\n" + "\n".join(gold[1:])
    )
    ran = corpusgen("distill", spec, "--corpus", tmp_path / "corpus", "-q")
    found = corpusgen(
        "query", "select input from records where input like '%4111%'", "--corpus", tmp_path / "corpus", "--json"
    )
    assert found.object["rows"] == [], ran
    prompt = (tmp_path / "prompt.md").read_text("utf-8")
    (tmp_path / "prompt.md").write_text(
        prompt.replace("Text: {text}", "Card: 4111 1111 1111 1111. Text: {text}"), "utf-8"
    )
    ran = corpusgen("plan", spec, "--corpus", tmp_path / "corpus")
    assert ran.code == 2
    assert "prompt: holds personal data that curate.pii does not let go (credit_card)" in ran.stderr


def test_a_secret_among_the_parameters_is_told_with_its_line(tmp_path: Path) -> None:
    spec = written(tmp_path, ORDINARY, "  near: {}\n")
    spec.write_text(spec.read_text("utf-8").replace("max_tokens: 16", f"max_tokens: 16, user: {SECRET}"), "utf-8")
    ran = corpusgen("run", spec, "--corpus", tmp_path / "corpus")
    assert ran.code == 2
    assert "teachers.0.parameters: holds a secret" in ran.stderr


def test_two_tasks_and_another_column_of_one_corpus_do_not_mix(tmp_path: Path) -> None:
    here = ("--corpus", tmp_path / "corpus", "--json")
    first = written(tmp_path / "one", ORDINARY, "  near: {}\n")
    second = written(tmp_path / "two", ORDINARY[::-1], "  near: {}\n")
    second.write_text(second.read_text("utf-8").replace("name: sentences", "name: others"), "utf-8")
    for spec in (first, second, first, second):
        assert corpusgen("run", spec, *here, "-q").code == 0
        assert drops(tmp_path / "corpus") == []


def test_masking_makes_no_item_of_the_pool_one_of_gold(tmp_path: Path) -> None:
    spec = write_label_task(tmp_path, pool=40, limit=20, more="curate: {near: {}, pii: {default: mask}}\n")
    for name, people in (("gold", ("ann.lee",)), ("pool", ("bo.hill", "cy.moor"))):
        rows = [json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text("utf-8").splitlines()]
        for row, person in zip(rows, people, strict=False):
            row["text"] = f"the cat of {person}@post.example.org"
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    corpusgen("run", spec, "--corpus", tmp_path / "corpus", "-q")
    asked = corpusgen(
        "query",
        "select count(*) as many from records where input like '%[EMAIL_1]%'",
        "--corpus",
        tmp_path / "corpus",
        "--json",
    )
    assert asked.object["rows"] == [{"many": 0}]


def test_one_value_has_one_number_in_all_columns_and_the_answer_uses_none_again(tmp_path: Path) -> None:
    spec = written(
        tmp_path,
        ["From ann@post.example.org to bo@post.example.org, from ann@post.example.org."],
        "  pii: {default: mask, stored: mask}\n",
    )
    (tmp_path / "answers.yaml").write_text("answers: []\ndefault: {text: Ask cy@post.example.org.}\n", "utf-8")
    here = ("--corpus", tmp_path / "corpus", "--json")
    corpusgen("run", spec, *here, "-q")
    (row,) = corpusgen("query", "select input, response from records", *here).object["rows"]
    assert row == {"input": "From [EMAIL_1] to [EMAIL_2], from [EMAIL_1].", "response": "Ask [EMAIL_3]."}


def test_rules_that_come_later_hold_for_what_was_answered_before(tmp_path: Path) -> None:
    spec = written(tmp_path, ORDINARY[:3], "  {}\n")
    answers_of(tmp_path, ["Ask bo@post.example.org.", LONG, "Fine."])
    here = ("--corpus", tmp_path / "corpus", "--json")
    run_id = corpusgen("run", spec, *here, "-q").object["run_id"]
    spec.write_text(
        spec.read_text("utf-8").replace(
            "curate:\n  {}",
            "curate: {pii: {stored: mask}, quality: {length: {max_words: 20, sides: [prompt]}}, near: {}}",
        ),
        "utf-8",
    )
    again = corpusgen("run", spec, *here, "-q").object
    assert (again["run_id"], again["requests"]) == (run_id, 0)  # the cap is not whole again
    made = corpusgen("select", "sentences", "--spec", spec, *here).object
    files = (tmp_path / "corpus" / "datasets").rglob("*.parquet")
    assert made["rows"] == 3
    assert b"bo@post" not in b"".join(path.read_bytes() for path in files)


def test_a_row_that_went_takes_its_drop_with_it_and_its_repeat_is_asked(tmp_path: Path) -> None:
    spec = written(tmp_path, [*ORDINARY, f"Please {ORDINARY[0]}"], "  near: {}\n")
    here = ("--corpus", tmp_path / "corpus", "--json")
    corpusgen("run", spec, *here, "-q")
    assert len(drops(tmp_path / "corpus")) == 1
    rows = (tmp_path / "pool.jsonl").read_text("utf-8").splitlines(keepends=True)
    (tmp_path / "pool.jsonl").write_text("".join(rows[1:]), "utf-8")
    assert corpusgen("run", spec, *here, "-q").object["requests"] == 1
    assert drops(tmp_path / "corpus") == []


def test_a_near_copy_of_a_gold_item_is_not_asked(tmp_path: Path) -> None:
    spec = write_label_task(tmp_path, pool=40, limit=60, more="curate: {near: {}}\n")
    gold = json.loads((tmp_path / "gold.jsonl").read_text("utf-8").splitlines()[0])
    with (tmp_path / "pool.jsonl").open("a") as file:
        file.write(json.dumps({"id": "copy", "text": f"Please, {gold['text'].lower()}"}) + "\n")
    corpusgen("run", spec, "--corpus", tmp_path / "corpus", "-q")
    found = {row["item_id"]: row for row in drops(tmp_path / "corpus")}
    assert found["train:copy"]["stage"] == "decontaminate"
    assert found["train:copy"]["repeat_of"].startswith("gold:")


def test_a_dataset_with_splits_is_sealed_sound_and_teaches_from_train_only(tmp_path: Path) -> None:
    spec = write_label_task(tmp_path, pool=40, limit=40)
    here = ("--corpus", tmp_path / "corpus", "--json")
    corpusgen("run", spec, *here, "-q")
    made = corpusgen("select", "kinds", "--splits", "test=2,train=8", *here).object
    again = corpusgen("select", "kinds", "--splits", "train=0.8,test=0.2", *here).object
    assert again["dataset"] == made["dataset"]
    assert corpusgen("seal", "kinds", "--spec", spec, *here).code == 0
    assert corpusgen("verify", *here).code == 0
    corpusgen("train", "kinds", "--spec", spec, *here)
    facts = json.loads(next((tmp_path / "corpus" / "students").rglob("facts.json")).read_text("utf-8"))
    assert facts["rows"] == made["splits"]["train"]
