"""Documents about a sealed dataset, for other tools and for lawyers, and the gate before them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from command import Ran, corpusgen
from export_schemas import CROISSANT, SPDX
from hypothesis import given
from hypothesis import strategies as st
from task_samples import write_label_task
from test_judging_answers import judged_task

from corpusgen.cli.dataset import DOCUMENTS as OFFERED
from corpusgen.corpus import Corpus
from corpusgen.export.card import CardSource
from corpusgen.export.completeness import complete, complete_card
from corpusgen.export.croissant import croissant_json
from corpusgen.export.facts import DatasetFacts
from corpusgen.export.markdown import table
from corpusgen.export.notice import notice
from corpusgen.export.sheets import ab2013, eu_2_5, nist_600_1
from corpusgen.export.spdx import spdx, spdx_json
from corpusgen.stages.exporting import DOCUMENTS, dataset_facts
from corpusgen.stages.loading import load_task
from corpusgen.store.shards import SCHEMA, read_records

PYTHON = os.environ.get("EXPORTS_PYTHON", "")
others = pytest.mark.skipif(not PYTHON, reason="EXPORTS_PYTHON names no Python with mlcroissant and spdx-python-model")

NOTICE = "Copyright 2026 <the authors>\n```\nKeep this | notice."
OWN = (
    'licence: LicenseRef-Own, locator: "https://example.org/words", notice: NOTICE.txt, rightsholder: Ada and Sons,'
    " acquisition: licensed, acquired: 2025-01-02, copyright_status: copyright, personal_data: [contact],"
    " lawful_basis: consent, generated_by: [smollm2-apache-2.0]"
)

OFFLINE = """
import json, socket, sys
def refuse(*_): raise OSError("there is no network here")
socket.socket.connect = refuse
"""
READ_CROISSANT = f"""{OFFLINE}
import mlcroissant
dataset = mlcroissant.Dataset(jsonld=sys.argv[1])
issues = dataset.metadata.ctx.issues
def shown(row, of):
    return [row[of + "/record_id"], row[of + "/teacher"], row[of + "/messages"][0][of + "/messages/content"]]
read = {{split: [shown(row, split) for row in dataset.records(split)] for split in sys.argv[2:]}}
said = {{"errors": sorted(issues.errors), "name": dataset.metadata.name, "read": read}}
print(json.dumps(said, default=bytes.decode))
"""
READ_SPDX = f"""{OFFLINE}
from spdx_python_model import v3_0_1 as spdx
found = spdx.SHACLObjectSet()
with open(sys.argv[1], "rb") as file:
    spdx.JSONLDDeserializer().read(file, found)
print(json.dumps({{"unresolved": sorted(found.link()), "kinds": sorted(type(one).__name__ for one in found.objects)}}))
"""


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A sealed dataset of two splits: its spec and its corpus."""
    folder = tmp_path_factory.mktemp("labelled")
    spec, corpus = write_label_task(folder), folder / "corpus"
    (folder / "NOTICE.txt").write_text(NOTICE, "utf-8")
    spec.write_text(spec.read_text("utf-8").replace("licence: CC0-1.0", OWN), "utf-8")
    corpusgen("run", spec, "--corpus", corpus)
    corpusgen("select", "kinds", "--splits", "train=0.8,test=0.2", "--corpus", corpus)
    assert corpusgen("seal", "kinds", "--spec", spec, "--corpus", corpus).code == 0
    return spec, corpus


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A sealed dataset of free text that a judge has scored: its spec and its corpus."""
    folder = tmp_path_factory.mktemp("judged")
    spec, corpus = judged_task(folder), folder / "corpus"
    corpusgen("run", spec, "--corpus", corpus)
    corpusgen("select", "sentences", "--spec", spec, "--corpus", corpus)
    assert corpusgen("seal", "sentences", "--spec", spec, "--corpus", corpus).code == 0
    return spec, corpus


@pytest.fixture(scope="module")
def facts(labelled: tuple[Path, Path]) -> DatasetFacts:
    return facts_of(*labelled, "kinds")


def facts_of(spec: Path, corpus: Path, dataset: str) -> DatasetFacts:
    with Corpus.open(corpus) as opened:
        return dataset_facts(opened, load_task(spec), dataset)


def export(made: tuple[Path, Path], dataset: str, kind: str, out: Path) -> Ran:
    spec, corpus = made
    return corpusgen("export", dataset, out, "--to", kind, "--spec", spec, "--corpus", corpus, "--json")


def published(made: tuple[Path, Path], dataset: str, folder: Path) -> Path:
    """The dataset's folder as one would publish it, its Croissant description beside the data."""
    shutil.copytree(made[1] / "datasets" / f"{dataset}-1", folder)
    assert export(made, dataset, "croissant", folder / "croissant.json").code == 0
    return folder / "croissant.json"


