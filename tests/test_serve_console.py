"""The console's pages as a client without a browser sees them, and the functions behind them."""

from __future__ import annotations

import asyncio
import hashlib
import re
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from console_samples import TASKS, converse, looked_at
from hypothesis import given
from hypothesis import strategies as st
from serve_samples import Answer, Served, new_token

from corpusgen.errors import UsageError
from corpusgen.serve.console import queries
from corpusgen.serve.console.browsing import Found, Wanted, browse
from corpusgen.serve.console.charts import Burn, budget_bars, burn_down
from corpusgen.serve.console.forms import caps_in, see, whole_number
from corpusgen.serve.console.messages import answer, sureness, tools, turns
from corpusgen.serve.console.pages import shown
from corpusgen.serve.console.runs import steps
from corpusgen.serve.console.styles import KINDS, address, colours, content
from corpusgen.serve.console.table import operations
from corpusgen.serve.console.watching import first_call_since, look
from corpusgen.serve.statuses import CSP

FORM = "application/x-www-form-urlencoded"


async def _session(running: Served, *scopes: str, **wish: Any) -> dict[str, str]:
    """Headers of a browser that has logged in."""
    secret = new_token(running.corpus, *scopes, **wish)[1]
    running.service.tokens.look_again()
    got = await running.send("POST", "/console/login", data={"token": secret})
    assert got.status == 303
    cookie = got.header("Set-Cookie")
    assert cookie is not None
    return {"Cookie": cookie.partition(";")[0]}


async def _guard(running: Served, headers: dict[str, str], page: str = "/console/about") -> str:
    """What the forms of a session carry."""
    found = re.search(r'name="guard" value="([0-9a-f]{64})"', (await running.send("GET", page, headers=headers)).text)
    assert found is not None
    return found[1]


async def _sent(running: Served, path: str, headers: dict[str, str], **fields: str) -> Answer:
    """A form as a browser sends it from a page of this session."""
    guard = await _guard(running, headers)
    return await running.send("POST", f"/console{path}", headers=headers, data={"guard": guard, **fields})


# --- Who may see and do what -----------------------------------------------------------------------------------------


async def test_no_page_is_shown_to_who_has_not_logged_in(tmp_path: Path) -> None:
    async with looked_at(tmp_path) as running:
        running.token("admin")
        for one in operations():
            if one.scope is None:
                continue
            path = re.sub(r"\{\w+\}", "x1", one.path)
            got = await running.send(one.method, path, headers={"Content-Type": one.takes[0]})
            told = (got.status, got.header("Location"))
            assert told == (303, "/console/login") if one.method == "GET" else got.status == 401, path


async def test_a_token_sees_what_its_scopes_allow(tmp_path: Path) -> None:
    async with looked_at(tmp_path) as running:
        reader = await _session(running, "read")
        home = (await running.send("GET", "/console", headers=reader)).text
        assert "Records" in home
        assert "/console/tokens" not in home
        for path in ("/audit", "/rights", "/tokens", "/start"):
            got = await running.send("GET", f"/console{path}", headers=reader)
            assert got.status == 403
            assert "<h1>Not allowed</h1>" in got.text
        refused = await _sent(running, "/budgets", reader, scope="corpus", usd="1")
        assert refused.status == 403
        assert running.corpus.journal.query("select count(*) from caps where scope = 'corpus'") == [(0,)]


async def test_a_form_from_elsewhere_does_nothing(tmp_path: Path) -> None:
    async with looked_at(tmp_path) as running:
        admin = await _session(running, "admin")
        guard = await _guard(running, admin)
        other = await _guard(running, await _session(running, "admin", name="another"))
        wish = {"scope": "corpus", "usd": "1"}
        for headers, fields in (
            (admin, wish),
            (admin, wish | {"guard": "0" * 64}),
            (admin, wish | {"guard": other}),
            (admin | {"Origin": "https://evil.example"}, wish | {"guard": guard}),
            (admin | {"Origin": "null"}, wish | {"guard": guard}),
            (admin | {"Sec-Fetch-Site": "cross-site"}, wish | {"guard": guard}),
        ):
            got = await running.send("POST", "/console/budgets", headers=headers, data=fields)
            assert got.status == 403
        assert running.corpus.journal.query("select count(*) from caps where scope = 'corpus'") == [(0,)]


