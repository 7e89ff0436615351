"""Requests that somebody sends who means harm, or who does not know better: what is sent, and what may come back."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

TOKEN: Final = "{token}"
"""Stands for the secret of a valid token, wherever it is written."""
HOST: Final = "{host}"
SPY: Final = "{spy}"
"""Stands for the address of a server that nobody may be made to ask."""
CANARY: Final = "canary-7f3a"
"""What is in a file beside the corpus, and in no answer."""
WRONG: Final = "cg_" + "A" * 43
JSON: Final = "application/json"
FOURS: Final = tuple(range(400, 500))


@dataclass(frozen=True, kw_only=True)
class Attack:
    """One request: raw bytes, or parts that are put together."""

    name: str
    method: str = "POST"
    path: str = "/v1/chat/completions"
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    raw: bytes | None = None
    """All of it, instead."""
    status: tuple[int, ...] = (400,)
    """What may come back; empty: the connection is closed without an answer, or any of 4xx comes."""
    host: str | None = HOST
    authorised: bool = True
    pauses: tuple[float, ...] = field(default=())
    """Seconds between the pieces it is sent in."""
    admin: bool = False
    """Sent with a token that may do everything: what a scope forbids is not what is tried."""
    asks: bool = False
    """Whether it is harmless, so that the teacher may be asked."""

    def sent(self, host: str, token: str, spy: str, admin: str = "") -> bytes:
        """What goes over the wire."""
        told = {
            HOST: host,
            TOKEN: token,
            SPY: spy,
            "{admin}": admin,
            "{token_cut}": token[:-5],
            "{token_upper}": token.upper(),
            "{token_rest}": token.removeprefix("cg_"),
        }
        raw = self.raw if self.raw is not None else self._put_together()
        for name, value in told.items():
            raw = raw.replace(name.encode(), value.encode())
        return raw

    def _put_together(self) -> bytes:
        headers = list(self.headers)
        names = {name.lower() for name, _ in headers}
        if self.host is not None and "host" not in names:
            headers.insert(0, ("Host", self.host))
        if self.authorised and not names & {"authorization", "x-api-key"}:
            headers.append(("Authorization", "Bearer {admin}" if self.admin else f"Bearer {TOKEN}"))
        if self.body and "content-type" not in names:
            headers.append(("Content-Type", JSON))
        body = self.body
        if (body or self.method == "POST") and not names & {"content-length", "transfer-encoding"}:
            # Measured after the words are put in, which are longer than what stands for them only in addresses.
            headers.append(("Content-Length", str(len(body.replace(SPY.encode(), _SPY_SIZED)))))
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
        return f"{self.method} {self.path} HTTP/1.1\r\n{lines}\r\n".encode("utf-8", "surrogateescape") + body


_SPY_SIZED: Final = b"http://127.0.0.1:65535"
"""As long as the address of the spy is made to be."""


def chat(**changed: Any) -> bytes:
    """A chat that would be answered, but for what is changed."""
    body: dict[str, Any] = {
        "model": "gpt-mock",
        "max_tokens": 16,
        "messages": [{"role": "user", "content": "What is a lagoon?"}],
    }
    return json.dumps({**body, **changed}).encode()


def _plain(name: str, body: bytes, *status: int, **more: Any) -> Attack:
    return Attack(name=name, body=body, status=status or (400,), **more)


# --- tokens -----------------------------------------------------------------------------------------------------------


def tokens() -> Iterator[Attack]:
    """No token, a wrong one, part of one, and one where none may be."""
    yield Attack(name="no token", authorised=False, body=chat(), status=(401,))
    for name, value in {
        "wrong": f"Bearer {WRONG}",
        "empty": "Bearer ",
        "no scheme": WRONG,
        "basic": "Basic YW5uOnNlY3JldA==",
        "digest": 'Digest username="ann"',
        "truncated": "Bearer {token_cut}",
        "one more letter": f"Bearer {TOKEN}A",
        "in capitals": "Bearer {token_upper}",
        "quoted": f'Bearer "{TOKEN}"',
        "sql": "Bearer ' or 1=1 --",
        "glob": "Bearer cg_*",
        "nul": "Bearer cg_%00",
        "huge": "Bearer cg_" + "A" * 7_000,
        "unicode": "Bearer cg_žluťoučký",
        "two in one": f"Bearer {TOKEN}, Bearer {TOKEN}",
        "digest of it": "Bearer " + "0" * 64,
    }.items():
        yield Attack(name=f"token {name}", headers=(("Authorization", value),), body=chat(), status=(400, 401, 429))
    yield Attack(name="two tokens", headers=(("Authorization", f"Bearer {TOKEN}"), ("x-api-key", WRONG)), body=chat())
    yield Attack(
        name="x-api-key wrong", path="/v1/messages", headers=(("x-api-key", "sk-ant-nobody"),), status=(401, 429)
    )
    yield Attack(
        name="header larger than may be", headers=(("Authorization", "Bearer " + "A" * 40_000),), status=(400, 431)
    )
    for path in (
        f"/v1/models?token={TOKEN}",
        f"/v1/models?api_key={TOKEN}",
        f"/v1/models/{TOKEN}",
        f"/{TOKEN}/v1/models",
        f"/console?access_token={TOKEN}",
        f"/metrics?key={TOKEN}",
        "/v1/models?x=%63g_{token_rest}",
    ):
        yield Attack(name=f"token in the address: {path}", method="GET", path=path)
    yield Attack(
        name="session made up",
        method="GET",
        path="/metrics",
        authorised=False,
        status=(401,),
        headers=(("Cookie", "corpusgen_session=" + "A" * 43),),
    )
    yield Attack(
        name="session of a path",
        method="GET",
        path="/metrics",
        authorised=False,
        status=(401,),
        headers=(("Cookie", "corpusgen_session=../../etc/passwd"),),
    )
    yield Attack(
        name="token as cookie",
        method="GET",
        path="/metrics",
        authorised=False,
        status=(401,),
        headers=(("Cookie", f"corpusgen_session={TOKEN}"),),
    )
    for scope, path in (("admin", "/api/v1/tokens"), ("legal", "/api/v1/waivers")):
        yield Attack(name=f"without the scope {scope}", method="GET", path=path, status=(403, 404))


# --- names ------------------------------------------------------------------------------------------------------------


def hosts() -> Iterator[Attack]:
    """Hosts and origins that are others' (DNS rebinding), and requests that are two at once."""
    for host in (
        "evil.example",
        "evil.example:80",
        "127.0.0.1.nip.io",
        "localhost.evil.example",
        "localhost",
        "127.0.0.1",
        "127.0.0.1:1",
        "[::1]",
        "0.0.0.0",
        "169.254.169.254",
        "metadata.google.internal",
        f"evil.example@{HOST}",
        f"{HOST}.evil.example",
        "xn--lcalhost-71a",
        "127.1",
        "2130706433",
        "",
    ):
        yield Attack(name=f"Host {host!r}", method="GET", path="/healthz", host=host, status=(400, 421))
    yield Attack(name="no Host", method="GET", path="/healthz", host=None)
    yield Attack(name="two Hosts", method="GET", path="/healthz", headers=(("Host", HOST), ("Host", "evil.example")))
    yield Attack(name="absolute address elsewhere", method="GET", path="http://evil.example/healthz", status=(400, 421))
    yield Attack(
        name="absolute address of metadata", method="GET", path="http://169.254.169.254/latest/", status=(400, 421)
    )
    for origin in (
        "http://evil.example",
        "https://evil.example",
        "null",
        f"http://{HOST}.evil.example",
        f"https://{HOST}",
        "file://",
        "chrome-extension://abcdef",
        "",
        f"http://{HOST}, http://evil.example",
        "http://localhost",
    ):
        yield Attack(name=f"Origin {origin!r}", headers=(("Origin", origin),), body=chat(), status=(403,))
    for site in ("cross-site", "same-site", "nonsense"):
        yield Attack(name=f"Sec-Fetch-Site {site}", headers=(("Sec-Fetch-Site", site),), body=chat(), status=(403,))
    yield Attack(
        name="a picture of another page",
        method="GET",
        path="/metrics",
        status=(403,),
        headers=(("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "no-cors")),
    )
    for name in ("X-Forwarded-Host", "X-Host", "Forwarded"):
        yield Attack(
            name=f"{name} is not believed",
            method="GET",
            path="/v1/models",
            host="evil.example",
            headers=((name, HOST),),
            status=(421,),
        )


# --- the form of a request --------------------------------------------------------------------------------------------


def forms() -> Iterator[Attack]:
    """Content types, encodings, lengths, methods and addresses."""
    for kind in (
        "text/plain",
        "text/plain; x=application/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/xml",
        "application/json-seq",
        "application/jsonp",
        "text/json",
        "*/*",
        "application/json; charset=utf-16",
        "application/json; charset=latin-1",
        "application/json, text/plain",
    ):
        yield Attack(name=f"Content-Type {kind}", headers=(("Content-Type", kind),), body=chat(), status=(415,))
    yield Attack(
        name="no Content-Type",
        headers=(("Content-Length", str(len(chat()))), ("Content-Type", "")),
        body=chat(),
        status=(415,),
    )
    bomb = gzip.compress(b'{"a":"' + b"A" * 20_000_000 + b'"}')
    for coding, body in (
        ("gzip", bomb),
        ("x-gzip", bomb),
        ("deflate", zlib.compress(b"A" * 1_000_000)),
        ("br", b"\x0b\x02\x80abc"),
        ("zstd", b"\x28\xb5\x2f\xfd\x00"),
        ("compress", b"\x1f\x9d"),
        ("gzip, gzip", gzip.compress(bomb)),
        ("nonsense", chat()),
    ):
        yield Attack(
            name=f"Content-Encoding {coding}", headers=(("Content-Encoding", coding),), body=body, status=(415,)
        )
    yield Attack(name="gzip without a word", body=bomb)
    for length in ("99999999999", "5000000", "-1", "1e3", "0x10", "abc", "+5", "5, 5", "9" * 5_000):
        yield Attack(
            name=f"Content-Length {length[:20]}",
            headers=(("Content-Length", length),),
            body=b"{}",
            status=(400, 413, 431),
        )
    yield Attack(name="two lengths", headers=(("Content-Length", "2"), ("Content-Length", "3")), body=b"{}")
    yield Attack(
        name="length and chunks", headers=(("Content-Length", "2"), ("Transfer-Encoding", "chunked")), body=b"0\r\n\r\n"
    )
    yield Attack(name="chunks twice", headers=(("Transfer-Encoding", "chunked, chunked"),), body=b"0\r\n\r\n")
    yield Attack(
        name="encoding nobody knows",
        headers=(("Transfer-Encoding", "gzip"),),
        body=b"0\r\n\r\n",
        status=(400, 415, 501),
    )
    yield Attack(
        name="chunk of a wrong size", headers=(("Transfer-Encoding", "chunked"),), body=b"zz\r\n{}\r\n0\r\n\r\n"
    )
    yield Attack(
        name="chunk of a negative size", headers=(("Transfer-Encoding", "chunked"),), body=b"-1\r\n{}\r\n0\r\n\r\n"
    )
    yield Attack(
        name="chunk of a huge size",
        headers=(("Transfer-Encoding", "chunked"),),
        body=b"FFFFFFFFFFFFFFFFF\r\n{}\r\n0\r\n\r\n",
    )
    yield Attack(name="expects what is not", headers=(("Expect", "the-unexpected"),), body=chat(), status=(417,))
    for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "HEAD", "PROPFIND", "CONNECTED", "BREW"):
        yield Attack(name=f"method {method}", method=method, status=(400, 405))
    yield Attack(name="CONNECT", method="CONNECT", path="169.254.169.254:80", status=(400, 404, 405, 421))
    yield Attack(name="a body with GET", method="GET", path="/v1/models", body=b"{}", status=(400,))
    for path in (
        "/../../../../etc/passwd",
        "/console/static/../../../etc/passwd",
        "/console/static/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/console/static/..%2f..%2f..%2fetc%2fpasswd",
        "/console/static/..%5c..%5cetc%5cpasswd",
        "/console/static/%00",
        "/console/static//etc/passwd",
        "/console/static/%c0%ae%c0%ae/secret",
        "/v1/models/..%2f..%2f..%2fetc%2fpasswd",
        "/v1/models/%2e%2e",
        "/v1/models/x%0d%0aSet-Cookie:%20a=b",
        "/v1/models/%ff%fe",
        "/api/v1/records/..%2f..%2fjournal.sqlite",
        "/api/v1/datasets/..%2f..%2fjournal.sqlite",
        "/journal.sqlite",
        "/.git/config",
        "/service.yaml",
        "/v1/files/..%2f..%2fservice.yaml",
        "/" + "a" * 12_000,
        "/v1/models?" + "a=1&" * 3_000,
        "/v1/models?x=1",
        "/v1/models?x=%zz",
        "/healthz?" + "&".join(f"p{at}=1" for at in range(500)),
        "/v1//chat/completions",
        "//evil.example/v1/models",
        "/\\evil.example",
        "/console?next=https://evil.example",
        "/console/login?next=//evil.example",
        "/v1/models/nobody-knows-this",
        "/v1/models/" + "x" * 3_000,
        "/api/v1/records/' or 1=1 --".replace(" ", "%20"),
        "/api/v1/records/" + "0" * 64,
        "/api/v1/runs/%3Cscript%3Ealert(1)%3C%2Fscript%3E",
        "/nowhere/%3Cimg%20src=x%20onerror=alert(1)%3E",
    ):
        yield Attack(name=f"GET {path[:60]}", method="GET", path=path, status=(303, 400, 403, 404, 421, 431))
    for name, raw in {
        "not HTTP": b"hello\r\n\r\n",
        "TLS hello": bytes.fromhex("16030100f8010000f40303") + b"\0" * 60 + b"\r\n\r\n",
        "HTTP/0.9": b"GET /healthz\r\n\r\n",
        "HTTP/9": b"GET /healthz HTTP/9.9\r\nHost: {host}\r\n\r\n",
        "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "header without a colon": b"GET /healthz HTTP/1.1\r\nHost: {host}\r\nnonsense\r\n\r\n",
        "header name with a space": b"GET /healthz HTTP/1.1\r\nHost: {host}\r\nA B: c\r\n\r\n",
        "header continued": b"GET /healthz HTTP/1.1\r\nHost: {host}\r\nA: b\r\n c\r\n\r\n",
        "nul in a header": b"GET /healthz HTTP/1.1\r\nHost: {host}\r\nA: b\0c\r\n\r\n",
        "bare line feed in a header": b"GET /healthz HTTP/1.1\r\nHost: {host}\r\nA: b\rc\r\n\r\n",
        "a thousand headers": b"GET /healthz HTTP/1.1\r\nHost: {host}\r\n" + b"A: b\r\n" * 1_000 + b"\r\n",
        "a header of 64 KiB": b"GET /healthz HTTP/1.1\r\nHost: {host}\r\nA: " + b"b" * 65_536 + b"\r\n\r\n",
        "a line of 1 MiB": b"GET /" + b"a" * 2**20 + b" HTTP/1.1\r\nHost: {host}\r\n\r\n",
        "smuggled": b"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Length: 4\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /metrics HTTP/1.1\r\nHost: {host}\r\n\r\n",
        "tab for a space": b"GET\t/healthz\tHTTP/1.1\r\nHost: {host}\r\n\r\n",
        "WebSocket": b"GET /v1/models HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n"
        b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        b"Sec-WebSocket-Version: 13\r\n\r\n",
    }.items():
        fine = (200,) if name == "WebSocket" else ()  # answered as if nothing had been said of it
        yield Attack(name=name, raw=raw, status=fine)


# --- bodies -----------------------------------------------------------------------------------------------------------


def bodies() -> Iterator[Attack]:
    """JSON that is none, or that two readers would read in two ways, or that is too much of it."""
    for name, body in {
        "nothing": b"",
        "half": chat()[:-5],
        "more after it": chat() + b"{}",
        "a list": b"[]",
        "a text": b'"x"',
        "a number": b"1",
        "null": b"null",
        "NaN": b'{"temperature":NaN,"model":"gpt-mock","messages":[]}',
        "Infinity": b'{"temperature":Infinity}',
        "-Infinity": b'{"temperature":-Infinity}',
        "1e999": b'{"temperature":1e999}',
        "a comment": b'{"model":"gpt-mock"/* */}',
        "a trailing comma": b'{"model":"gpt-mock",}',
        "single quotes": b"{'model':'gpt-mock'}",
        "5000 digits": b'{"max_tokens":' + b"1" * 5_000 + b"}",
        "100 digits": chat().replace(b"16", b"9" * 100),
        "20 digits": chat().replace(b"16", b"18446744073709551616"),
        "2**63": chat().replace(b"16", b"9223372036854775808"),
        "-2**63-1": chat().replace(b"16", b"-9223372036854775809"),
        "1000 deep": b'{"a":' + b"[" * 1_000 + b"]" * 1_000 + b"}",
        "100000 deep": b"[" * 100_000,
        "65 deep": b'{"a":' + b"[" * 65 + b"]" * 65 + b"}",
        "objects 80 deep": b'{"a":' * 80 + b"1" + b"}" * 80,
        "a key twice": b'{"model":"gpt-mock","model":"claude-mock","messages":[]}',
        "a key twice, deep": chat()[:-1] + b',"metadata":{"a":1,"a":2}}',
        "a key twice, escaped": b'{"model":"gpt-mock","\\u006dodel":"claude-mock"}',
        "a mark": b"\xef\xbb\xbf" + chat(),
        "UTF-16": chat().decode().encode("utf-16"),
        "Latin-1": '{"model":"gpt-møck"}'.encode("latin-1"),
        "overlong UTF-8": b'{"model":"\xc0\xaf"}',
        "half a pair": b'{"model":"\\ud800"}',
        "control in a text": b'{"model":"a\nb"}',
        "nul": b'{"model":"gpt-mock\x00"}',
        "binary": bytes(range(256)),
        "5 MiB": b'{"model":"' + b"A" * (5 << 20) + b'"}',
        "pickle": b"\x80\x04\x95\x15\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",
        "YAML": b"model: !!python/object/apply:os.system ['id']",
        "XML": b"<?xml version='1.0'?><!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]><a>&b;</a>",
    }.items():
        yield _plain(f"body: {name}", body, *((413,) if name == "5 MiB" else (400,)))


def fields() -> Iterator[Attack]:
    """Fields that are of the wrong kind, or unknown, or out of every range."""
    wrong: dict[str, dict[str, Any]] = {
        "model a list": {"model": ["gpt-mock"]},
        "model null": {"model": None},
        "model empty": {"model": ""},
        "model huge": {"model": "x" * 100_000},
        "model a path": {"model": "../../etc/passwd"},
        "model an address": {"model": "http://169.254.169.254/"},
        "model with a line": {"model": "gpt-mock\r\nX-Evil: 1"},
        "model of nobody": {"model": "gpt-9"},
        "model of another's kind": {"model": "endpoint/other"},
        "a student that is none": {"model": "student/../../x"},
        "a student nobody has": {"model": "student/nobody"},
        "messages a text": {"messages": "hello"},
        "messages an object": {"messages": {"role": "user"}},
        "messages of numbers": {"messages": [1, 2, 3]},
        "messages null": {"messages": None},
        "role of nobody": {"messages": [{"role": "root", "content": "x"}]},
        "role a list": {"messages": [{"role": ["user"], "content": "x"}]},
        "content a number": {"messages": [{"role": "user", "content": 5}]},
        "content of odd parts": {"messages": [{"role": "user", "content": [{"type": "teapot"}]}]},
        "max_tokens 0": {"max_tokens": 0},
        "max_tokens -1": {"max_tokens": -1},
        "max_tokens a text": {"max_tokens": "16"},
        "max_tokens true": {"max_tokens": True},
        "max_tokens 1.5": {"max_tokens": 1.5},
        "max_tokens 2**62": {"max_tokens": 2**62},
        "n 0": {"n": 0},
        "n huge": {"n": 10**9},
        "n a list": {"n": [1]},
        "temperature a text": {"temperature": "hot"},
        "temperature -5": {"temperature": -5},
        "temperature 1e300": {"temperature": 1e300},
        "top_p 2": {"top_p": 2},
        "seed a text": {"seed": "x"},
        "stop a number": {"stop": 5},
        "stream a text": {"stream": "yes"},
        "stream 1": {"stream": 1},
        "logprobs a text": {"logprobs": "yes"},
        "top_logprobs huge": {"logprobs": True, "top_logprobs": 10**6},
        "tools a text": {"tools": "hammer"},
        "tools of odd kind": {"tools": [{"type": "code_interpreter"}]},
        "response_format odd": {"response_format": {"type": "teapot"}},
        "an unknown field": {"base_url": SPY},
        "another unknown field": {"definitely_not_a_field": 1},
        "a field with markup": {"<script>alert(1)</script>": 1},
        "prototype": {"__proto__": {"admin": True}},
        "python": {"__class__": "os"},
    }
    for name, changed in wrong.items():
        status = (404, 400) if "model" in name or "student" in name else (400,)
        yield _plain(f"chat: {name}", chat(**changed), *status)
    yield _plain("chat: tool_choice odd", chat(tool_choice={"type": "teapot"}), 200, 400, asks=True)
    ask = {"model": "claude-mock", "max_tokens": 16, "messages": [{"role": "user", "content": "hi"}]}
    odd: dict[str, dict[str, Any]] = {
        "max_tokens null": {"max_tokens": None},
        "system a number": {"system": 5},
        "thinking odd": {"thinking": {"type": "teapot"}},
        "an odd block": {"messages": [{"role": "user", "content": [{"type": "teapot"}]}]},
        "a document at an address": {
            "messages": [{"role": "user", "content": [{"type": "document", "source": {"type": "url", "url": SPY}}]}]
        },
        "a picture at an address": {
            "messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": SPY}}]}]
        },
        "a server of tools": {"mcp_servers": [{"type": "url", "url": SPY, "name": "x"}]},
        "a container": {"container": "x"},
    }
    for name, changed in odd.items():
        lenient = name in ("max_tokens null", "thinking odd")  # a teacher may know better what it takes
        yield Attack(
            name=f"messages: {name}",
            path="/v1/messages",
            body=json.dumps({**ask, **changed}).encode(),
            status=(200, 400) if lenient else (400,),
            asks=lenient,
        )
    for name, given in {
        "input a number": {"model": "gpt-mock", "input": 5},
        "an answer of before": {"model": "gpt-mock", "input": "x", "previous_response_id": "../../x"},
        "in the background": {"model": "gpt-mock", "input": "x", "background": True},
        "a picture at an address": {
            "model": "gpt-mock",
            "input": [{"role": "user", "content": [{"type": "input_image", "image_url": SPY}]}],
        },
        "a file at an address": {
            "model": "gpt-mock",
            "input": [{"role": "user", "content": [{"type": "input_file", "file_url": SPY}]}],
        },
        "a prompt of theirs": {"model": "gpt-mock", "prompt": {"id": "x"}},
    }.items():
        yield _plain(f"responses: {name}", json.dumps(given).encode(), path="/v1/responses")
    for name, given in {
        "no model": {"input": "x"},
        "input huge": {"model": "gpt-mock", "input": ["x"] * 100_000},
        "input of objects": {"model": "gpt-mock", "input": [{"url": SPY}]},
        "dimensions -1": {"model": "gpt-mock", "input": "x", "dimensions": -1},
    }.items():
        yield _plain(f"embeddings: {name}", json.dumps(given).encode(), 400, 404, path="/v1/embeddings")


