from __future__ import annotations

import hashlib
import re
import runpy
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from command import corpusgen

from corpusgen.prompting.prompts import Prompter
from corpusgen.shipped import shipped
from corpusgen.spec import load_spec
from corpusgen.teachers.embedded import find_weights, runtime_installed, weights_named

DATA = shipped("data/word-example")
SPEC = shipped("prompts/word-example/task.yaml")
INSTALLED = find_weights(weights_named("smollm2-135m")) is not None and runtime_installed()


def rows(name: str) -> list[dict[str, str]]:
    return list(pq.read_table(DATA / name).to_pylist())


def test_the_files_are_those_the_readme_names() -> None:
    named = re.findall(r"^([0-9a-f]{64})  (\S+)$", (DATA / "README.md").read_text("utf-8"), re.MULTILINE)
    assert sorted(name for _, name in named) == ["fewshot.parquet", "pool.parquet"]
    assert all(hashlib.sha256((DATA / name).read_bytes()).hexdigest() == digest for digest, name in named)


def test_no_word_and_no_meaning_stands_twice() -> None:
    pool, examples = rows("pool.parquet"), rows("fewshot.parquet")
    assert (len(pool), len(examples)) == (1000, 6)
    every = pool + examples
    assert len({row["word"] for row in every}) == len({row["definition"].lower() for row in every}) == len(every)


# A common word in two senses, a rare one, a name, a phrase, a quoted gloss, a meaning that stood before.
DATA_NOUN = """\
  1 This software and database is being provided to you, the LICENSEE, by
00000001 05 n 01 fox 0 000 | a small red animal of the woods; "a fox ran"
00000002 18 n 01 fox 0 001 | a person who is sly and quick
00000003 20 n 01 fern 0 000 | a green plant that grows in the shade
00000004 15 n 01 Paris 0 000 | the capital and largest city of France
00000005 13 n 01 hot_dog 0 000 | a sausage that is served in a roll
00000006 18 n 01 liar 0 000 | a person who says "yes" when it is not so
00000007 05 n 01 vixen 0 000 | a small red animal of the woods
"""
COUNTS = "fox%1:05:00:: 1 9\nfox%1:18:00:: 2 30\nfox%1:18:01:: 3 31\nliar%1:18:00:: 1 50\nParis%1:15:00:: 1 70\n"


def test_the_commonest_sense_of_common_words_is_taken(tmp_path: Path) -> None:
    (tmp_path / "data.noun").write_text(DATA_NOUN, "utf-8")
    (tmp_path / "cntlist.rev").write_text(COUNTS + "hot_dog%1:13:00:: 1 9\nvixen%1:05:00:: 1 9\n", "utf-8")
    build = runpy.run_path(str(DATA / "build.py"), run_name="word_example_build")
    assert build["build"](tmp_path, tmp_path) == 2
    found = {(row["word"], row["definition"]) for row in pq.read_table(tmp_path / "pool.parquet").to_pylist()}
    assert found == {("fox", "a person who is sly and quick"), ("vixen", "a small red animal of the woods")}


def test_examples_use_their_word() -> None:
    assert all(row["word"] in row["sentence"].lower() for row in rows("fewshot.parquet"))


def test_the_prompt_ends_where_the_sentence_begins() -> None:
    prompter = Prompter.of(load_spec(SPEC))
    item = next(prompter.items("train"))
    text = item.messages[0].content
    assert text.count("Sentence:") == 7
    assert text.endswith(f"\n\nWord: {item.input}\nMeaning: a source of difficulty\nSentence:")
    assert item.source_ids == ("wordnet-3.0#wn30-n-05687338", *(f"corpusgen-examples#example-{n}" for n in range(1, 7)))


@pytest.mark.local
@pytest.mark.slow
@pytest.mark.skipif(not INSTALLED, reason="needs corpusgen teachers install smollm2-135m")
def test_the_embedded_teacher_writes_sentences_with_their_log_probabilities(tmp_path: Path) -> None:
    text = SPEC.read_text("utf-8").replace("../../data", str(DATA.parent))
    text = text.replace("prompt: prompt.md", f"prompt: {SPEC.parent / 'prompt.md'}").replace("limit: 100", "limit: 4")
    spec = tmp_path / "task.yaml"
    spec.write_text(text.replace("max_tokens: 32", "max_tokens: 10"), "utf-8")
    here = ("--corpus", tmp_path / "corpus", "--json")
    assert corpusgen("distill", spec, *here, "-q").code == 0
    columns = "response, truncated, output_tokens, len(token_logprobs) as told, topk_len"
    found = corpusgen("query", f"select {columns} from records", *here).object["rows"]
    assert len(found) == 4
    assert {row["truncated"] for row in found} <= {True, False}
    assert all(row["truncated"] == (row["told"] == 10) for row in found), found
    assert all(set(row["topk_len"]) == {5} and len(row["response"].split()) > 3 for row in found)


@pytest.mark.local
@pytest.mark.skipif(not INSTALLED, reason="needs corpusgen teachers install smollm2-135m")
def test_labels_a_real_tokenizer_cannot_tell_apart_are_refused_with_their_line(tmp_path: Path) -> None:
    from task_samples import write_label_task

    spec = write_label_task(tmp_path, labels=("zyzzyva", "zyzzogeton"))
    spec.write_text(spec.read_text().replace("scripted/test\n    script: answers.yaml", "embedded/smollm2-135m"))
    ran = corpusgen("run", spec, "--corpus", tmp_path / "corpus", "-q")
    assert ran.code == 2
    assert "labels.names: 'zyzzyva' and 'zyzzogeton' begin with the token ' z'" in ran.stderr
    assert f"{spec}:6: " in ran.stderr