async def test_long_questions_of_one_reader_hold_up_no_page_and_tell_nothing_of_decisions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "SECONDS", 1)
    async with looked_at(tmp_path) as running:
        reader = await _session(running, "read")
        assert "decisions does not exist" in (await _sent(running, "/query", reader, sql="from decisions")).text
        guard = await _guard(running, reader)
        fields = {
            "guard": guard,
            "sql": "select count(*) from range(100000000000) a, range(1000) b where a.range = b.range",
        }
        asked = [
            asyncio.create_task(running.send("POST", "/console/query", headers=reader, data=fields)) for _ in range(4)
        ]
        await asyncio.sleep(0.2)
        for page in ("/console/runs", "/console/records", "/console/budgets"):
            assert (await running.send("GET", page, headers=reader)).status == 200
        assert not any(one.done() for one in asked)
        assert {got.status for got in await asyncio.gather(*asked)} == {400}


async def test_a_wrong_token_is_not_let_in_and_a_right_one_gets_a_cookie_no_script_reads(tmp_path: Path) -> None:
    async with looked_at(tmp_path) as running:
        secret = running.token("read")
        running.service.tokens.look_again()
        wrong = await running.send("POST", "/console/login", data={"token": "cg_" + "A" * 43})
        assert wrong.status == 403
        assert wrong.header("Set-Cookie") is None
        right = await running.send("POST", "/console/login", data={"token": f"  {secret} "})
        cookie = str(right.header("Set-Cookie"))
        assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= {part.strip() for part in cookie.split(";")}
        assert secret not in cookie


async def test_a_revoked_token_ends_its_sessions(tmp_path: Path) -> None:
    async with looked_at(tmp_path) as running:
        admin = await _session(running, "admin", name="first")
        guest = await _session(running, "read", name="guest")
        (named,) = running.corpus.journal.query("select token_id from tokens where name = 'guest'")[0]
        assert (await _sent(running, f"/tokens/{named}/revoke", admin)).status == 303
        assert (await running.send("GET", "/console/records", headers=guest)).header("Location") == "/console/login"


async def test_a_secret_is_shown_once(tmp_path: Path) -> None:
    async with looked_at(tmp_path) as running:
        admin = await _session(running, "admin", name="first")
        made = await _sent(running, "/tokens", admin, name="reports", user="bob", scope_read="1", days="7", usd="2")
        (secret,) = re.findall(r"cg_[A-Za-z0-9_-]{43}", made.text)
        assert secret not in (await running.send("GET", "/console/tokens", headers=admin)).text
        assert (await running.get("/api/v1/budgets", token=secret)).status == 200
        caps = running.corpus.journal.query("select unit, cap from caps where scope glob 'token:*'")
        assert caps == [("microusd", 2_000_000)]


async def test_whoever_has_logged_out_is_out(tmp_path: Path) -> None:
    async with looked_at(tmp_path) as running:
        reader = await _session(running, "read")
        assert (await _sent(running, "/logout", reader)).header("Location") == "/console/login"
        assert (await running.send("GET", "/console", headers=reader)).header("Location") == "/console/login"


# --- Pages -----------------------------------------------------------------------------------------------------------


async def test_every_page_forbids_what_it_does_not_need(tmp_path: Path) -> None:
    async with looked_at(tmp_path) as running:
        for one in operations():
            if one.method == "GET" and "{" not in one.path:
                got = await running.get(one.path)
                assert got.header("Content-Security-Policy") == CSP
                assert got.header("X-Content-Type-Options") == "nosniff"
                assert got.header("Cache-Control") == "no-store"
                assert got.header("Referrer-Policy") == "same-origin"
                assert got.header("Cross-Origin-Resource-Policy") == "same-origin"
                assert got.header("Cross-Origin-Opener-Policy") == "same-origin"


