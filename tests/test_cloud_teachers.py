"""Claude in the clouds: the address, the path, the version and the signature of what reaches a double of the cloud.

No cloud is asked. Signing in needs the extras ``bedrock`` and ``vertex``; what is sent with a key needs neither.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import orjson
import pytest
import yaml
from aiohttp import web
from teacher_samples import TickingClock, claude, server, spec

from corpusgen.errors import RequestRefused, UnknownTeacher, UnsupportedParameter, UsageError
from corpusgen.provenance.policy import Decision, IntendedUse, decide
from corpusgen.provenance.terms import TeacherRoute, load_registry
from corpusgen.records import Completion, Message, Request
from corpusgen.shipped import shipped
from corpusgen.teacher_fields import TeacherSpec
from corpusgen.teachers import bedrock, vertex
from corpusgen.teachers.batches import open_batches
from corpusgen.teachers.registry import check_parameters, open_teacher, resolved
from corpusgen.teachers.teacher import Teacher, TeacherCard

BEDROCK = "bedrock/us.anthropic.claude-sonnet-4-5-20250929-v1:0"
VERTEX = "vertex/claude-sonnet-4-5@20250929"
NAMES = pytest.mark.parametrize("name", [BEDROCK, VERTEX])
needs_boto3 = pytest.mark.skipif(not bedrock._installed(), reason="needs the extra bedrock (boto3)")
needs_google = pytest.mark.skipif(not vertex._installed(), reason="needs the extra vertex (google-auth)")
SECRET = "wJalrXUtnFEMI-a-secret-key"


@pytest.fixture(autouse=True)
def in_a_cloud(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of whoever runs the tests is signed in with, and no metadata service is asked."""
    settings = {
        "AWS_REGION": "eu-central-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
        "CLOUD_ML_REGION": "europe-west1",
        "ANTHROPIC_VERTEX_PROJECT_ID": "who-pays",
        "CG_CLOUD_KEY": "a-key-of-a-cloud-0123",
        "NO_GCE_CHECK": "true",
        "CLOUDSDK_CONFIG": str(tmp_path),
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_DEFAULT_REGION", "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.delenv(name, raising=False)


class Double:
    """Notes what reaches it; answers as Claude does, and to whoever wants a token with one."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str], Any]] = []
        self.granted: list[str] = []
        self.said = "animal"

    async def answer(self, asked: web.Request) -> web.Response:
        raw = await asked.read()
        if asked.path.endswith("/token"):
            self.granted.append(parse_qs(raw.decode())["grant_type"][0])
            return web.json_response({"access_token": "ya29.a-token-of-google", "expires_in": 3600})
        self.asked.append((asked.raw_path, dict(asked.headers), raw))
        text = self.said.format(**{name.replace("-", "_"): value for name, value in asked.headers.items()})
        body = claude({"type": "text", "text": text})
        return web.Response(body=orjson.dumps(body), headers={"x-amzn-requestid": "aws-1"})


@asynccontextmanager
async def double() -> AsyncIterator[tuple[str, Double]]:
    kept = Double()
    async with server(kept.answer) as url:
        yield url, kept


def named(name: str, **fields: Any) -> Teacher:
    return open_teacher(spec(name, **fields), folder=Path(), clock=TickingClock(), sending=False)


async def answered(name: str, url: str, **fields: Any) -> Completion:
    teacher = named(name, base_url=url, **fields)
    turn = (Message(role="user", content="Which kind is a swan?"),)
    asked = Request(
        teacher="t", model=teacher.card.model, api=teacher.card.chat_api, messages=turn, parameters={"max_tokens": 9}
    )
    try:
        return teacher.read(asked, await teacher.ask(asked, timeout_s=20))
    finally:
        await teacher.aclose()


# --- who is asked, and under which terms -----------------------------------------------------------------------------


def card(name: str, **fields: Any) -> TeacherCard:
    return named(name, key_env="CG_CLOUD_KEY", **fields).card


@pytest.mark.parametrize(
    ("name", "variable", "region", "host"),
    [
        (BEDROCK, "AWS_REGION", "us-west-2", "bedrock-runtime.us-west-2.amazonaws.com"),
        (VERTEX, "CLOUD_ML_REGION", "us-east5", "us-east5-aiplatform.googleapis.com"),
        (VERTEX, "CLOUD_ML_REGION", "global", "aiplatform.googleapis.com"),
        (VERTEX, "CLOUD_ML_REGION", "eu", "aiplatform.eu.rep.googleapis.com"),
    ],
)
def test_a_region_of_the_environment_is_an_address(
    name: str, variable: str, region: str, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, region)
    found = card(name)
    assert (found.host, found.route) == (host, "cloud")
    assert str(resolved(spec(name)).base_url).startswith(f"https://{host}")
    assert (bedrock if name == BEDROCK else vertex)._region(f"https://{host}/v1") == region


@pytest.mark.parametrize(("name", "variable"), [(BEDROCK, "AWS_REGION"), (VERTEX, "CLOUD_ML_REGION")])
def test_without_a_region_the_variable_is_named(name: str, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(variable)
    with pytest.raises(UsageError, match=variable):
        card(name)
    monkeypatch.setenv(variable, "evil.example/#")
    with pytest.raises(UsageError, match="is no region"):
        card(name)


def test_vertex_wants_to_know_who_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANTHROPIC_VERTEX_PROJECT_ID")
    with pytest.raises(UsageError, match="ANTHROPIC_VERTEX_PROJECT_ID is not set"):
        card(VERTEX)


def judged(name: str) -> Decision:
    found = card(name)
    assert found.route == "cloud"
    route = TeacherRoute(
        name=found.name, provider=found.provider, model=found.model, route=found.route, host=found.host
    )
    use = IntendedUse(student_distribution="internal", student_competes="no")
    return decide(load_registry(shipped("data/terms.yaml")), route, use, on=date(2026, 11, 22))


def test_the_terms_of_the_cloud_count_beside_those_of_the_model() -> None:
    found = judged(BEDROCK)
    assert "aws-bedrock-service-terms" in found.terms_ids
    assert any(name.startswith("anthropic") for name in found.terms_ids)
    assert found.outcome == "deny"


def test_a_cloud_whose_terms_nobody_read_is_refused() -> None:
    found = judged(VERTEX)
    assert any(gap.about == "host" for gap in found.gaps)
    assert found.outcome == "deny"


@NAMES
def test_what_claude_can_do_is_known_under_the_clouds_name_for_it(name: str) -> None:
    found = card(name)
    assert (found.capabilities.context_tokens, found.capabilities.top_logprobs) == (200_000, 0)
    with pytest.raises(UnsupportedParameter, match="diversity comes from prompts"):
        check_parameters(found, {"max_tokens": 1, "temperature": 1})
    version = {BEDROCK: "bedrock-2023-05-31", VERTEX: "vertex-2023-10-16"}[name]
    check_parameters(card(name, api_version=version), {"max_tokens": 1, "temperature": 1})
    with pytest.raises(UnsupportedParameter, match="takes no batches"):
        open_batches(named(name, key_env="CG_CLOUD_KEY"))


@pytest.mark.parametrize(("name", "kind"), [(BEDROCK, bedrock), (VERTEX, vertex)])
def test_without_the_extra_one_is_told_what_to_install(name: str, kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kind, "_installed", lambda: False)
    with pytest.raises(UnknownTeacher, match=rf"pip install 'corpusgen-distill\[{name.partition('/')[0]}\]'"):
        named(name)
    assert card(name)


def test_what_the_page_on_teachers_shows_is_a_spec() -> None:
    page = (Path(__file__).parent.parent / "docs" / "teachers.md").read_text()
    (shown,) = yaml.safe_load(page.partition("```yaml cloud\n")[2].partition("```")[0])["teachers"]
    spec = TeacherSpec.model_validate(shown)
    assert card(**spec.model_dump(include={"name", "api_version"})).route == "cloud"


# --- with a key ------------------------------------------------------------------------------------------------------

PATHS = {
    BEDROCK: "/v1/model/us.anthropic.claude-sonnet-4-5-20250929-v1:0/invoke",
    VERTEX: "/v1/projects/who-pays/locations/europe-west1/publishers/anthropic/models/"
    "claude-sonnet-4-5@20250929:rawPredict",
}


@NAMES
async def test_a_key_the_model_and_the_version_go_where_the_cloud_wants_them(name: str) -> None:
    async with double() as (url, cloud):
        read = await answered(name, url, key_env="CG_CLOUD_KEY")
    ((path, headers, raw),) = cloud.asked
    assert path == PATHS[name]
    assert headers["Authorization"] == "Bearer a-key-of-a-cloud-0123"
    assert orjson.loads(raw) == {
        "anthropic_version": "2026-10-21",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": "Which kind is a swan?"}],
    }
    assert (read.text, read.provider_request_id) == ("animal", "aws-1")
    assert card(name).revision == "api-version 2026-10-21"


async def test_the_usual_key_goes_to_amazon_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "the-default-key")
    monkeypatch.setattr(bedrock, "_installed", lambda: True)
    assert named(BEDROCK).card.key_env == "AWS_BEARER_TOKEN_BEDROCK"
    assert named(BEDROCK, base_url="https://proxy.example/v1").card.key_env is None


# --- signed in -------------------------------------------------------------------------------------------------------


@needs_boto3
async def test_a_request_to_bedrock_is_signed_as_aws_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    kept = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_SESSION_TOKEN": "FwoGZ-session"}
    for name, value in kept.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "not-for-a-double")
    async with double() as (url, cloud):
        cloud.said = "you said {X_Amz_Security_Token}"
        read = await answered(BEDROCK, url)
    ((path, headers, raw),) = cloud.asked
    scheme, _, rest = headers["Authorization"].partition(" ")
    parts = dict(part.split("=", 1) for part in rest.split(", "))
    assert scheme == "AWS4-HMAC-SHA256"
    assert parts["Credential"].endswith("/eu-central-1/bedrock/aws4_request")
    signed = {name: value for name, value in headers.items() if name.lower() in parts["SignedHeaders"].split(";")}
    again = AWSRequest(method="POST", url=url.removesuffix("/v1") + path, headers=signed, data=raw)
    again.context["timestamp"] = headers["X-Amz-Date"]
    signer = SigV4Auth(Credentials(*kept.values()), "bedrock", "eu-central-1")
    text = signer.string_to_sign(again, signer.canonical_request(again))
    assert signer.signature(text, again) == parts["Signature"]
    assert "X-Amz-Security-Token".lower() in parts["SignedHeaders"]
    assert read.text == "you said ***"


@needs_boto3
async def test_who_is_nobody_to_aws_has_sent_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-north-1")  # the SDK keeps what it found for a region
    async with double() as (url, cloud):
        with pytest.raises(RequestRefused, match=r"credentials.*sign in as the AWS command line does") as caught:
            await answered(BEDROCK, url)
    assert not caught.value.billable
    assert not cloud.asked


def service_account(folder: Path, token_uri: str) -> Path:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = folder / "account.json"
    account = {"type": "service_account", "project_id": "p", "client_email": "a@p.example", "client_id": "1"}
    path.write_text(json.dumps({**account, "private_key": key.decode(), "token_uri": token_uri}))
    return path


@needs_google
async def test_a_service_account_gets_a_token_once_and_asks_with_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with double() as (url, cloud):
        account = service_account(tmp_path, f"{url}/token")
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(account))
        cloud.said = "you said {Authorization}"
        read = await answered(VERTEX, url)
    ((path, headers, _),) = cloud.asked
    assert cloud.granted == ["urn:ietf:params:oauth:grant-type:jwt-bearer"]
    assert (path, headers["Authorization"]) == (PATHS[VERTEX], "Bearer ya29.a-token-of-google")
    assert read.text == "you said Bearer ***"


@needs_google
async def test_who_is_nobody_to_google_has_sent_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with double() as (url, cloud):
        with pytest.raises(RequestRefused, match="gcloud auth application-default login") as caught:
            await answered(VERTEX, url)
    assert not caught.value.billable
    assert not cloud.asked
