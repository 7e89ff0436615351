from __future__ import annotations

from pathlib import Path

import pytest
from command import corpusgen
from task_samples import write_label_task, write_text_task

from corpusgen.errors import LocatedError, SpecError
from corpusgen.fields import microusd
from corpusgen.shipped import shipped
from corpusgen.spec import MAX_BYTES, load_spec

WHOLE = "teachers:\n  - name: scripted/test"


def complaints(spec: Path) -> list[str]:
    """Each problem of a spec as ``line: field: message``."""
    with pytest.raises(SpecError) as raised:
        load_spec(spec)
    assert all(problem.file == spec for problem in raised.value.problems)
    return [f"{problem.line}: {problem.field}: {problem.message}" for problem in raised.value.problems]


def with_change(folder: Path, old: str, new: str) -> Path:
    """A label task whose spec has one thing changed."""
    spec = write_label_task(folder)
    text = spec.read_text("utf-8")
    assert text.count(old) == 1, old
    spec.write_text(text.replace(old, new), "utf-8")
    return spec


@pytest.mark.parametrize("task", ["word-domain", "word-example"])
def test_the_specs_that_ship_with_corpusgen_are_sound(task: str) -> None:
    assert load_spec(shipped(f"prompts/{task}/task.yaml")).spec.name == task


CHANGES = {
    "a misspelt field": (
        "intended_use:",
        "intended_uses:",
        "intended_uses: no such field; did you mean 'intended_use'?",
    ),
    "a misspelt field deep down": ("free: true", "fre: true", "teachers.0.fre: no such field; did you mean 'free'?"),
    "a wrong word": (
        "student_distribution: internal",
        "student_distribution: public",
        "intended_use.student_distribution: must be one of 'internal', 'hosted', 'weights_released', found 'public'",
    ),
    "text for a list": ('names: ["animal", "plant"]', "names: animal", "labels.names: must be a list"),
    "YAML's no for false": (
        "commercial: false",
        "commercial: no",
        "intended_use.commercial: must be true or false, found 'no'",
    ),
    "a number for a name": ("name: kinds", "name: 12", "name: must be text, in quotes, found 12"),
    "a clock time for a number": (
        "limit: 30",
        "limit: 12:30:45",
        "asking.limit: must be a whole number, found '12:30:45'",
    ),
    "a limit of nothing": ("limit: 30", "limit: 0", "asking.limit: must be 1 or more, found 0"),
    "too large a seed": ("limit: 30", "limit: 30, seed: 5000000000", "asking.seed: must be 4294967295 or less"),
    "half an item": ("limit: 30", "limit: 2.5", "asking.limit: must be a whole number, found 2.5"),
    "no max_tokens": ("max_tokens: 1, ", "", "teachers.0.parameters: max_tokens is required"),
    "a strange max_tokens": (
        "max_tokens: 1,",
        "max_tokens: true,",
        "parameters.max_tokens: must be a whole number of 1 or more, found true",
    ),
    "free and priced": (
        "free: true",
        "free: true\n    price: {input_usd_per_mtok: 1, output_usd_per_mtok: 1, source: x}",
        "teachers.0.free: free: true and price exclude each other",
    ),
    "an unknown source": (
        "{path: pool.jsonl, source: ours}",
        "{path: pool.jsonl, source: hers}",
        "seeds.train.source: 'hers' is not among sources: ours",
    ),
    "labels that begin alike": (
        '["animal", "plant"]',
        '["New York", "New Jersey"]',
        "labels.names.1: label 'New Jersey' begins with the same word as 'New York'",
    ),
    "labels that differ in case": (
        '["animal", "plant"]',
        '["US", "us"]',
        "label 'us' begins with the same word as 'US'",
    ),
    "a label twice": ('["animal", "plant"]', '["animal", "plant", "animal"]', "label 'animal' stands twice"),
    "a label of spaces": ('["animal", "plant"]', '["animal", " "]', "labels.names.1: label ' ' must be printable text"),
    "one label": ('["animal", "plant"]', '["animal"]', "labels.names: needs at least 2, found a list of 1"),
    "no gold column": (
        "validation.jsonl, source: ours, gold: label",
        "validation.jsonl, source: ours",
        "seeds.validation: gold is required",
    ),
    "labels for free text": ("kind: label", "kind: response", "labels: labels are for kind: label"),
    "two sources of one name": (
        "sources:",
        "sources:\n  - {id: ours, title: x, licence: MIT}",
        "sources.0.id: 'ours' names 2 sources",
    ),
    "too many teachers": (
        WHOLE,
        "teachers:\n  - {name: a/b, parameters: {max_tokens: 1}}\n  - name: scripted/test",
        "teachers.1: kind: label takes one teacher",
    ),
}