def addresses() -> Iterator[Attack]:
    """Fields that would have the service ask an address of the caller's choice."""
    for name in (
        "base_url",
        "url",
        "webhook",
        "webhook_url",
        "callback",
        "callback_url",
        "endpoint",
        "proxy",
        "api_base",
    ):
        yield _plain(f"SSRF by {name}", chat(**{name: SPY}))
    parts: Mapping[str, Any] = {
        "image_url": {"type": "image_url", "image_url": {"url": SPY}},
        "image_url as a text": {"type": "image_url", "image_url": SPY},
        "image of a file": {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}},
        "image of gopher": {"type": "image_url", "image_url": {"url": "gopher://127.0.0.1:25/"}},
        "image of metadata": {"type": "image_url", "image_url": {"url": "http://169.254.169.254/latest/meta-data/"}},
        "audio": {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}},
        "file": {"type": "file", "file": {"file_id": "../../etc/passwd"}},
        "video": {"type": "video_url", "video_url": {"url": SPY}},
    }
    for name, part in parts.items():
        yield _plain(f"SSRF by {name}", chat(messages=[{"role": "user", "content": [part]}]))
    for tool in ("web_search", "web_fetch", "mcp", "file_search", "computer_use_preview"):
        yield _plain(f"SSRF by the tool {tool}", chat(tools=[{"type": tool, "server_url": SPY}]))
    for header in ("x-corpusgen-teacher", "x-base-url", "x-upstream", "openai-organization"):
        yield Attack(
            name=f"header {header} is no address", headers=((header, SPY),), body=chat(model="gpt-9"), status=(400, 404)
        )


