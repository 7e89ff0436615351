"""OpenTelemetry spans, where its API is installed (extra ``otel``): one of each client's call, one of each teacher's.

Names are those of the conventions for generative AI (``gen_ai.*``, still in development there). No text of a
question or an answer is in a span. Where nobody has set up an exporter, the API itself does nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from corpusgen.errors import CorpusgenError
from corpusgen.records import Api, Completion, Request
from corpusgen.teachers.teacher import TeacherCard

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer

    from corpusgen.serve.routes import Operation

SCOPE: Final = "corpusgen.serve"
OPERATION_NAMES: Final[Mapping[str, str]] = {
    "/v1/chat/completions": "chat",
    "/v1/messages": "chat",
    "/v1/responses": "chat",
    "/v1/completions": "text_completion",
    "/v1/embeddings": "embeddings",
}
PROVIDERS: Final[Mapping[str, str]] = {
    "openai": "openai",
    "anthropic": "anthropic",
    "bedrock": "aws.bedrock",
    "vertex": "gcp.vertex_ai",
    "mistral": "mistral_ai",
    "deepseek": "deepseek",
    "groq": "groq",
    "azure": "azure.ai.openai",
}
Tell = Callable[[int], None]


def _silent(_: int) -> None:
    """Nobody listens."""


class Spans:
    """Begins spans; without a tracer it does nothing."""

    def __init__(self, tracer: Tracer | None = None) -> None:
        self._tracer = tracer

    @classmethod
    def installed(cls) -> Spans:
        """With the tracer of whoever set OpenTelemetry up, if it is installed."""
        try:
            from opentelemetry import trace
        except ImportError:
            return cls()
        if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):  # nobody did
            return cls()
        return cls(trace.get_tracer(SCOPE))

    @contextmanager
    def of_request(self, request: web.Request, operation: Operation | None) -> Iterator[Tell]:
        """A server span of a client's request; what is given back takes its status."""
        if self._tracer is None or operation is None:
            yield _silent
            return
        from opentelemetry.propagate import extract
        from opentelemetry.trace import SpanKind

        name = OPERATION_NAMES.get(operation.path)
        about: dict[str, Any] = {"http.request.method": operation.method, "http.route": operation.path}
        about |= {"gen_ai.operation.name": name} if name else {}
        carried = extract(dict(request.headers))
        with self._tracer.start_as_current_span(
            f"{operation.method} {operation.path}", context=carried, kind=SpanKind.SERVER, attributes=about
        ) as span:
            yield lambda status: _end(span, status)

    @contextmanager
    def of_call(self, request: Request, card: TeacherCard) -> Iterator[Callable[[Completion], None]]:
        """A client span of a call to a teacher; what is given back takes an answer to it."""
        if self._tracer is None:
            yield _nothing
            return
        from opentelemetry.trace import SpanKind, Status, StatusCode

        operation, scheme = _operation(request.api), card.name.partition("/")[0]
        about: dict[str, Any] = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": PROVIDERS.get(scheme, scheme),
            "gen_ai.request.model": card.model,
            "server.address": card.host,
        }
        most = request.parameters.get("max_tokens")
        about |= {"gen_ai.request.max_tokens": most} if isinstance(most, int) else {}
        with self._tracer.start_as_current_span(
            f"{operation} {card.model}",
            kind=SpanKind.CLIENT,
            attributes=about,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield lambda completion: span.set_attributes(answered(completion))
            except CorpusgenError as error:  # its message may tell of the question, so only its kind is kept
                span.set_attribute("error.type", type(error).__name__)
                span.set_status(Status(StatusCode.ERROR))
                raise


def _operation(api: Api) -> str:
    return "text_completion" if api == "completion" else "chat"


def answered(completion: Completion) -> dict[str, Any]:
    """Attributes of an answer, under the conventions' names."""
    usage = completion.usage
    named = {
        "gen_ai.response.model": completion.model_served,
        "gen_ai.response.id": completion.provider_request_id,
        "gen_ai.response.finish_reasons": (completion.finish_reason,),
        "gen_ai.usage.input_tokens": usage.input_tokens,
        "gen_ai.usage.output_tokens": usage.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": usage.cached_input_tokens or None,
        "gen_ai.usage.reasoning.output_tokens": usage.reasoning_tokens,
    }
    return {name: value for name, value in named.items() if value is not None}


def _nothing(_: Completion) -> None:
    """Nobody listens."""


def _end(span: Span, status: int) -> None:
    from opentelemetry.trace import Status, StatusCode

    span.set_attribute("http.response.status_code", status)
    if status >= 500:
        span.set_status(Status(StatusCode.ERROR))
        span.set_attribute("error.type", str(status))