def other_tool(program: str, *arguments: str | Path) -> Any:
    done = subprocess.run([PYTHON, "-c", program, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_command_offers_what_can_be_written() -> None:
    assert tuple(DOCUMENTS) == OFFERED


@pytest.mark.parametrize("kind", OFFERED)
def test_each_document_says_what_it_lacks_and_that_it_is_no_advice(
    kind: str, judged: tuple[Path, Path], tmp_path: Path
) -> None:
    ran = export(judged, "sentences", kind, tmp_path / "new" / "out")
    text = (tmp_path / "new" / "out").read_text("utf-8")
    assert (ran.code, ran.object["kind"]) == (0, kind)
    assert "Not legal advice" in text
    assert "Not filled" in text
    assert ran.object["not_filled"]
    assert all(gap.partition(":")[0] in text for gap in ran.object["not_filled"])


@pytest.mark.parametrize("kind", OFFERED)
def test_the_same_dataset_gives_the_same_bytes(kind: str, labelled: tuple[Path, Path], tmp_path: Path) -> None:
    for name in ("first", "second"):
        assert export(labelled, "kinds", kind, tmp_path / name).code == 0
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_people_are_told_what_to_fill_in_by_hand(labelled: tuple[Path, Path], tmp_path: Path) -> None:
    spec, corpus = labelled
    ran = corpusgen("export", "kinds", tmp_path / "x.md", "--to", "ab2013", "--spec", spec, "--corpus", corpus)
    assert "nothing in the corpus tells" in ran.stdout
    assert "(11): Dates of first use in development" in ran.stdout


# --- Croissant and SPDX ----------------------------------------------------------------------------------------------


def test_croissant_names_files_columns_and_origins(
    facts: DatasetFacts, labelled: tuple[Path, Path], judged: tuple[Path, Path]
) -> None:
    for known in (facts, facts_of(*judged, "sentences")):
        jsonschema.validate(croissant_json(known), CROISSANT)
    made = croissant_json(facts)
    folder = labelled[1] / "datasets" / "kinds-1"
    for file in made["distribution"]:
        assert file["sha256"] == hashlib.sha256((folder / file["contentUrl"]).read_bytes()).hexdigest()
    splits, *sets = made["recordSet"]
    assert [row["splits/name"] for row in splits["data"]] == [one["@id"] for one in sets] == ["train", "test"]
    for one in sets:
        assert [field["@id"].partition("/")[2] for field in one["field"]] == SCHEMA.names
    assert made["prov:wasDerivedFrom"][0]["url"] == "https://example.org/words"
    (plan,) = made["prov:wasGeneratedBy"][0]["prov:qualifiedAssociation"][0]["prov:hadPlan"]
    assert "corpusgen-scripted" in plan["prov:label"]


@others
def test_mlcroissant_validates_the_description_and_reads_the_rows_offline(
    labelled: tuple[Path, Path], tmp_path: Path
) -> None:
    described = published(labelled, "kinds", tmp_path / "kinds")
    seen = other_tool(READ_CROISSANT, described, "train", "test")
    assert (seen["errors"], seen["name"]) == ([], "kinds")
    for split, rows in seen["read"].items():
        records = read_records(sorted(described.parent.glob(f"{split}-*.parquet")))
        assert rows == [[record.record_id, record.teacher, record.messages[0].content] for record in records]


@others
def test_mlcroissant_refuses_a_file_that_was_changed(labelled: tuple[Path, Path], tmp_path: Path) -> None:
    described = published(labelled, "kinds", tmp_path / "kinds")
    file = next(described.parent.glob("train-*.parquet"))
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    done = subprocess.run([PYTHON, "-c", READ_CROISSANT, described, "train"], capture_output=True, text=True)
    assert done.returncode != 0
    assert "hash" in done.stderr.casefold()


def test_spdx_names_every_element_once_and_points_at_none_that_is_not_there(
    facts: DatasetFacts, judged: tuple[Path, Path]
) -> None:
    for known in (facts, facts_of(*judged, "sentences")):
        made = spdx_json(known)
        jsonschema.validate(made, SPDX, cls=jsonschema.Draft202012Validator)
        names = [element["spdxId"] for element in made["@graph"][1:]]
        assert len(names) == len(set(names))
        assert pointed_at(made) <= set(names)


def pointed_at(value: Any) -> set[str]:
    """Every id of an element that stands anywhere in a document."""
    if isinstance(value, str):
        return {value} if value.startswith("urn:uuid:") else set()
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return {name for part in parts for name in pointed_at(part)}


def test_spdx_tells_a_licence_that_is_on_no_list_by_its_text(facts: DatasetFacts) -> None:
    graph = spdx_json(facts)["@graph"]
    (text,) = [one for one in graph if one["type"] == "simplelicensing_SimpleLicensingText"]
    assert (text["name"], text["simplelicensing_licenseText"]) == ("LicenseRef-Own", NOTICE)
    (expression,) = [one for one in graph if one.get("simplelicensing_licenseExpression") == "LicenseRef-Own"]
    assert expression["simplelicensing_customIdToUri"] == [
        {"type": "DictionaryEntry", "key": "LicenseRef-Own", "value": text["spdxId"]}
    ]


def test_spdx_does_not_take_a_licence_for_listed_that_it_does_not_know(facts: DatasetFacts) -> None:
    (source,) = facts.card.sources
    for told, expression in ((NOTICE, "LicenseRef-WordNet"), (None, "WordNet")):
        wordnet = replace(source, licence="WordNet", notice=told)
        card = replace(facts.card, licence_expression="Apache-2.0 AND WordNet", sources=(wordnet,))
        document = spdx(replace(facts, card=card))
        assert f'"Apache-2.0 AND {expression}"' in document.text
        assert any("whether WordNet is on" in gap for gap in document.not_filled) is (told is None)


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("MIT", "https://spdx.org/licenses/MIT.html"),
        ("Apache-2.0 AND WordNet", ["https://spdx.org/licenses/Apache-2.0.html", "WordNet"]),
        ("MIT OR LicenseRef-Own", "MIT OR LicenseRef-Own"),
    ],
)
def test_croissant_lists_licences_that_all_apply_and_leaves_a_choice_as_it_is(
    expression: str, told: object, facts: DatasetFacts
) -> None:
    changed = replace(facts, card=replace(facts.card, licence_expression=expression))
    assert croissant_json(changed)["license"] == told