def headers() -> Iterator[Attack]:
    """Our own headers with what they must not hold."""
    for name, values in {
        "x-corpusgen-task": ("../../x", "A B", "x" * 100, "<script>", "a;drop table runs", ""),
        "x-corpusgen-run": ("../../x", "x" * 1_000, "a\tb"),
        "x-corpusgen-use": ("everything", "[]", "weights_released; internal"),
        "x-corpusgen-user": ("root", "bob", "ann@2026-11-22", "a\tb"),
        "x-corpusgen-sample": ("-1", "1e9", "NaN", "9" * 400, "0x1"),
    }.items():
        for value in values:
            yield Attack(name=f"{name}: {value[:20]!r}", headers=((name, value),), body=chat(), status=(400, 403))
        yield Attack(name=f"{name}: no UTF-8", headers=((name, "a\udcff\udcb2"),), body=chat(), status=(400,))
    for coding in ("gzip, chunked", "identity, chunked", "chunked, chunked"):
        yield Attack(name=f"transfer encoding {coding}", headers=(("Transfer-Encoding", coding),))
    yield Attack(name="another expectation", headers=(("Expect", "200-ok"),), body=chat(), status=(417,))
    unfinished = b"GET /healthz HTTP/1.1\r\nHost: {host}\r\n"
    grown = b"".join(b"X-%d: %s\r\n" % (at, b"a" * 8_000) for at in range(60))
    yield Attack(name="a head of half a megabyte", raw=unfinished + grown + b"\r\n", status=(431,))
    yield Attack(name="a head of half a megabyte without an end", raw=unfinished + grown, status=(431,))
    behind = unfinished.replace(b"/healthz", b"/nowhere") + b"\r\n"
    yield Attack(name="a head of half a megabyte behind a request", raw=behind + unfinished + grown, status=(404, 431))


