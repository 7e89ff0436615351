"""Any OpenAI-compatible server: ``endpoint/<model>`` with a ``base_url``, or by its row's name: ``groq/<model>``."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, quote, urlsplit

import orjson

from corpusgen.errors import UnsupportedParameter, UsageError
from corpusgen.records import Api, Completion, Reply, Request, canonical_json
from corpusgen.teacher_fields import TeacherSpec
from corpusgen.teachers.addresses import host_problem
from corpusgen.teachers.billing import Billing, billing_of, shipped_facts
from corpusgen.teachers.own import known_rows
from corpusgen.teachers.reading import believed, body_of, only, read_choices
from corpusgen.teachers.sdk import Opens, Sdk, anthropic_client, openai_client
from corpusgen.teachers.streams import streamed_body
from corpusgen.teachers.table import EndpointRow, ModelFact, Route, row_for
from corpusgen.teachers.teacher import Capabilities, Offer, TeacherCard
from corpusgen.teachers.transport import Clock, Secret, Transport, secret_from_environment
from corpusgen.teachers.wire import PATHS, PLAIN, Dialect
from corpusgen.tokens import FRAMING, EncodingName, Framing, count_bound, encoding_for

CAPABILITIES: Final = Capabilities(apis=frozenset({"chat", "completion"}), top_logprobs=20, parameters=None)
"""What may be asked of a server nobody described: OpenAI's and vLLM's default limit of 20 runners-up."""

IN_FLIGHT: Final = 16


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A server that speaks one of the wire formats."""

    card: TeacherCard
    transport: Transport
    sdk: Sdk | None = None
    """An official SDK that writes and signs what the transport carries."""
    encoding: EncodingName | None = None
    """How the model cuts text, where that is known; elsewhere bytes are counted."""
    dialect: Dialect = PLAIN
    tool_tokens: int = 0
    """Input tokens the server may add for tools or a schema, unseen."""
    paths: Mapping[Api, str] = field(default_factory=lambda: PATHS)

    def input_tokens_bound(self, request: Request) -> int:
        """Tokens or bytes of everything sent, and what a chat template may add."""
        hidden = self.tool_tokens if request.tools is not None or request.schema is not None else 0
        return tokens_bound(self.card, request, self.encoding) + hidden

    async def first_tokens(self, labels: Sequence[str]) -> tuple[bytes, ...] | None:
        """None: a server's tokenizer is not to be seen from outside."""
        return None

    def wire(self, request: Request) -> tuple[str, bytes]:
        """The path after the base URL, and the body that asks a request."""
        return self.paths[request.api], body_of(request, self.dialect)

    async def ask(self, request: Request, *, timeout_s: float) -> Reply:
        """Send the request once."""
        path, body = self.wire(request)
        return await (self.sdk or self.transport).post(path, body, timeout_s=timeout_s)

    async def ask_streaming(self, request: Request, *, timeout_s: float, heard: Callable[[bytes], None]) -> Reply:
        """Send the request once, for an answer in a stream; by way of an SDK it is asked whole, and nothing heard."""
        if self.sdk is not None:
            return await self.ask(request, timeout_s=timeout_s)
        path, whole = self.wire(request)
        body = streamed_body(request.api, whole, usage=self.dialect.stream_usage)
        return await self.transport.stream(path, body, api=request.api, timeout_s=timeout_s, heard=heard)

    def read(self, request: Request, reply: Reply) -> Completion:
        """The one answer in a reply."""
        return only(self.read_choices(request, reply))

    def read_choices(self, request: Request, reply: Reply) -> tuple[Completion, ...]:
        """Every answer in a reply."""
        read = read_choices(request, reply, dialect=self.dialect)
        return believed(read, request, lambda: self.input_tokens_bound(request))

    async def aclose(self) -> None:
        """Close the connections."""
        if self.sdk is not None:
            await self.sdk.aclose()
        await self.transport.aclose()


def connect(spec: TeacherSpec, *, folder: Path, clock: Clock) -> Endpoint:
    """The server a spec names; nothing is sent yet. Raises UsageError naming the field to change."""
    row = row_of(spec)
    fact = fact_of(row, model_of(spec))
    if spec.api == "responses" and row is not None and not row.responses:
        raise UnsupportedParameter(f"api: {row.title} is not known to serve responses; write api: chat")
    known = capabilities_of(row, fact)
    return connected(spec, clock, row=row, fact=fact, capabilities=known, chat_api=spec.api or "chat")


def offers() -> tuple[Offer, ...]:
    """What ``teachers list`` says of this kind."""
    rows = [row for row in known_rows() if row.name not in _OWN_FILE]
    return (
        Offer(name="endpoint/MODEL", route="api", provider="(spec)", installed=True, free=False),
        *(offer_of(row) for row in rows),
    )


_OWN_FILE: Final = frozenset({"openai", "anthropic", "bedrock", "vertex"})


def offer_of(row: EndpointRow, *, installed: bool = True) -> Offer:
    """A row of the table as a line of ``teachers list``."""
    return Offer(
        name=f"{row.name}/MODEL",
        route=row.route or "self_hosted",
        provider=row.provider or "(spec)",
        installed=installed,
        free=False,
    )


