from __future__ import annotations

import asyncio
import json
import resource
import signal
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from serve_samples import CHAT, USE, Child, mock_child, new_token, served, served_by_child

from corpusgen.budget.ledger import balances
from corpusgen.corpus import Corpus
from corpusgen.store.manifest import read_manifest

PATIENCE_S = 60.0


@contextmanager
def _service(folder: Path, *options: str, latency_ms: int = 0) -> Iterator[tuple[Child, str]]:
    """A service as a process of its own with a mock upstream; and the mock's address."""
    with mock_child("--latency-ms", str(latency_ms)) as mock:
        (folder / "corpus").mkdir(parents=True, exist_ok=True)
        (folder / "corpus" / "service.yaml").write_text(_config(mock["base_url"]))
        with served_by_child(folder / "corpus", *options) as child:
            yield child, mock["anthropic_base_url"]


def _config(base_url: str) -> str:
    return f"""\
{USE}
budget: {{usd: 5}}
teachers:
  - name: endpoint/mock-model
    model: gpt-mock
    base_url: {base_url}
    provider: corpusgen
    route: mock
    price: {{input_usd_per_mtok: "1", output_usd_per_mtok: "4", source: mock teacher}}
    parameters: {{max_tokens: 64}}
"""


def _ask(url: str, **changed: Any) -> tuple[int, bytes]:
    """A chat, from a thread; 0 where the connection is refused or cut."""
    body = json.dumps(CHAT | changed).encode()
    request = urllib.request.Request(f"{url}/v1/chat/completions", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as got:
            return got.status, got.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError:
        return 0, b""


def _bill(origin: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{origin}/bill", timeout=PATIENCE_S) as got:
        found = json.loads(got.read())
    assert isinstance(found, dict)
    return found


def _figures(corpus: Path) -> dict[str, int]:
    with Corpus.open(corpus) as opened:
        (at,) = [at for at in balances(opened.journal, ["corpus"]) if at.unit == "microusd"]
    return {"settled": at.settled, "promised": at.promised, "unconfirmed": at.unconfirmed}


class Asking(threading.Thread):
    """Somebody who waits for an answer."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url, self.got = url, (0, b"")
        self.start()

    def run(self) -> None:
        self.got = _ask(self.url)

    def end(self) -> int:
        self.join(PATIENCE_S)
        return self.got[0]


def _until_asked(origin: str, log: Path) -> None:
    """Wait until the mock has heard of a request."""
    end = time.monotonic() + PATIENCE_S
    while not _bill(origin)["requests"]:
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.02)


def test_a_service_that_is_told_to_end_finishes_what_is_under_way_and_makes_shards(tmp_path: Path) -> None:
    with _service(tmp_path, latency_ms=1_500) as (child, origin):
        asking = Asking(child.url)
        _until_asked(origin, child.log)
        assert child.end(signal.SIGTERM) == 0
        assert asking.end() == 200
        assert _figures(tmp_path / "corpus") == {
            "settled": _bill(origin)["billed_microusd"],
            "promised": 0,
            "unconfirmed": 0,
        }
    assert sum(shard.rows for shard in read_manifest(tmp_path / "corpus").shards) == 1
    assert "event=stopping signal=SIGTERM" in child.log.read_text()


def test_ctrl_c_ends_with_130_and_what_was_answered_is_kept(tmp_path: Path) -> None:
    with _service(tmp_path) as (child, _):
        assert _ask(child.url)[0] == 200
        assert child.end(signal.SIGINT) == 130
    with _service(tmp_path) as (child, origin):
        assert _ask(child.url)[0] == 200
        assert _bill(origin)["requests"] in (0, 1)  # another mock: another origin, so another request
        assert child.end() == 0


def test_what_takes_longer_than_the_grace_is_booked_as_unknown(tmp_path: Path) -> None:
    with _service(tmp_path, "--grace", "0.2", latency_ms=30_000) as (child, origin):
        asking = Asking(child.url)
        _until_asked(origin, child.log)
        assert child.end(signal.SIGTERM) == 0
        assert asking.end() in (0, 503)
        figures = _figures(tmp_path / "corpus")
        assert (figures["settled"], figures["promised"]) == (0, 0)
        assert figures["unconfirmed"] > 0


def test_a_second_signal_does_not_wait(tmp_path: Path) -> None:
    with _service(tmp_path, "--grace", "600", latency_ms=30_000) as (child, origin):
        asking = Asking(child.url)
        _until_asked(origin, child.log)
        child.process.send_signal(signal.SIGINT)
        end = time.monotonic() + PATIENCE_S
        while "event=stopping" not in child.log.read_text():
            assert time.monotonic() < end
            time.sleep(0.02)
        assert child.end(signal.SIGINT) == 130
        assert asking.end() in (0, 503)
        assert _figures(tmp_path / "corpus")["promised"] == 0


def test_killed_in_the_middle_the_next_start_books_what_may_be_owed(tmp_path: Path) -> None:
    with _service(tmp_path, latency_ms=30_000) as (child, origin):
        asking = Asking(child.url)
        _until_asked(origin, child.log)
        assert child.end(signal.SIGKILL) == -signal.SIGKILL
        assert asking.end() == 0
    with _service(tmp_path) as (child, _):
        assert child.end() == 0
    figures = _figures(tmp_path / "corpus")
    assert figures["promised"] == 0
    assert figures["unconfirmed"] > 0


async def test_while_it_stops_nothing_new_is_begun_and_listeners_end(tmp_path: Path) -> None:
    async with served(tmp_path, latency_s=0.5) as s:
        asking = asyncio.create_task(s.post("/v1/chat/completions", CHAT))
        while not s.bill["requests"] and not asking.done():  # noqa: ASYNC110 - nothing else tells of it
            await asyncio.sleep(0.01)
        heard = asyncio.create_task(_listened(s.service.bus))
        stopping = asyncio.create_task(s.stop(grace_s=PATIENCE_S))
        await asyncio.sleep(0)
        with pytest.raises(aiohttp.ClientError):
            async with aiohttp.ClientSession() as another:
                await another.get(f"{s.url}/healthz")
        await stopping
        assert (await asking).status == 200
        await heard
        assert s.bill["requests"] == 1


async def _listened(bus: Any) -> None:
    async for _ in bus.listen():
        pass


async def test_a_connection_that_is_open_already_is_told_that_it_stops(tmp_path: Path) -> None:
    async with served(tmp_path) as s:
        assert (await s.get("/v1/models")).status == 200
        s.service.stopping.set()
        refused = await s.post("/v1/chat/completions", CHAT)
        assert refused.status == 503
        assert refused.header("Retry-After")
        assert refused.json["error"]["type"] == "server_error"
        assert s.bill["requests"] == 0


def test_a_service_may_hold_as_many_files_as_it_takes_connections(tmp_path: Path) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with _service(tmp_path, "--max-connections", "1000") as (child, _):
        held = resource.prlimit(child.process.pid, resource.RLIMIT_NOFILE)[0]
        assert held >= min(2_000, hard)
        assert child.end() == 0


def test_without_jinja2_there_is_no_console_and_it_is_said_how_to_have_one(tmp_path: Path) -> None:
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "jinja2.py").write_text("raise ModuleNotFoundError('no jinja2', name='jinja2')\n")
    config = tmp_path / "service.yaml"
    config.write_text(_config("http://127.0.0.1:9/v1"))
    with served_by_child(tmp_path / "corpus", config=config, PYTHONPATH=str(tmp_path / "without")) as child:
        assert child.told["console"] is None
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{child.url}/console", timeout=PATIENCE_S)
        assert refused.value.code == 404
        refused.value.close()
        assert child.end() == 0
    assert "pip install 'corpusgen-distill[serve]'" in child.log.read_text()
    assert "/console\n" not in child.log.read_text()


def test_two_services_over_one_corpus_share_its_answers(tmp_path: Path) -> None:
    with mock_child() as mock:
        config = tmp_path / "service.yaml"
        config.write_text(_config(mock["base_url"]))
        with (
            served_by_child(tmp_path / "corpus", config=config) as one,
            served_by_child(tmp_path / "corpus", config=config) as other,
        ):
            assert _ask(one.url)[0] == _ask(other.url)[0] == 200
            assert _bill(mock["anthropic_base_url"])["requests"] == 1
            assert one.end() == other.end() == 0


def test_a_service_speaks_tls_and_lets_in_who_has_a_token(tmp_path: Path) -> None:
    cert, key = _certificate(tmp_path)
    with Corpus.open(tmp_path / "corpus") as corpus:
        _, secret = new_token(corpus, "read")
    with _service(tmp_path, "--tls-cert", str(cert), "--tls-key", str(key)) as (child, _):
        url = child.url.replace("127.0.0.1", "localhost")
        assert url.startswith("https://")
        trusted = ssl.create_default_context(cafile=str(cert))
        asked = urllib.request.Request(f"{url}/metrics", headers={"Authorization": f"Bearer {secret}"})
        with urllib.request.urlopen(asked, context=trusted, timeout=PATIENCE_S) as got:
            assert got.status == 200
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{url}/metrics", context=trusted, timeout=PATIENCE_S)
        assert refused.value.code == 401
        refused.value.close()
        assert child.end() == 0


def _certificate(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    cert, private = folder / "cert.pem", folder / "key.pem"
    cert.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return cert, private