FILES: Final = {
    "prompt.md": "---\nname: hostile\ninputs: [word]\n---\nuser:\nWhat is {{ word }}?\n",
    "seeds.jsonl": '{"id": "a", "word": "lagoon"}\n',
}


def spec(**changed: Any) -> str:
    """A task that would run with ``FILES``, but for what is changed."""
    teacher = {"name": "gpt-mock", "parameters": {"max_tokens": 16}}
    task: dict[str, Any] = {
        "name": "hostile",
        "version": 1,
        "kind": "response",
        "prompt": "prompt.md",
        "input": "word",
        "intended_use": {"student_distribution": "internal", "student_competes": "no", "commercial": False},
        "sources": [{"id": "ours", "title": "Written for the tests", "licence": "CC0-1.0"}],
        "seeds": {"train": {"path": "seeds.jsonl", "source": "ours"}},
        "asking": {"order": "file"},
        "budget": {"usd": 1},
        "teachers": [{**teacher, **changed.pop("teacher", {})}],
    }
    return json.dumps({**task, **changed})


def api() -> Iterator[Attack]:
    """What is sent to our own API by somebody who may do everything."""
    path, far = "/api/v1/runs", "endpoint/x"
    price = {"input_usd_per_mtok": "1", "output_usd_per_mtok": "1", "source": "x"}
    abroad = {"name": far, "base_url": SPY, "free": False, "price": price, "route": "self_hosted", "provider": "us"}
    for name, text in {
        "an address": spec(teacher=abroad),
        "a key of the service's": spec(teacher=abroad | {"key_env": "CORPUSGEN_CANARY"}),
        "a script": spec(teacher={"script": "../../../../etc/passwd"}),
        "a prompt elsewhere": spec(prompt="../../../../etc/passwd"),
        "a prompt at the root": spec(prompt="/etc/passwd"),
        "seeds elsewhere": spec(seeds={"train": {"path": "../../secret", "source": "ours"}}),
        "terms elsewhere": spec(terms_files=["/etc/passwd"]),
        "a code": "!!python/object/apply:os.system ['id']",
        "aliases": "a: &a [x,x]\nb: [*a,*a]\n",
        "a bomb": "a: &a [x]\n" + "".join(f"b{at}: &b{at} [*a,*a,*a]\n" for at in range(50)),
        "nothing": "",
        "a list": "[]",
        "deep": "[" * 500 + "]" * 500,
        "control": "name: a\x00b",
    }.items():
        for dry_run in (True, False):
            body = json.dumps({"spec": text, "files": FILES, "dry_run": dry_run}).encode()
            yield _plain(f"a spec with {name}{', dry' if dry_run else ''}", body, *FOURS, path=path, admin=True)
    for name, told in {
        "a task elsewhere": {"task": "../../etc/passwd"},
        "a task at the root": {"task": "/etc/passwd"},
        "a task with nul": {"task": "word-domain/task.yaml\x00.md"},
        "task and spec": {"task": "word-domain/task.yaml", "spec": "a: b"},
        "neither": {},
        "a file elsewhere": {"spec": spec(), "files": FILES | {"../../evil": "x"}},
        "a file at the root": {"spec": spec(), "files": FILES | {"/tmp/evil": "x"}},
        "a file of odd name": {"spec": spec(), "files": FILES | {"a\nb": "x"}},
        "a webhook": {"task": "word-domain/task.yaml", "webhook": SPY},
        "a negative budget": {"task": "word-domain/task.yaml", "budget": {"microusd": -1}},
        "a budget of text": {"task": "word-domain/task.yaml", "budget": {"microusd": "lots"}},
    }.items():
        yield _plain(f"a run with {name}", json.dumps(told).encode(), *FOURS, path=path, admin=True)
    for sql in (
        "select * from read_text('/etc/passwd')",
        "select * from read_csv('" + SPY + "/x.csv')",
        "copy (select 1) to '/tmp/corpusgen-evil'",
        "attach '/tmp/corpusgen-evil.db'",
        "install httpfs",
        "select getenv('CORPUSGEN_CANARY')",
        "drop view records",
        "pragma database_list; select 1",
        "set enable_external_access = true",
        "",
        "nonsense",
    ):
        yield _plain(f"SQL: {sql[:30]}", json.dumps({"sql": sql}).encode(), *FOURS, path="/api/v1/query", admin=True)
    for name, where, told in (
        ("rows for ever", "query", {"sql": "select 1", "rows": 10**12}),
        ("seconds for ever", "query", {"sql": "select 1", "seconds": 1e9}),
        ("an odd format", "query", {"sql": "select 1", "format": "../x"}),
        ("no such dataset", "exports", {"dataset": "../../etc", "to": "chat"}),
        ("odd kind", "exports", {"dataset": "x", "to": "shell"}),
        ("a path", "exports", {"dataset": "x", "to": "chat", "path": "/tmp/evil"}),
        ("a lease of nothing", "leases", {"teacher": "x", "amounts": {}, "seconds": 5}),
        ("a lease below nothing", "leases", {"teacher": "x", "amounts": {"microusd": -5}, "seconds": 5}),
        ("a lease for ever", "leases", {"teacher": "x", "amounts": {"microusd": 5}, "seconds": 1e30}),
        ("a lease of odd scopes", "leases", {"teacher": "x", "amounts": {"microusd": 5}, "scopes": ["a\nb"]}),
        ("keys that are none", "answers/find", {"keys": ["../../x"]}),
        ("claims that are none", "claims", {"keys": ["zz"], "seconds": 5}),
        ("a token of odd name", "tokens", {"name": "a\nb", "user": "x", "scopes": ["ask"]}),
        ("a token of odd user", "tokens", {"name": "a", "user": "x@2026-11-22", "scopes": ["ask"]}),
        ("a token of odd scope", "tokens", {"name": "a", "user": "x", "scopes": ["root"]}),
        ("a token for ever", "tokens", {"name": "a", "user": "x", "scopes": ["ask"], "days": 10**9}),
        ("a waiver without a word", "waivers", {"terms_ids": [], "rules": [], "reason": "", "evidence": ""}),
        (
            "a waiver at a file",
            "waivers",
            {"terms_ids": ["x"], "rules": ["R01"], "reason": "x", "evidence": "/etc/passwd", "until": "2027-01-01"},
        ),
        ("a question elsewhere", "audit/..%2f..%2fjournal", {"parameters": {}}),
        ("a question nobody asks", "audit/nobody", {"parameters": {}}),
        ("a question with SQL", "audit/released-students", {"parameters": {"provider'; drop": "x"}}),
    ):
        body = json.dumps(told).encode()
        yield _plain(f"{where}: {name}", body, *FOURS, path=f"/api/v1/{where}", admin=True)
    for scope in ("", "everything", "user:", "user:a\nb", "corpus@2026-11-22", "run:nobody"):
        body = json.dumps({"scope": scope, "per": "total", "caps": {"microusd": 5}}).encode()
        yield _plain(f"a cap on {scope!r}", body, *FOURS, method="PUT", path="/api/v1/budgets", admin=True)
    for path in (
        "leases/../x",
        "leases/1%27",
        "leases/99999999999999999999999/renew",
        "leases/-1/return",
        "runs/x/cancel",
    ):
        yield _plain(f"POST {path}", b'{"seconds":5,"calls":[]}', *FOURS, path=f"/api/v1/{path}", admin=True)
    for path in (
        "events?since=x",
        "events?since=-1",
        "events?since=" + "9" * 30,
        "runs?limit=-1",
        "runs?limit=999999999",
        "runs?before=%27",
        "decisions?limit=x",
        "query/schema?table=../../x",
        "records/zz",
        "records/zz/why",
        "students/..%2f..%2fx",
        "datasets/%3Cscript%3E",
        "terms/..%2f..%2fetc%2fpasswd",
        "runs/nobody/events",
    ):
        yield Attack(name=f"GET {path}", method="GET", path=f"/api/v1/{path}", status=FOURS, admin=True)
    yield Attack(
        name="events after nonsense",
        method="GET",
        path="/api/v1/events",
        status=FOURS,
        admin=True,
        headers=(("Last-Event-ID", "../../x"),),
    )