@others
@pytest.mark.parametrize("dataset", ["kinds", "sentences"])
def test_the_bindings_of_spdx_read_the_document_offline(
    dataset: str, labelled: tuple[Path, Path], judged: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "dataset.spdx.json"
    export(labelled if dataset == "kinds" else judged, dataset, "spdx", out)
    seen = other_tool(READ_SPDX, out)
    assert seen["unresolved"] == []
    assert len(seen["kinds"]) == len(json.loads(out.read_bytes())["@graph"])


# --- Who did what ----------------------------------------------------------------------------------------------------


def test_a_judge_is_told_apart_from_who_wrote_the_rows(judged: tuple[Path, Path], tmp_path: Path) -> None:
    known = facts_of(*judged, "sentences")
    assert [(one.name, one.records) for one in known.writers] == [("scripted/test", 8)]
    assert [(one.name, one.records) for one in known.judging] == [("scripted/judge (judge)", 8)]
    how = [(one["relationshipType"], one.get("comment")) for one in spdx_json(known)["@graph"] if "from" in one]
    assert ("generates", "8 records") in how
    assert ("other", "judged rows of it") in how
    assert known.dropped == {"judged too low": 3, "truncated": 1}


def test_a_teacher_of_two_tasks_is_named_once_with_the_rows_it_wrote(tmp_path: Path) -> None:
    corpus, specs = tmp_path / "corpus", [write_label_task(tmp_path / name, name=name) for name in ("one", "two")]
    for spec in specs:
        corpusgen("run", spec, "--corpus", corpus)
    corpusgen("select", "two", "--limit", "7", "--corpus", corpus)
    corpusgen("seal", "two", "--spec", specs[1], "--corpus", corpus)
    assert [(one.name, one.records) for one in facts_of(specs[1], corpus, "two").writers] == [("scripted/test", 7)]


def test_models_that_others_serve_are_told_apart_from_ones_own(facts: DatasetFacts) -> None:
    (teacher,) = facts.card.teachers
    served = replace(teacher, model="big-1", route="api", host="api.example.com")
    for known, where in ((facts, "2.5 (4)"), (replace(facts, card=replace(facts.card, teachers=(served,))), "2.5 (3)")):
        answers = {line.split(" | ")[0].strip("| "): line for line in eu_2_5(known).text.splitlines()}
        assert f"({known.card.teachers[0].provider}, 30 records)" in answers[where]
        assert "None." in answers["2.5 (3)" if where == "2.5 (4)" else "2.5 (4)"]


def test_the_notice_holds_each_text_word_for_word(facts: DatasetFacts) -> None:
    text = notice(facts).text
    assert all(f"    {line}" in text for line in NOTICE.splitlines())
    assert "written by AI models" in text
    assert not [gap for gap in notice(facts).not_filled if gap.startswith(("source", "licence LicenseRef-Own"))]


@given(st.text(max_size=40), st.text(max_size=40))
def test_what_others_wrote_stays_in_its_cell_and_is_never_run(title: str, licence: str) -> None:
    lines = table(("Title", "Licence"), [(title, licence)]).split("\n")
    assert len(lines) == 3
    assert lines[2].replace("\\|", "").count("|") == 3
    assert not set("<>") & set(lines[2])


def test_what_a_spec_tells_of_its_sources_is_told_on_and_no_longer_asked_for(facts: DatasetFacts) -> None:
    sheet, said = ab2013(facts), json.dumps(croissant_json(facts))
    for part in ("Ada and Sons", "licensed", "2025-01-02", "ours contact (lawful basis: consent)"):
        assert part in sheet.text
        assert part.partition(" (")[0].removeprefix("ours ") in said
    assert "owners of the sources" not in " ".join(sheet.not_filled)
    assert not [gap for gap in sheet.not_filled if gap.startswith("(10)")]
    assert "Ada and Sons, licence LicenseRef-Own" in notice(facts).text
    assert "by models under smollm2-apache-2.0" in eu_2_5(facts).text
    (source,) = [one for one in spdx_json(facts)["@graph"] if one.get("software_copyrightText")]
    assert source["software_copyrightText"] == "Ada and Sons"
    nobody = replace(facts, card=replace(facts.card, sources=(replace(facts.card.sources[0], rightsholder=None),)))
    assert "(1): owners of the sources, and of the dataset" in ab2013(nobody).not_filled


def test_use_agreements_and_releases_of_a_dataset_are_told(facts: DatasetFacts) -> None:
    known = replace(
        facts, agreements=("d1 (dpa) with api.example.com",), first_used=date(2026, 1, 2), released=("m (ab) by Ada",)
    )
    assert "A student first learned from it on 2026-01-02" in ab2013(known).text
    assert "d1 (dpa) with api.example.com" in nist_600_1(known).text
    assert "m (ab) by Ada" in nist_600_1(known).text
    assert not [gap for gap in ab2013(known).not_filled if gap.startswith("(11)")]


# --- The gate --------------------------------------------------------------------------------------------------------


def test_a_sealed_dataset_passes_the_gate(facts: DatasetFacts) -> None:
    assert complete(facts) == []
    assert complete_card(facts.card) == []


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": " "}, "name"),
        ({"version": ""}, "version"),
        ({"licence_expression": ""}, "licence_expression"),
        ({"licence_expression": "MIT AND NOASSERTION"}, "licence_expression"),
        ({"licence_expression": "see website!"}, "licence_expression"),
        ({"rows": 0}, "rows"),
        ({"teachers": ()}, "teachers"),
        ({"sources": ()}, "sources"),
        ({"sources": (CardSource(source_id="s", title="S", licence="unknown", locator=None, records=1),)}, "sources.s"),
        ({"merkle_root": None}, "merkle_root"),
        ({"spec_digest": "ab"}, "spec_digest"),
    ],
)
def test_what_a_validator_lets_pass_our_gate_does_not(change: dict[str, Any], field: str, facts: DatasetFacts) -> None:
    assert field in {one.field for one in complete(replace(facts, card=replace(facts.card, **change)))}