def schemes() -> frozenset[str]:
    """The names of rows, each of which is a scheme."""
    return frozenset(row.name for row in known_rows())


def model_of(spec: TeacherSpec) -> str:
    """The model's own name."""
    return spec.name.partition("/")[2]


def row_of(spec: TeacherSpec) -> EndpointRow | None:
    """What the table knows of the server a spec names."""
    kind = spec.name.partition("/")[0]
    rows = [row for row in known_rows() if row.wire == "chat" or row.name == kind]
    return row_for(kind, spec.provider, _host(spec.base_url), rows)


def fact_of(row: EndpointRow | None, model: str) -> ModelFact | None:
    """What the table knows of a model at a server."""
    if row is None:
        return None
    like = next((one for one in known_rows() if one.name == row.models_like), None)
    return row.of(model) or (like.of(model) if like is not None else None)


def resolved(spec: TeacherSpec) -> TeacherSpec:
    """The spec with what the table says where the spec is silent: who runs the server, where, which key."""
    row = row_of(spec)
    if row is None:
        return spec
    base = spec.base_url or _home(row)
    # The key of one provider goes to nobody else: at another address it must be named.
    at_home = is_at_home(spec)
    return spec.model_copy(
        update={
            "base_url": base,
            "provider": spec.provider or row.provider,
            "route": spec.route or _route(row, _host(base)),
            "key_env": spec.key_env or (row.key_env if at_home else None),
            "terms": tuple(dict.fromkeys((*row.terms, *spec.terms))),
        }
    )


def _route(row: EndpointRow, host: str) -> Route | None:
    """How a row's models are reached. A proxy on this machine sends on what it is sent, so its row's word stands."""
    said_nothing = row.route is None or row.route == "self_hosted"
    return "self_hosted" if said_nothing and is_loopback(host) else row.route


def is_at_home(spec: TeacherSpec) -> bool:
    """Whether a spec asks its row's own service, which may have the usual key."""
    row = row_of(spec)
    return row is not None and (spec.base_url is None or row.is_at(_host(spec.base_url)))


def _home(row: EndpointRow) -> str | None:
    """A row's own address; where each region has its own, that of the environment's."""
    if row.base_url is None or not row.region_env:
        return row.base_url
    region = next((value for name in row.region_env if (value := os.environ.get(name, "").strip())), None)
    if region is None:
        return None
    if not re.fullmatch(r"[a-z0-9-]+", region):
        raise UsageError(f"{' or '.join(row.region_env)} is {region!r}, which is no region, such as us-east-1")
    return row.regions.get(region) or row.base_url.format(region=region)


def capabilities_of(row: EndpointRow | None, fact: ModelFact | None) -> Capabilities:
    """What a server can be asked for, its model's own limits first."""
    if row is None:
        return CAPABILITIES
    no_seed = {} if row.seed else {"seed": f"{row.title} takes none; remove it"}
    limit = fact.top_logprobs if fact is not None and fact.top_logprobs is not None else row.top_logprobs
    return Capabilities(
        apis=frozenset(row.apis),
        top_logprobs=limit,
        parameters=None,
        context_tokens=fact.context_tokens if fact else None,
        max_output_tokens=fact.max_output_tokens if fact else None,
        max_body_bytes=row.max_body_bytes,
        choices=(fact and fact.choices) or row.choices,
        seed=row.seed is not None,
        json_schema=(fact and fact.json_schema) or row.json_schema,
        tools=row.tools,
        batch=row.batch,
        trace=(fact and fact.trace) or row.trace,
        refused={**no_seed, **row.refused, **(fact.refused if fact else {})},
        only_at_effort_none=frozenset(fact.only_at_effort_none) if fact else frozenset(),
        as_of=fact.as_of if fact else row.as_of,
        source=fact.source if fact else row.source,
    )


def connected(
    spec: TeacherSpec,
    clock: Clock,
    *,
    row: EndpointRow | None,
    fact: ModelFact | None,
    capabilities: Capabilities,
    chat_api: Api = "chat",
    opens: Opens | None = None,
) -> Endpoint:
    """The teacher at an address, in the words of its row; ``opens`` is the SDK it can only be asked through."""
    chosen = resolved(spec)
    base = _base(chosen.base_url, row)
    provider, model, host = chosen.provider or "unknown", model_of(spec), base.hostname or ""
    version = "" if row is None else spec.api_version or row.api_version or ""
    if spec.api_version is not None and (row is None or row.api_versions == "none"):
        raise UsageError(f"api_version: {spec.name} has no versions to choose from; remove it")
    card = TeacherCard(
        name=spec.name,
        identity=f"{provider}@{base.scheme}://{base.netloc.lower()}{_asked_with(row, version)}",
        provider=provider,
        model=model,
        route=chosen.route or ("self_hosted" if is_loopback(host) else "api"),
        host=host,
        weights_sha256=None,
        capabilities=capabilities,
        in_flight=spec.in_flight or IN_FLIGHT,
        revision=f"api-version {version}" if version else "",
        chat_api=chat_api,
        key_env=chosen.key_env,
    )
    transport = Transport(
        base_url=base.geturl().rstrip("/"),
        secret=_secret(chosen.key_env),
        clock=clock,
        billing=_billing(spec, provider, host),
        headers={row.version_header: version} if row is not None and row.version_header else {},
        key_header="Authorization" if row is None else row.key_header,
    )
    return Endpoint(
        card=card,
        transport=transport,
        sdk=_sdk(spec, row, transport, opens),
        encoding=encoding_for(provider, model),
        dialect=PLAIN if row is None else row.dialect(fact, version),
        tool_tokens=0 if row is None else row.tool_tokens,
        paths=_paths(row, base, model, version),
    )