async def test_what_is_not_there_is_told_on_a_page(tmp_path: Path) -> None:
    async with looked_at(tmp_path) as running:
        for path in (
            "/runs/nothing",
            "/students/x",
            "/datasets/x-1",
            "/rights/decisions/7",
            "/audit/q99",
            "/rights/terms/x",
        ):
            got = await running.get(f"/console{path}")
            assert (got.status, "<h1>Not found</h1>" in got.text) == (404, True), path
        for path in ("/records/zz", "/records/0000", "/start/plan?task=../../etc/passwd", "/start/plan?task=&usd=-1"):
            got = await running.get(f"/console{path}")
            assert got.status == 400, path
            assert "<main" in got.text
            assert "Traceback" not in got.text


async def test_a_budget_that_cannot_be_is_told_beside_the_form(tmp_path: Path) -> None:
    async with looked_at(tmp_path) as running:
        got = await _sent(running, "/budgets", {}, scope="corpus", usd="a lot")
        assert got.status == 400
        assert "an amount of dollars" in got.text
        assert 'value="a lot"' in got.text
        assert (await _sent(running, "/budgets", {}, scope="corpus", usd="3", per="day")).status == 303
        assert running.corpus.journal.query("select cap, per, origin from caps where scope = 'corpus'") == [
            (3_000_000, "day", "budget set by local")
        ]
        assert (await _sent(running, "/budgets", {}, scope="corpus", no_usd="1", per="day")).status == 303
        assert running.corpus.journal.query("select 1 from caps where scope = 'corpus'") == []


async def test_a_run_is_planned_first_and_started_as_planned(tmp_path: Path) -> None:
    async with looked_at(tmp_path) as running:
        planned = await running.get(f"/console/start/plan?task={TASKS[1]}&usd=1&limit=5")
        assert "The terms allow it" in planned.text
        assert running.corpus.journal.query("select count(*) from service_runs") == [(0,)]
        started = await _sent(running, "/start", {}, task=TASKS[1], usd="1", limit="5")
        named = str(started.header("Location")).rpartition("/")[2]
        while running.service.runs.find(named).state in ("waiting", "running"):
            await running.get(f"/console/runs/{named}/live")
        assert running.service.runs.find(named).state == "complete"
        page = (await running.get(f"/console/runs/{named}")).text
        assert "complete" in page
        assert ">5<" in page


async def test_a_run_counts_answers_that_were_known_and_shows_what_was_no_use(tmp_path: Path) -> None:
    async with looked_at(tmp_path, trained=True) as running:
        started = await _sent(running, "/start", {}, task=TASKS[0], limit="10")
        named = str(started.header("Location")).rpartition("/")[2]
        while running.service.runs.find(named).state in ("waiting", "running"):
            await running.get(f"/console/runs/{named}/live")
        page = (await running.get(f"/console/runs/{named}")).text
        assert "<dt>Records</dt><dd>22</dd>" in page  # ten, and twelve for validation
        assert "− 6 dropped: exact repeat" in page


async def test_an_answer_is_taken_away_whole(tmp_path: Path) -> None:
    async with looked_at(tmp_path, trained=True) as running:
        got = await running.get("/console/audit/q12/answer.json?dataset=kinds-1")
        assert str(got.header("Content-Disposition")) == 'attachment; filename="q12-generating-models.json"'
        assert sum(row["records"] for row in got.json) == 30
        refused = await running.get("/console/audit/q12?ask=1&dataset=other-1")
        assert refused.status == 400
        assert "no dataset here is called" in refused.text
        assert (await running.get("/console/audit/q20?ask=1&kept=/etc/passwd")).status == 400


async def test_a_dataset_is_taken_away_by_a_form(tmp_path: Path) -> None:
    async with looked_at(tmp_path, trained=True) as running:
        rows = await _sent(running, "/datasets/kinds-1/export", {}, kind="chat", split="train")
        assert len([orjson.loads(line) for line in rows.body.splitlines()]) == 30
        card = await _sent(running, "/datasets/kinds-1/export", {}, kind="card", task=TASKS[0])
        assert card.text.startswith("---\n")
        told = running.corpus.journal.query("select count(*) from events where kind = 'dataset_exported'")
        assert told == [(1,)]


