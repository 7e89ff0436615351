"""Small changes to the code that guards money and answers, each of which a test must notice.

``python tests/mutants.py [--seconds 150 | --long] [--seed N] [--json]``. A mutant is one change to one place: a
comparison shifted, plus for minus, a condition negated, a number changed, a statement removed. The tests named for the
module run against it in a process of their own; a mutant that no test notices is reported by file and line.
"""

from __future__ import annotations

import argparse
import ast
import compileall
import copy
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT = Path(__file__).resolve().parents[1]


def _there(*names: str) -> tuple[str, ...]:
    """Those of some test files that exist."""
    return tuple(name for name in names if (ROOT / "tests" / name).exists())


TESTS_OF: Mapping[str, Sequence[str]] = {
    "corpusgen/budget/ledger.py": _there(
        "test_ledger_edges.py", "test_caps.py", "test_leases.py", "test_reconcile.py", "test_ledger.py"
    ),
    "corpusgen/teachers/wire.py": ("test_wire_edges.py", "test_wire.py"),
    "corpusgen/stages/committing.py": ("test_committing.py",),
}
SIDE_BY_SIDE = 2
SLACK = 4.0
"""How many times longer than without a mutant the tests may take before they count as hanging, which is noticing."""

EXAMPLES = 15
"""Of each hypothesis test and state machine: what they find at all, they find soon."""
_MANY_EXAMPLES: Final = re.compile(r"max_examples=\d+")