def files() -> Iterator[Attack]:
    """Files and batches, as official clients send them and as nobody does."""
    fine = (200, *FOURS)  # a name is only a name: taken as text, or refused
    line = '{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{}}\n'
    for name in (
        "../../../../etc/cron.d/evil",
        "/etc/passwd",
        "<script>alert(1)</script>.jsonl",
        "a\\..\\b.jsonl",
        "x" * 5_000,
        "a%00b.jsonl",
        ".hidden",
        "con.jsonl",
        "\u202etxt.jsonl",
    ):
        yield Attack(
            name=f"a file called {name[:30]!r}",
            path="/v1/files",
            headers=_FORM,
            status=fine,
            body=_multipart({"purpose": "batch"}, name, line),
        )
    body = _multipart({"purpose": "batch"}, "a.jsonl", line)
    for name, changed, told in (
        ("without an end", body[:-20], _FORM),
        ("without a boundary", body, (("Content-Type", "multipart/form-data"),)),
        ("with another boundary", body, (("Content-Type", "multipart/form-data; boundary=other"),)),
        ("with a huge boundary", body, (("Content-Type", "multipart/form-data; boundary=" + "b" * 2_000),)),
        ("of no purpose", _multipart({}, "a.jsonl", line), _FORM),
        ("of odd purpose", _multipart({"purpose": "evil"}, "a.jsonl", line), _FORM),
        ("for the assistants", _multipart({"purpose": "assistants"}, "a.jsonl", line), _FORM),
        ("as JSON", b'{"file":"/etc/passwd"}', ()),
        ("at an address", _multipart({"purpose": "batch", "url": SPY}, None, ""), _FORM),
        ("of many parts", b"".join(b"--b\r\n\r\n\r\n" for _ in range(5_000)) + b"--b--\r\n", _FORM),
    ):
        yield Attack(name=f"a file {name}", path="/v1/files", headers=told, body=changed, status=FOURS)
    for given in (
        {"input_file_id": "../../etc/passwd", "endpoint": "/v1/chat/completions", "completion_window": "24h"},
        {"input_file_id": "file-nobody", "endpoint": SPY, "completion_window": "24h"},
        {"input_file_id": ["x"], "endpoint": "/v1/chat/completions", "completion_window": "24h"},
        {"input_file_id": "file-nobody", "endpoint": "/api/v1/tokens", "completion_window": "24h"},
        {"webhook": SPY},
        {},
    ):
        yield _plain(f"a batch {json.dumps(given)[:50]}", json.dumps(given).encode(), *FOURS, path="/v1/batches")
    for requests in (
        None,
        [],
        [{"custom_id": "a"}],
        [{"custom_id": "a\nb", "params": json.loads(chat(model="claude-mock"))}],
        [{"custom_id": "x" * 100_000, "params": {}}],
        [{"custom_id": "a", "params": {"model": "claude-mock", "stream": True}}] * 2,
    ):
        body = json.dumps({"requests": requests}).encode()
        yield _plain(f"a batch of messages {body[:60]!r}", body, *FOURS, path="/v1/messages/batches")
    for path in (
        "files/..%2f..%2fetc",
        "files/nobody/content",
        "batches/nobody",
        "batches/%27",
        "messages/batches/nobody",
    ):
        yield Attack(name=f"GET {path}", method="GET", path=f"/v1/{path}", status=FOURS)


