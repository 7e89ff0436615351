"""Any OpenAI-compatible server: ``endpoint/<model>`` with a ``base_url``."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, urlsplit

import orjson

from corpusgen.errors import UsageError
from corpusgen.records import Completion, Reply, Request, Usage
from corpusgen.spec import TeacherSpec
from corpusgen.teachers.billing import billing_of, shipped_facts
from corpusgen.teachers.teacher import Capabilities, Offer, TeacherCard
from corpusgen.teachers.transport import Clock, Transport, secret_from_environment
from corpusgen.teachers.wire import PATHS, read_completion, request_body
from corpusgen.tokens import FRAMING, EncodingName, Framing, count_bound, encoding_for

CAPABILITIES: Final = Capabilities(apis=frozenset({"chat", "completion"}), top_logprobs=20, parameters=None)
"""What may be asked of a server nobody described: OpenAI's and vLLM's default limit of 20 runners-up."""

IN_FLIGHT: Final = 16


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A server that speaks the OpenAI wire format."""

    card: TeacherCard
    transport: Transport
    encoding: EncodingName | None = None
    """How the model cuts text, where that is known; elsewhere bytes are counted."""

    def input_tokens_bound(self, request: Request) -> int:
        """Tokens or bytes of everything sent, and what a chat template may add."""
        return tokens_bound(self.card, request, self.encoding)

    async def first_tokens(self, labels: Sequence[str]) -> tuple[bytes, ...] | None:
        """None: a server's tokenizer is not to be seen from outside."""
        return None

    async def ask(self, request: Request, *, timeout_s: float) -> Reply:
        """Send the request once."""
        return await self.transport.post(PATHS[request.api], request_body(request), timeout_s=timeout_s)

    def read(self, request: Request, reply: Reply) -> Completion:
        """The answer in a reply."""
        read = read_completion(reply.body, api=request.api, request_id=reply.request_id)
        usage = self._believed(request, read)
        return read if usage is read.usage else replace(read, usage=usage)

    def _believed(self, request: Request, read: Completion) -> Usage:
        """Token counts, at their worst where the server claims that reading the question or writing text took none."""
        usage = read.usage
        if usage.input_tokens and (usage.output_tokens or not read.text):
            return usage
        return replace(
            usage,
            input_tokens=usage.input_tokens or self.input_tokens_bound(request),
            output_tokens=usage.output_tokens or (int(request.parameters["max_tokens"]) if read.text else 0),
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self.transport.aclose()


def connect(spec: TeacherSpec, *, folder: Path, clock: Clock) -> Endpoint:
    """The server a spec names; nothing is sent yet. Raises UsageError naming the field to change."""
    base = _base(spec.base_url)
    loopback = is_loopback(base.hostname or "")
    provider = spec.provider or "unknown"
    model = spec.name.partition("/")[2]
    card = TeacherCard(
        name=spec.name,
        identity=f"{provider}@{base.scheme}://{base.netloc.lower()}",
        provider=provider,
        model=model,
        route=spec.route or ("self_hosted" if loopback else "api"),
        host=base.hostname or "",
        weights_sha256=None,
        capabilities=CAPABILITIES,
        in_flight=spec.in_flight or IN_FLIGHT,
    )
    transport = Transport(
        base_url=base.geturl().rstrip("/"),
        secret=secret_from_environment(spec.key_env),
        clock=clock,
        billing=billing_of(provider, card.host, shipped_facts()),
    )
    return Endpoint(card=card, transport=transport, encoding=encoding_for(provider, model))


def offers() -> tuple[Offer, ...]:
    """What ``teachers list`` says of this kind."""
    return (Offer(name="endpoint/MODEL", route="api", provider="(spec)", installed=True, free=False),)


def tokens_bound(card: TeacherCard, request: Request, encoding: EncodingName | None = None) -> int:
    """No fewer tokens than are billed: counted where the encoding is known, else bytes, which are never fewer."""
    own = Framing(per_message=card.tokens_per_message, per_request=card.tokens_per_request)
    framing = own if encoding is None else FRAMING[encoding]
    texts = [message.content for message in request.messages]
    return count_bound(texts, encoding, framing) + _extras_bound(request, framing)


def _extras_bound(request: Request, framing: Framing) -> int:
    """Bytes of what is put before the model besides messages: a schema, tools, and any text among the parameters."""
    written = [extra for extra in (request.schema, request.tools) if extra is not None]
    written += [value for value in request.parameters.values() if isinstance(value, dict | list | str)]
    return sum(len(orjson.dumps(extra)) + framing.per_extra for extra in written)


def is_loopback(host: str) -> bool:
    """True if the host is this machine, so that nobody listens in between."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _base(url: str | None) -> SplitResult:
    if url is None:
        raise UsageError("base_url: an endpoint teacher needs its address, such as https://host.example/v1")
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
    if base.query or base.fragment:
        raise UsageError(f"base_url: {url!r} must end with its path; remove what follows ? or #")
    if base.scheme == "http" and not is_loopback(base.hostname):
        raise UsageError(f"base_url: {url!r} is not encrypted; write https (http is for this machine only)")
    return base
