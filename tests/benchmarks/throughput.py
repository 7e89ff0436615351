"""What a fresh record costs: ``python tests/benchmarks/throughput.py [--json] [--full] [--curator PYTHON]``.

Every client asks the same loopback server (50 ms latency, answers of 50 tokens) for the same prompts of about 100
tokens, 256 at a time, in a process of its own, one client after the other. A figure is the processor time of that
process, its threads and children, per prompt, from after one warm-up call, which brings imports and the first
connection. ``aiohttp`` and ``openai_sdk`` read the answer and store nothing; ``corpusgen`` is ``corpusgen.generate`` on
a new corpus under a cap in dollars: reserved, answer stored, record with provenance, Parquet committed, corpus closed.
The cache that corpora share is off, as diskcache's part of it is not ours to make faster; ``cpu_ms_shared_cache`` has
it on. Figures are medians of runs that alternate; ratios are of these, at 10 000 prompts; ``ratio_aiohttp_2k`` and
``ratio_openai_sdk_2k`` are at 2 000, where what a run costs at its beginning weighs more, and ``ratio_aiohttp_cold``
there counts everything from the start of the process. The SDK is asked with its default client, as its users get it.
``ratio_curator`` is at 2 000 and needs a Python that has bespokelabs-curator; ``ratio_curator_cold`` counts everything
from the start of both processes.

``overhead_p99_ms``: 1 000 calls in flight to a server that takes 1 s on average, between 0.5 and 1.5 s by the number of
the prompt (were it always 1 s, a thousand answers would come at once, and the figure would be how long a thousand
take); the latency of a call as the caller sees it (from asking for money to the record in hand, answer durable) less
what the server took by plan, at the 99th percentile of 10 000 calls, the first 2 000 left out, in which connections are
made and the start spreads out. It is wall time: on a busy machine it says how busy.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

IN_FLIGHT = 256
LATENCY_S = 0.05
MODEL = "mock-teacher"
TEXT = (
    "explain the difference between soft targets and hard labels when a small student model is trained from a large"
    " teacher and name the budget the licence the cache key and the number of tokens that each answer may use"
)
WORDS = TEXT.split()


def prompt(at: int) -> str:
    """About 100 tokens, distinct, with a mark the answer must bring back."""
    return f"REQ{at:08d} " + " ".join(WORDS[(at * 7 + n * (1 + at % 5)) % len(WORDS)] for n in range(85))


def body(text: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {"model": MODEL, "messages": messages, "max_tokens": 64, "temperature": 0.7}


# --- the server -------------------------------------------------------------------------------------------------------

_TEXT = "REQ00000000" + "".join(f" {WORDS[at % len(WORDS)]}" for at in range(50))
_DETAILS = {"reasoning_tokens": 0, "audio_tokens": 0, "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0}
_REPLY = json.dumps(
    {
        "id": "chatcmpl-REQ00000000",
        "object": "chat.completion",
        "created": 1790000000,
        "model": MODEL,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": _TEXT, "refusal": None, "annotations": []},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 100,
            "completion_tokens": 50,
            "total_tokens": 150,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": _DETAILS,
        },
        "service_tier": "default",
        "system_fingerprint": "fp_mock",
    }
).encode()
_WHOLE = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nx-request-id: REQ00000000\r\nContent-Length: %d\r\n\r\n"
    % len(_REPLY)
) + _REPLY


def varied_s(number: int) -> float:
    """How long the answer to a prompt takes where not all take the same."""
    return 0.5 + number * 7_919 % 1_000 / 1_000


class Answering:
    """Everything that is to be answered, in order, with one timer for all of it; 0 is a latency for each prompt."""

    def __init__(self, latency_s: float) -> None:
        self.latency_s = latency_s
        self.due: deque[tuple[float, asyncio.Transport, bytes]] = deque()
        self.loop = asyncio.get_running_loop()

    def add(self, transport: asyncio.Transport, answer: bytes, mark: bytes) -> None:
        if not self.latency_s:
            self.loop.call_later(varied_s(int(mark[3:])), transport.write, answer)
            return
        if not self.due:
            self.loop.call_later(self.latency_s, self.answer)
        self.due.append((self.loop.time() + self.latency_s, transport, answer))

    def answer(self) -> None:
        now = self.loop.time()
        while self.due and self.due[0][0] <= now + 0.0005:
            _, transport, answer = self.due.popleft()
            transport.write(answer)
        if self.due:
            self.loop.call_at(self.due[0][0], self.answer)


class Connection(asyncio.Protocol):
    """One keep-alive connection; reads as much HTTP as these clients speak."""

    def __init__(self, answering: Answering) -> None:
        self.answering = answering
        self.received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        while (end := self.received.find(b"\r\n\r\n")) >= 0:
            head = self.received[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self.received) < end + 4 + length:
                return
            asked, self.received = self.received[end + 4 : end + 4 + length], self.received[end + 4 + length :]
            mark = asked[(found := asked.find(b"REQ")) : found + 11] if b"REQ" in asked else b"REQ99999999"
            self.answering.add(self.transport, _WHOLE.replace(b"REQ00000000", mark), mark)


async def serve(latency_s: float) -> None:
    """Answer until stdin is closed; the port is the first line of stdout."""
    loop = asyncio.get_running_loop()
    answering = Answering(latency_s)
    server = await loop.create_server(lambda: Connection(answering), "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


@contextmanager
def serving(latency_s: float) -> Iterator[str]:
    """The base URL of a server in a process of its own."""
    command = [sys.executable, __file__, "--serve", str(latency_s)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            yield f"http://127.0.0.1:{server.stdout.readline().strip()}/v1"
        finally:
            server.stdin.close()


# --- the clients, each in its own process -----------------------------------------------------------------------------

Client = Callable[[str, range, Path], Awaitable[int]]
"""Asks for the prompts of a range and gives back how many were answered."""


async def in_flight(one: Callable[[str], Awaitable[str | None]], numbers: range) -> int:
    """So many workers over the prompts; how many answers came back to the right question."""
    left, right = iter(numbers), 0

    async def worker() -> None:
        nonlocal right
        for at in left:
            text = prompt(at)
            answer = await one(text)
            right += (answer or "").startswith(text[:11])

    await asyncio.gather(*(worker() for _ in range(min(IN_FLIGHT, len(numbers)))))
    return right


async def with_aiohttp(url: str, runs: list[range], folder: Path) -> list[int]:
    import aiohttp

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, headers={"Authorization": "Bearer x"}) as session:

        async def one(text: str) -> str | None:
            async with session.post(f"{url}/chat/completions", json=body(text)) as response:
                response.raise_for_status()
                content: str = json.loads(await response.read())["choices"][0]["message"]["content"]
                return content

        return [await counted(in_flight(one, numbers)) for numbers in runs]


async def with_openai_sdk(url: str, runs: list[range], folder: Path) -> list[int]:
    from openai import AsyncOpenAI

    async with AsyncOpenAI(base_url=url, api_key="x") as client:

        async def one(text: str) -> str | None:
            answer: Any = await client.chat.completions.create(**body(text))
            return str(answer.choices[0].message.content)

        return [await counted(in_flight(one, numbers)) for numbers in runs]


async def with_corpusgen(url: str, runs: list[range], folder: Path) -> list[int]:
    return [await counted(corpusgen_run(url, numbers, folder / str(at))) for at, numbers in enumerate(runs)]


async def corpusgen_run(url: str, numbers: range, folder: Path) -> int:
    import corpusgen

    task, right = folder / "task.yaml", 0
    with corpusgen.Corpus.open(folder / "corpus") as corpus:
        async with corpusgen.generate(task, corpus) as records:
            async for record in records:
                right += record.response.startswith(record.input[:11])
    return right


def write_task(folder: Path, url: str, numbers: range, in_flight: int = IN_FLIGHT) -> None:
    """A priced task over these prompts."""
    folder.mkdir()
    rows = (json.dumps({"id": f"p{at}", "text": prompt(at)}) + "\n" for at in numbers)
    (folder / "prompts.jsonl").write_text("".join(rows))
    (folder / "prompt.md").write_text("---\nname: p\nlicence: Apache-2.0\ninputs: [text]\n---\nuser:\n{text}\n")
    teacher = {
        "name": f"endpoint/{MODEL}",
        "base_url": url,
        "provider": "corpusgen",
        "route": "mock",
        "in_flight": in_flight,
        "parameters": {"max_tokens": 64, "temperature": 0.7},
        "price": {"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 2.0, "source": "made up"},
    }
    spec = {
        "name": "bench",
        "prompt": "prompt.md",
        "input": "text",
        "kind": "response",
        "intended_use": {"student_distribution": "internal", "student_competes": "no", "commercial": False},
        "sources": [{"id": "bench", "title": "Benchmark", "licence": "CC0-1.0"}],
        "seeds": {"train": {"path": "prompts.jsonl", "source": "bench"}},
        "asking": {"order": "file", "limit": len(numbers)},
        "budget": {"usd": 1000},
        "teachers": [teacher],
    }
    (folder / "task.yaml").write_text(json.dumps(spec))


CLIENTS = {"aiohttp": with_aiohttp, "openai_sdk": with_openai_sdk, "corpusgen": with_corpusgen}

_USED: list[float] = []


def processor_s() -> float:
    """Processor time of this process, its threads and its children so far."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


