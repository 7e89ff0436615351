"""Whose terms hold at an address: proxies on this machine, spellings of a host, and contracts of somebody else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from command import Ran, corpusgen
from flow_samples import write_task
from rights_samples import ACME, acme_task, write_terms
from terms_samples import teacher as of_route

from corpusgen.provenance.places import is_near, is_unpaid
from corpusgen.provenance.terms import host_name
from corpusgen.teacher_fields import TeacherSpec
from corpusgen.teachers.endpoint import resolved

DUTIES = ["ai_label", "no_trademark", "residency", "license_copy", "naming", "attribution", "use_policy_flow_down"]
USE: dict[str, Any] = {
    "student_distribution": "internal",
    "student_competes": "no",
    "commercial": False,
    "accepted_duties": DUTIES,
}
CONTACTS = {"id": "words", "title": "Words", "licence": "CC0-1.0", "personal_data": ["contact"], "lawful_basis": "ok"}
WEIGHTS = {"name": "endpoint/Qwen/Qwen3-8B", "route": "self_hosted"}


@pytest.fixture(autouse=True)
def no_files_of_ones_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CORPUSGEN_TEACHERS", raising=False)
    monkeypatch.delenv("CORPUSGEN_TERMS", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))


def asking(folder: Path, name: str, base_url: str | None = None, **changes: Any) -> Ran:
    """The plan of a task that asks this teacher."""
    where = {} if base_url is None else {"base_url": base_url}
    told = {"name": name, "script": None, "free": True, "parameters": {"max_tokens": 8}}
    teacher = told | where | changes.pop("teacher", {})
    spec = write_task(folder, items=1, teacher=teacher, **{"intended_use": USE} | changes)
    return corpusgen("plan", spec, "--corpus", folder / "corpus")


def explained(folder: Path, *more: str) -> Ran:
    return corpusgen("policy", "explain", folder / "task.yaml", "--corpus", folder / "none", *more)


def enrol(folder: Path, base_url: str, **fields: Any) -> Ran:
    terms = write_terms(folder / "acme.yaml", fields)
    where = ("--base-url", base_url, "--provider", "acme", "--route", "api", "--terms", terms)
    return corpusgen("teachers", "add", "acme", *where, "--corpus", folder / "none")


# --- a proxy on this machine ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
def test_a_proxy_on_this_machine_stays_the_aggregator_that_its_row_says(tmp_path: Path, host: str) -> None:
    refused = asking(tmp_path, "litellm/Qwen/Qwen3-8B", f"http://{host}:4000/v1", egress="none")
    assert refused.code == 4
    assert "is reached by route aggregator: that aggregator sends on what it is sent" in refused.stderr
    assert "no terms document covers the host" in refused.stderr


def test_personal_data_does_not_go_to_a_proxy_on_this_machine(tmp_path: Path) -> None:
    refused = asking(tmp_path, "litellm/Qwen/Qwen3-8B", "http://localhost:4000/v1", sources=[CONTACTS])
    assert refused.code == 4
    assert "personal data (contact) would go to 'localhost', and no agreement covers that" in refused.stderr


def test_the_route_that_a_teacher_was_added_with_holds_at_a_loopback_address(tmp_path: Path) -> None:
    assert enrol(tmp_path, "http://127.0.0.1:9/v1").code == 0
    assert asking(tmp_path / "any", "acme/m").code == 0
    refused = asking(tmp_path / "none", "acme/m", egress="none")
    assert (refused.code, "R16" in refused.stderr) == (4, True)


@pytest.mark.parametrize(
    ("name", "route"),
    [("vllm/m", "self_hosted"), ("endpoint/m", None), ("openai/gpt-5", "api"), ("azure/gpt-5", "cloud")],
)
def test_a_loopback_address_is_ones_own_server_only_where_the_row_does_not_say_otherwise(
    name: str, route: str | None
) -> None:
    assert (
        resolved(TeacherSpec(name=name, base_url="http://127.0.0.1:9/v1", parameters={"max_tokens": 8})).route == route
    )


def test_ones_own_server_on_this_machine_needs_nothing_of_the_kind(tmp_path: Path) -> None:
    assert asking(tmp_path, "vllm/Qwen/Qwen3-8B", egress="none", sources=[CONTACTS]).code == 0


def test_a_mock_elsewhere_leaves_this_machine(tmp_path: Path) -> None:
    told = {"route": "mock", "provider": "corpusgen"}
    assert asking(tmp_path, "endpoint/m", "https://far.example/v1", teacher=told, egress="none").code == 4
    assert asking(tmp_path, "endpoint/m", "http://127.0.0.1:9/v1", teacher=told, egress="none").code == 0


# --- how a host is written --------------------------------------------------------------------------------------------

ODD = [
    "generativelanguage。googleapis.com",
    "ａpi.groq.com",
    "ⓐpi.groq.com",
    "api%2egroq.com",
    "api.groq.com.",
    "apі.groq.com",
]


@pytest.mark.parametrize("host", ODD)
def test_a_host_is_written_as_it_is_connected_to(tmp_path: Path, host: str) -> None:
    refused = asking(tmp_path, "endpoint/Qwen/Qwen3-8B", f"https://{host}/v1", teacher={"route": "self_hosted"})
    assert refused.code == 2
    assert "base_url: the host" in refused.stderr


@pytest.mark.parametrize("host", ODD)
def test_no_teacher_is_added_at_a_host_that_is_written_oddly(tmp_path: Path, host: str) -> None:
    refused = enrol(tmp_path, f"https://{host}/v1")
    assert refused.code == 2
    assert "--base-url: the host" in refused.stderr


def test_the_name_of_a_host_is_that_which_is_connected_to() -> None:
    assert {host_name(odd) for odd in ODD[1:5]} == {"api.groq.com"}
    assert host_name(ODD[0]) == "generativelanguage.googleapis.com"
    assert host_name("bücher.example") == "xn--bcher-kva.example"
    assert host_name("apі.groq.com").startswith("xn--")


# --- whose contract it is ---------------------------------------------------------------------------------------------


def test_a_providers_contract_covers_its_own_service_only(tmp_path: Path) -> None:
    told = {"route": "api", "provider": "deepseek"}
    at_home = asking(tmp_path / "a", "endpoint/deepseek-chat", "https://api.deepseek.com/v1", teacher=told)
    assert at_home.code == 0, at_home.stderr
    for host in ("api.siliconflow.cn", "cheap.example"):
        refused = asking(tmp_path / "b", "endpoint/deepseek-v3", f"https://{host}/v1", teacher=told)
        assert (refused.code, "R01" in refused.stderr) == (4, True)
        assert "deepseek-open-platform-2026-04-29 is with api.deepseek.com only" in refused.stderr


def test_what_a_provider_prohibits_binds_wherever_its_model_is(tmp_path: Path) -> None:
    write_terms(tmp_path / "terms.yaml", {"hosts": ["cheap.example"], "models": ["gpt-5"]})
    competing = USE | {"student_competes": "yes"}
    told: dict[str, Any] = {"route": "api", "provider": "cheap"}
    asked = {"teacher": told, "terms_files": ["terms.yaml"], "intended_use": competing}
    refused = asking(tmp_path, "endpoint/gpt-5", "https://cheap.example/v1", **asked)
    assert (refused.code, "R04" in refused.stderr, "R01" in refused.stderr) == (4, True, False)


def test_terms_of_an_api_that_allow_something_say_whose_they_are(tmp_path: Path) -> None:
    anybodys = {name: value for name, value in ACME.items() if name != "hosts"}
    (tmp_path / "terms.yaml").write_text(yaml.safe_dump({"documents": [anybodys]}))
    refused = corpusgen("terms", "lint", tmp_path / "terms.yaml")
    assert refused.code != 0
    assert "need hosts: whose service it is" in refused.stdout + refused.stderr


# --- hosts that are known, and servers of one's own elsewhere ---------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "route"),
    [
        ("eu.api.openai.com", "api"),
        ("generativelanguage.mtls.googleapis.com", "api"),
        ("us-central1-aiplatform.mtls.googleapis.com", "cloud"),
        ("ours.cognitiveservices.azure.com", "cloud"),
        ("ours.azure-api.net", "cloud"),
        ("models.inference.ai.azure.com", "aggregator"),
        ("integrate.api.nvidia.com", "aggregator"),
        ("api.cerebras.ai", "aggregator"),
        ("api.siliconflow.com", "aggregator"),
        ("api.sambanova.ai", "aggregator"),
        ("api.hyperbolic.xyz", "aggregator"),
        ("api.novita.ai", "aggregator"),
        ("x.us-east-1.aws.endpoints.huggingface.cloud", "aggregator"),
        ("api.perplexity.ai", "api"),
        ("api.moonshot.cn", "api"),
        ("dashscope-intl.aliyuncs.com", "api"),
        ("inference.baseten.co", "aggregator"),
    ],
)
def test_a_well_known_service_is_not_ones_own_server(tmp_path: Path, host: str, route: str) -> None:
    refused = asking(tmp_path, WEIGHTS["name"], f"https://{host}/v1", teacher=WEIGHTS)
    assert refused.code == 4
    assert "not by self_hosted; write `route: " in refused.stderr
    assert f"`route: {route}`" in refused.stderr
    assert "add the terms that cover it" not in refused.stderr


def test_personal_data_goes_to_a_far_server_of_ones_own_only_if_somebody_named_it(tmp_path: Path) -> None:
    far: dict[str, Any] = {"teacher": WEIGHTS, "sources": [CONTACTS]}
    refused = asking(tmp_path, WEIGHTS["name"], "https://142.250.1.95/v1", **far)
    assert refused.code == 4
    assert "neither this machine nor in a private network" in refused.stderr
    agreed: dict[str, Any] = {"agreements": [{"id": "dpa", "host": "142.250.1.95", "kind": "dpa"}]}
    assert asking(tmp_path, WEIGHTS["name"], "https://142.250.1.95/v1", **far, **agreed).code == 0
    assert asking(tmp_path, WEIGHTS["name"], "https://10.0.0.7/v1", **far).code == 0
    mine = {"hosts": ["gpu.house.example"], "routes": ["self_hosted"], "kind": "own", "models": ["qwen/qwen3-8b"]}
    write_terms(tmp_path / "terms.yaml", mine)
    asked = asking(tmp_path, WEIGHTS["name"], "https://gpu.house.example/v1", **far, terms_files=["terms.yaml"])
    assert asked.code == 0, asked.stderr


def test_what_is_near_is_this_machine_and_the_network_of_the_house() -> None:
    assert all(map(is_near, ("localhost", "10.1.2.3", "192.168.0.9", "gpu-box", "gpu.local", "[fd00::1]")))
    assert not any(map(is_near, ("8.8.8.8", "gpu.example", "api.groq.com", "2001:4860:4860::8888")))


# --- pins, unpaid tiers -----------------------------------------------------------------------------------------------


def test_the_pins_of_a_teacher_that_was_added_join_those_of_the_spec(tmp_path: Path) -> None:
    assert enrol(tmp_path, "https://api.acme.example/v1", hosts=["api.acme.example"], models=["other"]).code == 0
    write_terms(tmp_path / "x" / "terms.yaml", {"id": "ours-1", "hosts": ["api.acme.example"]})
    told: dict[str, Any] = {"teacher": {"terms": ["ours-1"]}, "terms_files": ["terms.yaml"]}
    assert asking(tmp_path / "x", "acme/m", **told).code == 0
    found = explained(tmp_path / "x", "--json").object["teachers"][0]
    assert {"acme-terms-1", "ours-1"} <= {line["terms_id"] for line in found["findings"]}


def test_a_free_variant_is_unpaid_however_it_is_written() -> None:
    assert all(is_unpaid(of_route(name)) for name in ("a/b:free", "a/b:FREE", "a/b:free:nitro", "a/b:online:free"))
    assert not any(is_unpaid(of_route(name)) for name in ("a/b", "a/free", "a/b:freedom"))


# --- what is said -----------------------------------------------------------------------------------------------------


def test_a_duty_is_told_with_its_own_clause_and_how_to_accept_it(tmp_path: Path) -> None:
    asking(tmp_path, "deepseek/deepseek-chat", intended_use=USE | {"accepted_duties": []})
    said = explained(tmp_path).stdout
    label = said[said.index("duty ai_label (dataset") :].splitlines()
    assert label[1].strip() == "Terms of Use s.3.1"
    assert said.count("derivative product development") == 1
    assert "to do: whoever carries the duties out adds them to intended_use.accepted_duties: ai_label, no" in said


def test_a_refusal_says_that_unknown_counts_as_competing(tmp_path: Path) -> None:
    open_ = USE | {"student_competes": "unknown"}
    refused = asking(tmp_path, "openai/gpt-5", intended_use=open_)
    assert "intended_use.student_competes is unknown, which counts as yes" in refused.stderr
    sure = asking(tmp_path, "openai/gpt-5", intended_use=USE | {"student_competes": "yes"})
    assert (sure.code, "counts as yes" in sure.stderr) == (4, False)


def test_a_verdict_reads_as_a_sentence(tmp_path: Path) -> None:
    open_ = {"outputs_train": "unclear", "outputs_train_competing": "unclear"}
    spec = acme_task(tmp_path, "http://127.0.0.1:9/v1", open_)
    told = corpusgen("plan", spec, "--corpus", tmp_path / "corpus").stderr
    assert "may be used as response only once somebody entitled to it has waived what is listed here." in told


def test_the_use_that_is_explained_names_everything_it_was_judged_by(tmp_path: Path) -> None:
    agreed = [{"id": "dpa-1", "host": "api.deepseek.com", "kind": "dpa", "classes": ["contact"]}]
    facts = {"monthly_active_users": 5, "domiciled_in": ["de"]}
    asking(tmp_path, "deepseek/deepseek-chat", organisation=facts, agreements=agreed)
    (line,) = [line for line in explained(tmp_path).stdout.splitlines() if line.startswith("intended use")]
    assert "egress: any" in line
    assert "organisation: monthly_active_users 5, domiciled_in de" in line
    assert "agreements: dpa-1 with api.deepseek.com (classes contact)" in line


def test_an_import_says_how_an_id_is_written(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    said = ("--dataset", "d", "--licence", "CC0-1.0", "--title", "T", "--source-id", "No Id!")
    refused = corpusgen("import", tmp_path / "rows.jsonl", *said, "--corpus", tmp_path / "corpus")
    assert refused.code == 2
    assert "'No Id!' is no id: write lower-case letters" in refused.stderr
    assert "pattern" not in refused.stderr