def _asked_with(row: EndpointRow | None, version: str) -> str:
    """What every request says besides its own parameters: with other words it is another question."""
    version = f" api-version {version}" if version else ""
    body = row.body if row is not None else {}
    return version + (f" {canonical_json(body).decode()}" if body else "")


def _sdk(spec: TeacherSpec, row: EndpointRow | None, transport: Transport, opens: Opens | None) -> Sdk | None:
    if opens is None and spec.transport == "http":
        return None
    theirs = anthropic_client if row is not None and row.wire == "messages" else openai_client
    return Sdk(transport=transport, opens=opens or theirs)


def _billing(spec: TeacherSpec, provider: str, host: str) -> Billing:
    known = billing_of(provider, host, shipped_facts())
    return known if spec.unbilled is None else known.without_charge(spec.unbilled.statuses)


def _paths(row: EndpointRow | None, base: SplitResult, model: str, version: str) -> Mapping[Api, str]:
    if row is not None and row.api_versions == "body":
        return {api: row.versioned_path + path for api, path in PATHS.items()}
    if row is None or row.api_versions != "query" or not version:
        return PATHS
    # Azure names the deployment in the path, unless the address is that of its newer, versionless API.
    before = "" if base.path.rstrip("/").endswith("/v1") else row.versioned_path.format(model=quote(model, safe=""))
    return {api: f"{before}{path}?api-version={quote(version, safe='')}" for api, path in PATHS.items()}


def _secret(name: str | None) -> Secret | None:
    """The key, if it is set. Whoever sends anything looks at ``card.key_env`` first; a plan needs none."""
    return secret_from_environment(name) if name is not None and os.environ.get(name, "").strip() else None


def tokens_bound(card: TeacherCard, request: Request, encoding: EncodingName | None = None) -> int:
    """No fewer tokens than are billed: counted where the encoding is known, else bytes, which are never fewer."""
    framing = _own_framing(card.tokens_per_message, card.tokens_per_request) if encoding is None else FRAMING[encoding]
    texts = [message.sent for message in request.messages]
    return count_bound(texts, encoding, framing) + _extras_bound(request, framing)


@cache
def _own_framing(per_message: int, per_request: int) -> Framing:
    return Framing(per_message=per_message, per_request=per_request)


_NO_TEXT: Final = frozenset({int, float, bool, type(None)})


def _extras_bound(request: Request, framing: Framing) -> int:
    """Bytes of what is put before the model besides messages: a schema, tools, and any text among the parameters."""
    written = [value for value in request.parameters.values() if type(value) not in _NO_TEXT]
    if request.schema is not None:
        written.append(request.schema)
    if request.tools is not None:
        written.append(request.tools)
    return sum([len(orjson.dumps(extra)) + framing.per_extra for extra in written])


def is_loopback(host: str) -> bool:
    """True if the host is this machine, so that nobody listens in between."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _host(url: str | None) -> str:
    try:
        return (urlsplit(url).hostname or "") if url else ""
    except ValueError:
        return ""


def _base(url: str | None, row: EndpointRow | None) -> SplitResult:
    if url is None:
        what = "an endpoint teacher" if row is None else row.title
        if row is not None and row.region_env:
            raise UsageError(f"base_url: {what} has an address in each region; set {' or '.join(row.region_env)}")
        raise UsageError(f"base_url: {what} needs its address, such as https://host.example/v1")
    try:
        base = urlsplit(url)
        port_is_fine = base.port is None or base.port > 0
    except ValueError as error:
        raise UsageError(f"base_url: {url!r} is not an address: {error}") from error
    if base.username is not None or base.password is not None:
        # The address itself is not repeated: it holds a password.
        raise UsageError("base_url: must not hold a user name or password; put the key in the variable key_env names")
    if base.scheme not in ("http", "https") or not base.hostname or not port_is_fine:
        raise UsageError(f"base_url: {url!r} is not an address such as https://host.example/v1")
    if problem := host_problem(base.hostname):
        raise UsageError(f"base_url: {problem}")
    if base.query or base.fragment:
        raise UsageError(f"base_url: {url!r} must end with its path; remove what follows ? or #")
    if base.scheme == "http" and not is_loopback(base.hostname):
        raise UsageError(f"base_url: {url!r} is not encrypted; write https (http is for this machine only)")
    return base