async def test_a_question_in_sql_changes_nothing_and_is_told_what_is_wrong(tmp_path: Path) -> None:
    async with looked_at(tmp_path) as running:
        assert ">42<" in (await _sent(running, "/query", {}, sql="select 6 * 7 as answer")).text
        wrong = await _sent(running, "/query", {}, sql="drop table records")
        assert (wrong.status, "No answer" in wrong.text) == (400, True)
        assert (await _sent(running, "/query", {}, **{"sql": "select 1 as a", "as": "csv"})).text == "a\r\n1\r\n"


# --- Waivers ---------------------------------------------------------------------------------------------------------


async def test_evidence_is_known_by_the_digest_of_its_bytes(tmp_path: Path) -> None:
    letter = bytes(range(256)) * 3 + b"\r\n--not the end\r\n\n\r"
    async with looked_at(tmp_path) as running:
        form = aiohttp.FormData()
        fields = {
            "guard": await _guard(running, {}),
            "terms": "cohere-saas-agreement",
            "by": "Counsel <b>",
            "reason": "agreed",
            "until": f"{running.corpus.clock().year + 1}-01-01",
        }
        for name, value in fields.items():
            form.add_field(name, value)
        form.add_field("evidence", letter, filename="../../letter<img>.pdf", content_type="application/pdf")
        got = await running.send("POST", "/console/rights/waivers", data=form)
        assert got.status == 303, re.sub(r"<[^>]+>", "", got.text)
        page = (await running.get("/console/rights/waivers")).text
        assert hashlib.sha256(letter).hexdigest() in page
        assert "Counsel &lt;b&gt;" in page
        (named,) = re.findall(r"/console/rights/waivers/(w-[0-9a-f]+)/end", page)
        assert (await _sent(running, f"/rights/waivers/{named}/end", {})).status == 303
        assert "taken back" in (await running.get("/console/rights/waivers")).text


# --- Records ---------------------------------------------------------------------------------------------------------


def _everything(running: Served, wanted: Wanted, most: int) -> list[str]:
    found: list[str] = []
    place = ""
    while True:
        page: Found = browse(running.corpus, wanted, place, most=most)
        found += [str(row["record_id"]) for row in page.rows]
        if not page.further:
            return found
        place = page.further


async def test_paging_shows_every_record_once(tmp_path: Path) -> None:
    async with looked_at(tmp_path, trained=True) as running:
        every = {row[0] for row in running.corpus.journal.query("select lower(hex(record_id)) from records")}
        for most in (1, 7, 20, 500):
            found = _everything(running, Wanted(), most)
            assert (len(found), set(found)) == (len(every), every)


async def test_records_are_found_by_what_they_are(tmp_path: Path) -> None:
    async with looked_at(tmp_path, trained=True) as running:
        secret = running.token("ask", user="bob")
        running.service.tokens.look_again()
        await converse(running, secret, "What is a LAGOON?", tools=True)
        assert len(_everything(running, Wanted(split="gold"), 50)) == 20
        assert len(_everything(running, Wanted(text="lagoon"), 50)) == 1
        assert len(_everything(running, Wanted(user="bob"), 50)) == 1
        assert len(_everything(running, Wanted(tools=True), 50)) == 1
        assert _everything(running, Wanted(user="bo"), 50) == []
        assert _everything(running, Wanted(task="kinds", teacher="endpoint/mock-model"), 50) == []


async def test_looking_ends_when_patience_does_and_goes_on_from_there(tmp_path: Path) -> None:
    async with looked_at(tmp_path, trained=True) as running:
        page = browse(running.corpus, Wanted(text="nowhere"), patience_s=0)
        assert (list(page.rows), page.whole) == ([], False)
        while page.further:
            page = browse(running.corpus, Wanted(text="nowhere"), page.further, patience_s=0)
        assert page.whole
        with pytest.raises(UsageError, match="no more"):
            browse(running.corpus, Wanted(), "kinds/other.parquet~")