_SHIFTED: Mapping[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_SWAPPED: Mapping[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
}
_SKIPPED_FIELDS = frozenset({"annotation", "returns", "decorator_list", "keywords_of_raise"})


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One changed module."""

    file: str
    line: int
    what: str
    source: str


def mutants_of(file: str) -> list[Mutant]:
    """Every mutant of a module, in the order of its lines."""
    tree = ast.parse((ROOT / file).read_text())
    places = list(_places(tree))
    found = []
    for at, (node, changes) in enumerate(places):
        for number, (what, _) in enumerate(changes):
            changed = copy.deepcopy(tree)
            list(_places(changed))[at][1][number][1]()
            source = ast.unparse(ast.fix_missing_locations(changed))
            found.append(Mutant(file=file, line=getattr(node, "lineno", 0), what=what, source=source))
    return found


Change = tuple[str, Callable[[], None]]


def _places(tree: ast.Module) -> Iterator[tuple[ast.AST, list[Change]]]:
    """Every node that can be changed, with its changes as acts on this very tree."""
    for node in _walk(tree):
        changes = [*_of_expression(node), *_of_block(node)]
        if changes:
            yield node, changes


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    """Nodes that run: no annotations, decorators, asserts, type-checking blocks, nor the words of errors."""
    yield node
    for field, value in ast.iter_fields(node):
        if field in _SKIPPED_FIELDS:
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not _silent(child):
                yield from _walk(child)


def _silent(node: ast.AST) -> bool:
    typing_only = isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    only_checks = isinstance(node, ast.keyword) and node.arg == "strict"  # of zip, where lengths are equal anyway
    return (
        typing_only
        or only_checks
        or isinstance(node, ast.Assert | ast.Raise | ast.JoinedStr | ast.Import | ast.ImportFrom)
    )


def _of_expression(node: ast.AST) -> Iterator[Change]:
    if isinstance(node, ast.Compare) and type(node.ops[0]) in _SHIFTED:
        other = _SHIFTED[type(node.ops[0])]
        yield f"{type(node.ops[0]).__name__} for {other.__name__}", lambda: node.ops.__setitem__(0, other())
    elif isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in _SWAPPED:
        swapped = _SWAPPED[type(node.op)]
        yield f"{type(node.op).__name__} for {swapped.__name__}", lambda: setattr(node, "op", swapped())
    elif isinstance(node, ast.BoolOp):
        turned = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield f"{type(node.op).__name__} for {type(turned).__name__}", lambda: setattr(node, "op", turned)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int):
        value = not node.value if isinstance(node.value, bool) else node.value + 1
        yield f"{node.value} for {value}", lambda: setattr(node, "value", value)
    if isinstance(node, ast.If | ast.IfExp | ast.While):
        yield "condition negated", lambda: setattr(node, "test", ast.UnaryOp(op=ast.Not(), operand=node.test))
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield "minus dropped", lambda: setattr(node, "op", ast.UAdd())
    elif isinstance(node, ast.Return) and node.value is not None and not _nothing(node.value):
        yield "returns None", lambda: setattr(node, "value", ast.Constant(value=None))


def _nothing(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _of_block(node: ast.AST) -> Iterator[Change]:
    """Statements removed from the block this node holds."""
    for field in ("body", "orelse", "finalbody"):
        block = getattr(node, field, None)
        if isinstance(node, ast.Module | ast.ClassDef) or not isinstance(block, list):
            continue
        for at, statement in enumerate(block):
            if _acts(statement):
                what = f"removed from line {statement.lineno}: {ast.unparse(statement)[:60]}"
                yield what, _remover(block, at)


def _acts(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Expr):
        return not isinstance(statement.value, ast.Constant | ast.Yield)  # a docstring; a context manager's only word
    return isinstance(statement, ast.AugAssign | ast.Raise | ast.Continue | ast.Break | ast.Delete)


def _remover(block: list[ast.stmt], at: int) -> Callable[[], None]:
    return lambda: block.__setitem__(at, ast.Pass())


# --- running ---------------------------------------------------------------------------------------------------------


class Bench:
    """A copy of the project in which one module at a time is a mutant's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("corpusgen", "tests", "data", "prompts"):
            if (ROOT / name).exists():
                shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.parquet"))
        shutil.copy(ROOT / "pyproject.toml", folder)
        for name in {name for names in TESTS_OF.values() for name in names}:
            tests = folder / "tests" / name
            tests.write_text(_MANY_EXAMPLES.sub(f"max_examples={EXAMPLES}", tests.read_text()))
        compileall.compile_dir(folder / "corpusgen", quiet=2)
        for file in TESTS_OF:  # never from a cache: a mutant may have its size and its second
            for stale in (folder / file).parent.glob(f"__pycache__/{Path(file).stem}.*"):
                stale.unlink()

    def start(self, file: str, source: str | None) -> int:
        """The tests of a module, begun against a source of it; the process's id."""
        text = (ROOT / file).read_text() if source is None else source
        (self.folder / file).write_text(text)
        pid = os.fork()
        if pid == 0:
            os._exit(_run_tests(self.folder, TESTS_OF[file]))
        return pid

    def restore(self, file: str) -> None:
        """The module as it is."""
        shutil.copy(ROOT / file, self.folder / file)


def _run_tests(folder: Path, names: Sequence[str]) -> int:
    """In a child: pytest's exit code, everything said thrown away."""
    os.setsid()
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    os.chdir(folder / "tests")
    sys.dont_write_bytecode = True
    sys.path[:0] = [str(folder), str(folder / "tests")]
    import pytest

    arguments = [
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "--hypothesis-seed=1",
        "--no-header",
        "--assert=plain",
    ]
    return int(pytest.main([*arguments, *names]))


def warm() -> None:
    """Read what every child needs, but nothing of ours: that is different in each."""
    import aiohttp  # noqa: F401
    import apsw  # noqa: F401
    import hypothesis.stateful  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import pydantic  # noqa: F401
    import pytest  # noqa: F401


@dataclass(kw_only=True)
class _Running:
    bench: Bench
    mutant: Mutant
    pid: int
    until: float


def run(chosen: Sequence[Mutant], seconds: float, say: Callable[[str], None]) -> tuple[int, list[Mutant]]:
    """How many mutants were tried within the time, and those no test noticed."""
    survivors: list[Mutant] = []
    tried = 0
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        benches = [Bench(Path(folder) / str(at)) for at in range(SIDE_BY_SIDE)]
        limits = {file: SLACK * _undisturbed(benches[0], file) + 5.0 for file in TESTS_OF}
        say(f"tests may take {', '.join(f'{limit:.0f} s' for limit in limits.values())}")
        waiting, running, end = list(chosen), list[_Running](), time.monotonic() + seconds
        while running or (waiting and time.monotonic() < end):
            while benches and waiting and time.monotonic() < end:
                bench, mutant = benches.pop(), waiting.pop(0)
                pid = bench.start(mutant.file, mutant.source)
                until = time.monotonic() + limits[mutant.file]
                running.append(_Running(bench=bench, mutant=mutant, pid=pid, until=until))
            for one in list(running):
                noticed = _noticed(one)
                if noticed is None:
                    continue
                running.remove(one)
                one.bench.restore(one.mutant.file)
                benches.append(one.bench)
                tried += 1
                if not noticed:
                    survivors.append(one.mutant)
                    say(f"survived: {one.mutant.file}:{one.mutant.line}: {one.mutant.what}")
            time.sleep(0.02)
    return tried, survivors


def _undisturbed(bench: Bench, file: str) -> float:
    """Seconds the tests of a module take; the second of two, because the first fills the caches."""
    for _ in range(2):
        began = time.monotonic()
        _, status = os.waitpid(bench.start(file, None), 0)
        if os.waitstatus_to_exitcode(status) != 0:
            raise RuntimeError(f"the tests of {file} fail without a mutant: {', '.join(TESTS_OF[file])}")
    return time.monotonic() - began


def _noticed(one: _Running) -> bool | None:
    """Whether the tests noticed, None while they run."""
    pid, status = os.waitpid(one.pid, os.WNOHANG)
    if pid:
        return os.waitstatus_to_exitcode(status) != 0
    if time.monotonic() < one.until:
        return None
    os.killpg(one.pid, signal.SIGKILL)
    os.waitpid(one.pid, 0)
    return True


def measure(seconds: float, seed: int, say: Callable[[str], None]) -> dict[str, object]:
    """Figures of a seeded sample, as large as the time allows."""
    warm()
    every = [mutant for file in TESTS_OF for mutant in mutants_of(file)]
    random.Random(seed).shuffle(every)
    tried, survivors = run(every, seconds, say)
    return {
        "mutants": len(every),
        "mutants_tried": tried,
        "mutants_killed": round((tried - len(survivors)) / max(1, tried), 4),
        "survivors": sorted(f"{mutant.file}:{mutant.line}: {mutant.what}" for mutant in survivors),
    }


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=150.0)
    parser.add_argument("--long", action="store_true", help="All of them.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    found = measure(10**9 if chosen.long else chosen.seconds, chosen.seed, lambda text: print(text, file=sys.stderr))  # noqa: T201
    sys.stdout.write(json.dumps(found, indent=None if chosen.json else 1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