_FORM: Final = (("Content-Type", "multipart/form-data; boundary=b"),)


_STARS: Final = {
    "name in 5000 digits": ("name*" + "5" * 5_000 + '="file"', "; boundary=b"),
    "filename in 5000 digits": ('name="file"; filename*' + "5" * 5_000 + '="x"', "; boundary=b"),
    "filename in pieces": ('name="file"; filename*0="x"; filename*=utf-8\'\'y', "; boundary=b"),
    "filename in no character set": ("name=\"file\"; filename*=utf-9''%ff", "; boundary=b"),
    "filename in zlib": ("name=\"file\"; filename*=zlib''%ff", "; boundary=b"),
    "boundary in 5000 digits": ('name="file"', "; boundary*" + "5" * 5_000 + "=b"),
    "boundary in pieces and in a character set": ('name="file"', "; boundary*0=b; boundary*=utf-8''b"),
}


def stars() -> Iterator[Attack]:
    """Forms whose parameters are said as RFC 2231 has it, and as nobody should."""
    for name, (told, boundary) in _STARS.items():
        form = f"--b\r\nContent-Disposition: form-data; {told}\r\n\r\n{{}}\r\n"
        form += '--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--b--\r\n'
        kind = (("Content-Type", f"multipart/form-data{boundary}"),)
        yield Attack(name=f"a form's {name}", path="/v1/files", headers=kind, body=form.encode(), status=(400,))