async def test_a_record_tells_its_conversation_and_its_story(tmp_path: Path) -> None:
    async with looked_at(tmp_path) as running:
        await converse(running, None, "How deep is <b>Lake Baikal</b>?", tools=True)
        (named,) = running.corpus.journal.query("select lower(hex(record_id)) from records")[0]
        page = (await running.get(f"/console/records/{named[:10]}")).text
        assert "How deep is &lt;b&gt;Lake Baikal&lt;/b&gt;?" in page
        assert "depth_of" in page
        story = (await running.get(f"/console/records/{named}/why")).text
        assert "LicenseRef-caller" in story


def test_turns_are_read_from_every_wire() -> None:
    conversation = {
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "image", "source": {"x": 1}}]},
            {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": '{"a":1}'}}]},
            {"role": "tool", "content": [{"type": "tool_result", "content": "3"}]},
            {"type": "function_call_output", "output": "4"},
        ],
        "tools": [{"name": "f"}, {"function": {"name": "g"}}, {"type": "web"}],
    }
    record = {"conversation": orjson.dumps(conversation).decode(), "messages": []}
    found = [(turn.role, [(part.kind, part.name) for part in turn.parts]) for turn in turns(record)]
    assert found == [
        ("system", [("text", "")]),
        ("user", [("text", ""), ("image", "")]),
        ("assistant", [("tool call", "f")]),
        ("tool", [("tool result", "")]),
        ("function_call_output", [("function_call_output", "")]),
    ]
    assert [name for name, _ in tools(record)] == ["f", "g", "web"]