async def counted(work: Awaitable[int]) -> int:
    before = processor_s()
    done = await work
    _USED.append(processor_s() - before)
    return done


def peak_mb() -> float:
    """The most memory this process had; what ``getrusage`` says begins with that of the process that started it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


async def child(client: str, url: str, count: int, folder: Path) -> dict[str, float]:
    """Run one client: the warm-up call, then the rest."""
    runs = [range(90_000_000, 90_000_001), range(count)]
    if client == "corpusgen":
        for at, numbers in enumerate(runs):
            write_task(folder / str(at), url, numbers)
    prepared, began = processor_s(), time.perf_counter()
    right = (await CLIENTS[client](url, runs, folder))[-1]
    return {
        "cpu_ms": _USED[-1] / count * 1000,
        "cold_ms": (processor_s() - prepared) / count * 1000,
        "wall_s": time.perf_counter() - began,
        "lost": count - right,
        "mb": peak_mb(),
    }


async def overhead(url: str, folder: Path) -> dict[str, float]:
    """The 99th percentile of what a call takes beyond the server's latency, 1 000 in flight."""
    from corpusgen import generate
    from corpusgen.corpus import Corpus
    from corpusgen.fanout import stream
    from corpusgen.fanout.asker import Asker
    from corpusgen.prompting.prompts import Prompt
    from corpusgen.records import Record

    took: list[float] = []
    whole = stream._answer

    async def timed(asker: Asker, prompt: Prompt) -> Record | None:
        began = time.perf_counter()
        record = await whole(asker, prompt)
        took.append(time.perf_counter() - began - varied_s(int(prompt.item.input[3:11])))
        return record

    stream._answer = timed
    write_task(folder / "0", url, range(10_000), 1_000)
    with Corpus.open(folder / "corpus") as corpus:
        async with generate(folder / "0" / "task.yaml", corpus) as records:
            lost = 10_000 - len([None async for _ in records])
    steady = sorted(took[2_000:])
    return {"p50": steady[len(steady) // 2] * 1000, "p99": steady[len(steady) * 99 // 100] * 1000, "lost": lost}


_CURATOR = """
import json, os, resource, sys
os.environ |= {"CURATOR_CACHE_DIR": sys.argv[1], "TELEMETRY_ENABLED": "false", "CURATOR_DISABLE_RICH_DISPLAY": "1",
    "OPENAI_API_KEY": "x", "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
from bespokelabs import curator
from datasets import Dataset
class Asking(curator.LLM):
    def prompt(self, row): return row["text"]
    def parse(self, row, answer): return {"text": row["text"], "answer": answer}
rows = [json.loads(line) for line in open(sys.argv[3])]
limits = {"max_requests_per_minute": 10**6, "max_tokens_per_minute": 10**9, "base_url": sys.argv[2]}
asking = Asking(model_name="mock-teacher", backend="openai", generation_params={"max_tokens": 64, "temperature": 0.7},
    backend_params=limits | {"max_concurrent_requests": 256})
def used():
    return sum(part.ru_utime + part.ru_stime for part in map(resource.getrusage, (resource.RUSAGE_SELF,
        resource.RUSAGE_CHILDREN)))
before = used()
done = asking(Dataset.from_list(rows))
done = getattr(done, "dataset", done)
right = sum(row["answer"].startswith(row["text"][:11]) for row in done)
cold, asked = used(), used() - before
print(json.dumps({"cpu_ms": asked / len(rows) * 1000, "cold_ms": cold / len(rows) * 1000, "lost": len(rows) - right}))
"""


def curator_run(python: str | None, url: str, count: int) -> dict[str, float] | None:
    """Processor time of curator per prompt in a Python of its own; None, with the reason on stderr, without one."""
    if python is None:
        print("curator: not measured; name a Python that has bespokelabs-curator with --curator", file=sys.stderr)
        return None
    with tempfile.TemporaryDirectory() as folder:
        write_task(Path(folder) / "0", url, range(count))
        command = [python, "-c", _CURATOR, folder, url, str(Path(folder) / "0" / "prompts.jsonl")]
        sys.path.append(str(Path(__file__).parents[1]))
        from token_table import put_token_table  # which curator would fetch from the network

        table = {"TIKTOKEN_CACHE_DIR": str(put_token_table(Path(folder)))}
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | table)
    if done.returncode:
        print(f"curator: not measured: {done.stderr.strip()[-500:]}", file=sys.stderr)
        return None
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


# --- measuring --------------------------------------------------------------------------------------------------------


def in_process(client: str, url: str, count: int, cache: str = "off") -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        shared = cache if cache == "off" else str(Path(folder) / "shared")
        done = subprocess.run(
            [sys.executable, __file__, "--child", client, url, str(count), folder],
            check=True,
            stdout=subprocess.PIPE,
            env=os.environ | {"CORPUSGEN_CACHE": shared, "CORPUSGEN_SIGNING_KEY": str(Path(folder) / "signing.pem")},
        )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def medians(clients: list[str], url: str, count: int, repeats: int) -> dict[str, dict[str, float]]:
    """Each client's medians over runs that alternate."""
    runs = [{client: in_process(client, url, count) for client in clients} for _ in range(repeats)]
    return {
        client: {name: statistics.median(run[client][name] for run in runs) for name in runs[0][client]}
        for client in clients
    }


def measure(repeats: int, curator: str | None) -> dict[str, float | None]:
    with serving(LATENCY_S) as url:
        many = medians(["aiohttp", "corpusgen", "openai_sdk"], url, 10_000, repeats)
        few = medians(["aiohttp", "corpusgen", "openai_sdk"], url, 2_000, repeats)
        shared = in_process("corpusgen", url, 10_000, cache="on")
        theirs = curator_run(curator, url, 2_000)
    with serving(0) as url:
        slow = in_process("overhead", url, 1)
    ours, floor = many["corpusgen"], many["aiohttp"]
    return {
        "cpu_ms_corpusgen": round(ours["cpu_ms"], 3),
        "cpu_ms_aiohttp": round(floor["cpu_ms"], 3),
        "cpu_ms_openai_sdk": round(many["openai_sdk"]["cpu_ms"], 3),
        "cpu_ms_shared_cache": round(shared["cpu_ms"], 3),
        "cpu_ms_curator": None if theirs is None else round(theirs["cpu_ms"], 3),
        "ratio_aiohttp": round(ours["cpu_ms"] / floor["cpu_ms"], 2),
        "ratio_aiohttp_2k": round(few["corpusgen"]["cpu_ms"] / few["aiohttp"]["cpu_ms"], 2),
        "ratio_aiohttp_cold": round(few["corpusgen"]["cold_ms"] / few["aiohttp"]["cold_ms"], 2),
        "ratio_openai_sdk": round(many["openai_sdk"]["cpu_ms"] / ours["cpu_ms"], 2),
        "ratio_openai_sdk_2k": round(few["openai_sdk"]["cpu_ms"] / few["corpusgen"]["cpu_ms"], 2),
        "ratio_curator": None if theirs is None else round(theirs["cpu_ms"] / few["corpusgen"]["cpu_ms"], 2),
        "ratio_curator_cold": None if theirs is None else round(theirs["cold_ms"] / few["corpusgen"]["cold_ms"], 2),
        "lost": round(sum(run["lost"] for run in (ours, few["corpusgen"], shared, slow))),
        "mb_at_10k": round(ours["mb"], 1),
        "wall_s_at_10k": round(ours["wall_s"], 2),
        "overhead_p50_ms": round(slow["p50"], 1),
        "overhead_p99_ms": round(slow["p99"], 1),
        "runs": repeats,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--full", action="store_true", help="five runs of each instead of three")
    parser.add_argument("--curator", metavar="PYTHON", help="a Python that has bespokelabs-curator installed")
    parser.add_argument("--serve", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.serve is not None:
        asyncio.run(serve(chosen.serve))
        return
    if chosen.child:
        client, url, count, name = chosen.child
        folder = Path(name)
        running = overhead(url, folder) if client == "overhead" else child(client, url, int(count), folder)
        print(json.dumps(asyncio.run(running)))
        return
    found = measure(5 if chosen.full else 3, chosen.curator)
    if chosen.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:<24} {'-' if value is None else format(value, ','):>12}")


if __name__ == "__main__":
    main()