def test_teachers_without_terms_and_files_without_a_digest_do_not_pass(facts: DatasetFacts) -> None:
    (teacher,) = facts.card.teachers
    unnamed = replace(facts, card=replace(facts.card, teachers=(replace(teacher, terms=(), model=""),)))
    assert [one.message for one in complete(unnamed)] == [
        "the model is not named",
        "none of its terms are in the registry; name them under terms_files",
    ]
    first, *rest = facts.files
    damaged = replace(facts, files=(replace(first, sha256="", rows=first.rows - 1), *rest), asked_from=None)
    assert {one.field for one in complete(damaged)} == {f"files.{first.path}", "files", "asked_from"}


# --- Refusals --------------------------------------------------------------------------------------------------------


def test_a_dataset_that_is_not_sealed_is_not_described(labelled: tuple[Path, Path], tmp_path: Path) -> None:
    spec, corpus = labelled
    copied = shutil.copytree(corpus, tmp_path / "corpus")
    corpusgen("select", "kinds", "--limit", "3", "--corpus", copied)
    ran = export((spec, copied), "kinds-2", "croissant", tmp_path / "out.json")
    assert (ran.code, "seal it first" in ran.stderr) == (6, True)
    assert not (tmp_path / "out.json").exists()


def test_a_document_needs_the_spec_and_is_about_every_split(labelled: tuple[Path, Path], tmp_path: Path) -> None:
    spec, corpus = labelled
    here = (tmp_path / "out", "--to", "spdx", "--corpus", corpus)
    for more in ((), ("--spec", spec, "--split", "train")):
        ran = corpusgen("export", "kinds", *here, *more)
        assert (ran.code, "give the --spec it was made with, and no --split" in ran.stderr) == (2, True)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("licence: LicenseRef-Own", "licence: CC0-1.0", "was made with other sources than"),
        ("commercial: false", "commercial: true", "was made with other intended_use than"),
        ("name: kinds\n", "name: others\n", "is of task 'kinds', and --spec is of task 'others'"),
    ],
)
def test_a_spec_that_says_something_else_of_the_records_is_refused(
    old: str, new: str, said: str, labelled: tuple[Path, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "changed"
    shutil.copytree(labelled[0].parent, folder, ignore=shutil.ignore_patterns("corpus"))
    spec = folder / "task.yaml"
    spec.write_text(spec.read_text("utf-8").replace(old, new), "utf-8")
    ran = export((spec, labelled[1]), "kinds", "notice", tmp_path / "out.md")
    assert (ran.code, said in ran.stderr) == (2, True), ran.stderr
    assert not (tmp_path / "out.md").exists()


def test_an_aim_or_a_student_may_be_changed_after_the_run(labelled: tuple[Path, Path], tmp_path: Path) -> None:
    folder = tmp_path / "changed"
    shutil.copytree(labelled[0].parent, folder, ignore=shutil.ignore_patterns("corpus"))
    spec = folder / "task.yaml"
    spec.write_text(spec.read_text("utf-8") + "\ndescription: Sorts words.\n", "utf-8")
    ran = export((spec, labelled[1]), "kinds", "eu-2.5", tmp_path / "out.md")
    assert ran.code == 0, ran.stderr