_PLAIN = st.none() | st.booleans() | st.integers() | st.text()
_ODD = st.recursive(_PLAIN, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


@given(_ODD)
def test_no_conversation_is_too_odd_to_be_shown(value: Any) -> None:
    try:
        text = orjson.dumps(
            {"messages": [value, {"role": "user", "content": value, "tool_calls": value}], "tools": [value]}
        )
    except TypeError:  # an integer or a text that JSON has no word for
        return
    record = {"conversation": text.decode(), "messages": [], "response": "", "tool_calls": text.decode()}
    assert all(isinstance(part.text, str) for turn in turns(record) for part in turn.parts)
    assert all(isinstance(name, str) for name, _ in tools(record))
    assert answer(record).role == "assistant"


def test_sureness_names_the_tokens_it_was_least_sure_of() -> None:
    found = sureness({"token_bytes": [b"a", b"b", b"c"], "token_logprobs": [-0.1, -3.0, None], "topk_len": [2, 5, 1]})
    assert found is not None
    assert (found.tokens, found.least[0], found.alternatives) == (2, (2, "b", -3.0), 5)
    assert sureness({"token_logprobs": None, "label_logprobs": None}) is None


# --- Forms, figures, pictures ----------------------------------------------------------------------------------------


def test_amounts_are_read_as_people_write_them() -> None:
    assert caps_in({"usd": " $1,250.50".strip(), "tokens": "1e6", "requests": ""}) == {
        "microusd": 1_250_500_000,
        "tokens": 1_000_000,
    }
    assert whole_number({"limit": "1,000"}, "limit", 5_000) == 1_000
    for wrong in ("0", "-1", "1.5", "9999", "١", "1e3"):
        with pytest.raises(UsageError):
            whole_number({"limit": wrong}, "limit", 5_000)


@given(st.text())
def test_after_a_form_nobody_is_sent_elsewhere(path: str) -> None:
    try:
        response = see(path)
    except ValueError:
        return
    assert re.fullmatch(r"/console(/[\w.~-]+)*", response.headers["Location"], re.ASCII)


@given(st.text())
def test_whatever_a_template_shows_is_escaped(text: str) -> None:
    assert not set(str(shown(text))) & set("<>\"'\x00\u202e")


def test_pictures_have_no_style_and_no_foreign_markup() -> None:
    one = {
        "scope": "user:<script>",
        "unit": "usd",
        "per": "day",
        "settled": 5,
        "promised": 1,
        "unconfirmed": 2,
        "cap": 9,
    }
    drawn = budget_bars([one]) + burn_down(Burn(points=((0, 0), (10, 5)), until_us=20, cap=9, scope="<b>"))
    assert "style=" not in drawn
    assert "<script" not in drawn
    assert "<b>" not in drawn
    assert str(budget_bars([one | {"cap": None}])) == ""


def test_a_funnel_adds_up() -> None:
    drops = [
        {"stage": "near", "reason": "near repeat", "items": 3, "example": ""},
        {"stage": "ask:train", "reason": "TeacherTimeout", "items": 2, "example": ""},
    ]
    found = steps(drops, 10)
    assert [step.left for step in found] == [15, 12, 10]
    for before, after in pairwise(found):
        assert before.left - sum(loss.count for loss in after.losses) == after.left


async def test_figures_of_the_moment_keep_kinds_of_money_apart(tmp_path: Path) -> None:
    async with looked_at(tmp_path) as running:
        await converse(running, None, "What is a lagoon?", "What is a fjord?")
        now = look(running.corpus)
        assert (now.answered, now.in_flight, now.promised, now.unconfirmed) == (2, 0, 0, 0)
        assert now.settled == running.bill["billed_microusd"]
        assert now.burn.points[-1][1] == now.settled
        assert first_call_since(running.corpus, 0) == 1
        assert first_call_since(running.corpus, 2**60) == 3


# --- Files -----------------------------------------------------------------------------------------------------------


def _luminance(colour: str) -> float:
    long = colour if len(colour) == 7 else "#" + "".join(2 * digit for digit in colour[1:])
    parts = [int(long[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_stands_out_from_its_ground(theme: str) -> None:
    of = colours()[theme]
    pairs = [(ink, ground) for ink in ("ink", "soft", "accent", "bad", "good") for ground in ("paper", "wash")]
    for one, other, least in [*((a, b, 4.5) for a, b in pairs), ("onaccent", "accent", 4.5), ("edge", "paper", 3.0)]:
        low, high = sorted((_luminance(of[f"--{one}"]), _luminance(of[f"--{other}"])))
        assert (high + 0.05) / (low + 0.05) >= least, (theme, one, other)


async def test_files_are_kept_for_good_under_a_name_that_changes_with_them(tmp_path: Path) -> None:
    async with looked_at(tmp_path) as running:
        for name, kind in KINDS.items():
            got = await running.get(address(name))
            assert got.body == content(name)
            assert "immutable" in str(got.header("Cache-Control"))
            assert str(got.header("Content-Type")).startswith(kind)
        for path in ("000000000000/console.css", "000000000000/..%2fpages.py", "x/pages.py"):
            assert (await running.get(f"/console/static/{path}")).status in (400, 404)


def test_nothing_is_fetched_from_elsewhere_and_nothing_runs_that_is_no_file() -> None:
    folder = files("corpusgen.serve.console")
    templates = {one.name: one.read_text() for one in folder.joinpath("templates").iterdir()}
    assert len(templates) > 20
    for name, text in templates.items():
        assert not re.search(r"\son[a-z]+=\S|\sstyle\s*=|<style|javascript:|https?://|\|\s*safe\b|<iframe", text), name
        assert re.findall(r"<script[^>]*>", text) in ([], ['<script src="{{ asset("console.js") }}" defer>'])
    style, script = content("console.css").decode(), content("console.js").decode()
    assert not re.search(r"url\(|@import|https?:", style)
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|Function\(|localStorage|https?://", script
    )


def test_every_form_that_acts_carries_the_guard() -> None:
    for one in files("corpusgen.serve.console").joinpath("templates").iterdir():
        if one.name == "login.html":
            continue
        for form in re.findall(r'<form method="post".*?</form>', one.read_text(), re.DOTALL):
            assert "parts.guard()" in form, one.name