@pytest.mark.parametrize(("old", "new", "said"), CHANGES.values(), ids=list(CHANGES))
def test_a_mistake_is_named_with_its_line_and_what_to_write(tmp_path: Path, old: str, new: str, said: str) -> None:
    spec = with_change(tmp_path, old, new)
    found = complaints(spec)
    assert any(said in complaint for complaint in found), found
    changed = spec.read_text("utf-8").split("\n")
    assert any(int(complaint.partition(":")[0]) <= len(changed) for complaint in found)
    assert not any("Input should" in complaint or "microusd" in complaint for complaint in found)


def test_the_line_is_the_one_to_change(tmp_path: Path) -> None:
    spec = with_change(tmp_path, "free: true", "fre: true")
    line = int(complaints(spec)[0].partition(":")[0])
    assert spec.read_text("utf-8").split("\n")[line - 1].strip() == "fre: true"


def test_every_mistake_of_a_file_is_reported_at_once(tmp_path: Path) -> None:
    spec = with_change(tmp_path, "commercial: false", "commercial: maybe\ncolour: red")
    spec.write_text(spec.read_text("utf-8").replace("limit: 30", "limit: none").replace("fre", "fri"), "utf-8")
    assert len(complaints(spec)) == 4


CAPS = {
    "-1": "must be an amount of dollars, such as 2.50, 0 or more, found -1",
    ".nan": "must be an amount of dollars, such as 2.50, found '.nan'",
    "NaN": "0 or more, found NaN",
    "1e18": "is more than can be counted; write 1000000000 or less",
    "five": "must be an amount of dollars, such as 2.50, found 'five'",
    "true": "must be an amount of dollars, such as 2.50, found true",
    "[1]": "must be an amount of dollars, such as 2.50, found a list of 1",
    "0.0000001": "1e-07 has more than six decimals; the smallest amount is 0.000001",
    "1e400": "'1e400' is too large a number",
    "1e999999999": "is too large a number",
    "9" * 30: "is too large a number",
    "9" * 5000: "is too large a number",
}


@pytest.mark.parametrize(("written", "said"), CAPS.items(), ids=[key[:12] for key in CAPS])
def test_a_cap_is_never_guessed_at(tmp_path: Path, written: str, said: str) -> None:
    spec = write_label_task(tmp_path, more=f"budget: {{usd: {written}}}")
    (complaint,) = complaints(spec)
    assert "budget.usd: " in complaint
    assert said in complaint
    assert len(complaint) < 200


@pytest.mark.parametrize(("written", "meant"), [("2.5", 2_500_000), ("1e-6", 1), ("'0.10'", 100_000), ("0", 0)])
def test_dollars_are_counted_exactly(tmp_path: Path, written: str, meant: int) -> None:
    spec = write_label_task(tmp_path, more=f"budget: {{usd: {written}, tokens: 1e6}}")
    assert load_spec(spec).spec.budget.caps() == {"microusd": meant, "tokens": 1_000_000}


def test_a_huge_exponent_in_text_is_refused_without_counting_it_out() -> None:
    with pytest.raises(ValueError, match="more than can be counted"):
        microusd("1e999999999")