def _multipart(fields: Mapping[str, str], name: str | None, content: str) -> bytes:
    parts = [f'--b\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{text}\r\n' for key, text in fields.items()]
    if name is not None:
        told = f'Content-Disposition: form-data; name="file"; filename="{name}"'
        parts.append(f"--b\r\n{told}\r\nContent-Type: application/jsonl\r\n\r\n{content}\r\n")
    return ("".join(parts) + "--b--\r\n").encode()


def pages() -> Iterator[Attack]:
    """What is sent to the console."""
    form = (("Content-Type", "application/x-www-form-urlencoded"),)
    for path, body in (
        ("login", b"token=cg_nobody"),
        ("login", b"token=%3Cscript%3Ealert(1)%3C%2Fscript%3E"),
        ("login", b"token=a&token=b"),
        ("login", b"%ff%fe=%zz&&&===="),
        ("login", b"\xff\xfe"),
        ("login", b"&".join(b"f%d=1" % at for at in range(5_000))),
        ("logout", b"guard=x"),
        ("theme", b"theme=dark"),
        ("budgets", b"scope=corpus&usd=1000000"),
        ("tokens", b"name=evil&user=root&scope=admin"),
        ("start", b"task=..%2f..%2fetc%2fpasswd"),
        ("query", b"sql=select+1"),
        ("rights/waivers", b"reason=x"),
        ("tokens/tok-1/revoke", b"guard="),
    ):
        yield _plain(f"form {path}: {body[:30]!r}", body, *FOURS, path=f"/console/{path}", headers=form, admin=True)
    yield _plain("a form as JSON", b'{"token":"x"}', *FOURS, path="/console/login")
    yield _plain("a form as text", b"token=x", *FOURS, path="/console/login", headers=(("Content-Type", "text/plain"),))
    for path in (
        "records/%3Cscript%3Ealert(1)%3C%2Fscript%3E",
        "records/..%2f..%2fjournal.sqlite",
        "runs/%3Cimg%20src=x%20onerror=alert(1)%3E",
        "datasets/..%2f..%2fetc",
        "audit/..%2f..%2fjournal",
        "audit/%3Cscript%3Ealert(1)%3C%2Fscript%3E",
        "rights/terms/..%2f..%2fetc%2fpasswd",
        "static/0/..%2f..%2f..%2fapp.py",
        "static/0/%3Cscript%3E",
        "students/%3Cscript%3Ealert(1)%3C%2Fscript%3E",
        "start/plan?task=..%2f..%2f..%2fetc%2fpasswd",
        "records?q=%3Cscript%3Ealert(1)%3C%2Fscript%3E&nonsense=1",
        "nowhere/%3Cscript%3Ealert(1)%3C%2Fscript%3E",
    ):
        yield Attack(name=f"page {path}", method="GET", path=f"/console/{path}", status=FOURS, admin=True)


def harmless() -> Iterator[Attack]:
    """What looks bad and is only text: it is asked, and stored as it is."""
    texts = (
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "'; drop table records; --",
        "{{7*7}} ${7*7} <%= 7*7 %>",
        "../../../../etc/passwd",
        "=cmd|' /C calc'!A0",
        "\u202egpj.exe\u0000"[:-1],
        "\x1b]0;owned\x07\x1b[2J",
        "line\r\nSet-Cookie: evil=1\r\n\r\n",
        "time=2026-01-01T00:00:00Z event=request status=200 user=root",
        SPY,
    )
    for text in texts:
        yield Attack(
            name=f"as a prompt: {text[:30]!r}",
            body=chat(messages=[{"role": "user", "content": text}]),
            status=(200,),
            asks=True,
        )
    yield Attack(
        name="User-Agent of a terminal",
        method="GET",
        path="/healthz",
        status=(200,),
        headers=(("User-Agent", "x event=forged user=root"),),
    )
    yield Attack(
        name="Referer with markup",
        method="GET",
        path="/healthz",
        status=(200,),
        headers=(("Referer", "http://evil.example/<script>"),),
    )


def slow() -> Iterator[Attack]:
    """Whoever sends a little and then nothing."""
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\n"
    told = b"Authorization: Bearer {token}\r\nContent-Type: application/json\r\n"
    yield Attack(name="headers that never end", raw=head, status=())
    yield Attack(name="half a request line", raw=b"POST /v1/ch", status=())
    yield Attack(name="nothing at all", raw=b"", status=())
    yield Attack(name="a body that never comes", raw=head + told + b"Content-Length: 100\r\n\r\n", status=(408,))
    yield Attack(name="half a body", raw=head + told + b'Content-Length: 100\r\n\r\n{"model":', status=(408,))
    yield Attack(
        name="chunks that never end", raw=head + told + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n", status=(408,)
    )
    yield Attack(name="half a chunk", raw=head + told + b"Transfer-Encoding: chunked\r\n\r\nff\r\n{}", status=(408,))


FAMILIES: Final[Mapping[str, tuple[Attack, ...]]] = {
    family.__name__: tuple(family())
    for family in (tokens, hosts, forms, bodies, fields, addresses, headers, api, files, stars, pages, harmless, slow)
}
COUNT: Final = sum(map(len, FAMILIES.values()))