ODDITIES = {
    "a key twice": (b"name: a\nname: b\n", "2: name: stands twice, first on line 1; remove one"),
    "a key twice deep down": (b"a:\n  - b: 1\n    b: 2\n", "3: a.0.b: stands twice, first on line 2"),
    "an alias": (b"a: &x 1\nb: *x\n", "1: : anchors (&) and aliases (*) are not allowed"),
    "a tag": (b"a: !!python/object/apply:os.system [id]\n", "1: : tags are not allowed"),
    "deep nesting": (b"a: " + b"[" * 30 + b"]" * 30, "1: : nested deeper than 20 levels"),
    "absurd nesting": (b"[" * 200_000, "1: : nested deeper than 20 levels"),
    "a number for a key": (b"a:\n  1: x\n", "2: a: '1' cannot name a field; a name is text, in quotes if it is meant"),
    "nothing for a key": (b"name: a\nnull: x\n", "'null' cannot name a field"),
    "a list for a key": (b"? [a, b]\n: x\n", "cannot name a field"),
    "a huge file": (b"#" * (MAX_BYTES + 1), "None: : is larger than 1,000,000 bytes"),
    "no mapping": (b"- a\n- b\n", "1: : a task spec is a mapping of fields"),
    "nothing": (b"", "1: : a task spec is a mapping of fields"),
    "two documents": (b"a: 1\n---\nb: 2\n", "2: : is not YAML: but found another document"),
    "broken YAML": (b"a: [1, 2\nb: 3\n", "is not YAML: did not find expected ',' or ']'"),
    "a tab": (b"a:\n\tb: 1\n", "2: : is not YAML: found character that cannot start any token"),
    "Latin-1": ("a: 1\ntitle: café".encode("latin-1"), "2: : is not UTF-8 text; save it as UTF-8"),
    "a control character": (b"a: 1\nb: x\x1b[2Jy\n", "holds a control character"),
}


@pytest.mark.parametrize(("raw", "said"), ODDITIES.values(), ids=list(ODDITIES))
def test_what_yaml_could_hide_is_refused(tmp_path: Path, raw: bytes, said: str) -> None:
    spec = tmp_path / "task.yaml"
    spec.write_bytes(raw)
    (complaint,) = complaints(spec)
    assert said in complaint


def test_yaml_reads_as_it_looks(tmp_path: Path) -> None:
    spec = with_change(tmp_path, '["animal", "plant"]', "[no, on, 12:30:45, 007, 2026-11-21, =, y]")
    labels = load_spec(spec).spec.labels
    assert labels is not None
    assert labels.names == ("no", "on", "12:30:45", "007", "2026-11-21", "=", "y")


def test_line_ends_and_byte_order_marks_of_windows_are_fine(tmp_path: Path) -> None:
    spec = write_label_task(tmp_path)
    before = load_spec(spec).spec
    for file in tmp_path.iterdir():
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    assert load_spec(spec).spec == before
    assert corpusgen("plan", spec, "--corpus", tmp_path / "corpus").code == 0


def test_a_key_pasted_in_place_of_its_name_is_refused_and_not_repeated(tmp_path: Path) -> None:
    spec = with_change(tmp_path, "free: true", "key_env: sk-CANARY-123")
    (complaint,) = complaints(spec)
    assert "teachers.0.key_env: must be the name of an environment variable" in complaint
    assert "CANARY" not in complaint


def test_free_text_needs_an_order_that_it_can_have(tmp_path: Path) -> None:
    spec = write_text_task(tmp_path)
    spec.write_text(spec.read_text("utf-8").replace(", order: file", ""), "utf-8")
    assert "asking: order: margin is for kind: label; write order: file, random or diverse" in complaints(spec)[0]


# --- the whole way: nothing spent, nothing half-written -------------------------------------------------------------


def place(file: Path, text: str) -> str:
    """``file:line`` of the first line that holds a text."""
    lines = file.read_text("utf-8").split("\n")
    return f"{file}:{next(number for number, line in enumerate(lines, 1) if text in line)}"


def break_spec(folder: Path) -> str:
    (folder / "task.yaml").write_text((folder / "task.yaml").read_text().replace("kind: label", "kinds: label"))
    return f"{place(folder / 'task.yaml', 'kinds: label')}: kinds: no such field; did you mean 'kind'?"


def break_template(folder: Path) -> str:
    (folder / "prompt.md").write_text((folder / "prompt.md").read_text().replace("{text}", "{txt}"))
    return f"{folder / 'prompt.md'}:8: variable {{txt}} is not known; known here: examples, text"


def lose_seeds(folder: Path) -> str:
    (folder / "pool.jsonl").unlink()
    return f"{place(folder / 'task.yaml', 'pool.jsonl')}: seeds.train.path: there is no file '{folder / 'pool.jsonl'}'"


def lose_column(folder: Path) -> str:
    (folder / "gold.jsonl").write_text('{"id": "1", "text": "a cat"}\n')
    return f"{folder / 'gold.jsonl'}:1: label: no such column; the file has: id, text"


def empty_cell(folder: Path) -> str:
    (folder / "gold.jsonl").write_text('{"id": "1", "text": "a cat", "label": ""}\n')
    return f"{folder / 'gold.jsonl'}:1: label: row 1 is empty here; fill it in or remove the row"


def wrong_gold(folder: Path) -> str:
    (folder / "gold.jsonl").write_text('{"id": "1", "text": "a cat", "label": "stone"}\n')
    where = place(folder / "task.yaml", "gold.jsonl")
    return f"{where}: seeds.gold.gold: item '1' has 'stone', which is not among labels.names"


def unknown_teacher(folder: Path) -> str:
    spec = folder / "task.yaml"
    spec.write_text(spec.read_text().replace("scripted/test", "oracle/test"))
    return f"{place(spec, 'oracle/test')}: no teacher 'oracle/test'; there are: "


def unknown_parameter(folder: Path) -> str:
    spec = folder / "task.yaml"
    spec.write_text(spec.read_text().replace("top_logprobs: 5", "logprobs: 5"))
    return f"{place(spec, 'logprobs: 5')}: scripted/test: parameters.logprobs cannot be set: write top_logprobs"


def no_price(folder: Path) -> str:
    spec = folder / "task.yaml"
    spec.write_text(spec.read_text().replace("free: true", "free: false"))
    return f"{place(spec, 'scripted/test')}: the price of 'scripted/test' is not known"


def no_notice(folder: Path) -> str:
    spec = folder / "task.yaml"
    spec.write_text(spec.read_text().replace("CC0-1.0}", "CC0-1.0, notice: LICENCE}"))
    return f"{place(spec, 'notice')}: sources.0.notice: 'LICENCE' cannot be read: No such file or directory"


def no_script(folder: Path) -> str:
    (folder / "answers.yaml").unlink()
    return f"{folder / 'answers.yaml'}: cannot be read: No such file or directory"


BREAKS = [break_spec, break_template, lose_seeds, lose_column, empty_cell, wrong_gold]
BREAKS += [unknown_teacher, unknown_parameter, no_price, no_notice, no_script]


@pytest.mark.parametrize("command", ["plan", "run", "distill"])
@pytest.mark.parametrize("damage", BREAKS)
def test_bad_input_ends_a_command_before_anything_is_spent(tmp_path: Path, damage: object, command: str) -> None:
    spec, corpus = write_label_task(tmp_path), tmp_path / "corpus"
    assert callable(damage)
    said = damage(tmp_path)
    ran = corpusgen(command, spec, "--corpus", corpus)
    assert ran.code == 2, ran.stderr
    assert said in ran.stderr
    assert ran.stdout == ""
    assert asked(corpus) == 0
    assert not (corpus / "shards").exists()


def asked(folder: Path) -> int:
    """Calls that were ever reserved in a corpus."""
    if not (folder / "journal.sqlite").exists():
        return 0
    ran = corpusgen("query", "select count(*) as calls from calls", "--corpus", folder, "--json")
    return int(ran.object["rows"][0]["calls"])


def test_a_cap_of_nothing_sends_nothing(tmp_path: Path) -> None:
    spec = write_label_task(tmp_path, more="budget: {requests: 0}")
    ran = corpusgen("run", spec, "--corpus", tmp_path / "corpus", "-q", "--json")
    assert ran.code == 3
    assert ran.object["error"] == "BudgetExhausted"
    assert f"{place(spec, 'budget')}: budget.requests: the cap of 0 requests" in ran.object["message"]
    assert asked(tmp_path / "corpus") == 0


def test_a_spec_that_is_not_there_is_an_error_of_usage(tmp_path: Path) -> None:
    ran = corpusgen("plan", tmp_path / "nothing.yaml")
    assert (ran.code, ran.stderr) == (
        2,
        f"error: {tmp_path / 'nothing.yaml'}: cannot be read: No such file or directory\n",
    )


def test_terms_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    spec = write_label_task(tmp_path, more="terms_files: [ours.yaml]")
    ran = corpusgen("plan", spec)
    assert ran.code == 2
    assert str(tmp_path / "ours.yaml") in ran.stderr


def test_problems_are_located_errors() -> None:
    assert issubclass(SpecError, LocatedError)
