"""Where mutants are tried: one process reads all tests once, and a fork of it for each mutant runs some of them.

A mutant is planted by giving the functions of its module the code of the changed one, so nothing is imported again and
whoever has imported a function already calls the changed one.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, Final

import pytest

SIDE_BY_SIDE: Final = 3
"""More than there are processors, because much of the time they wait."""
SLACK: Final = 8.0
"""How many times longer than without a mutant a test may take before it counts as hanging, which is noticing."""
SLACK_S: Final = 10.0
EXAMPLES: Final = 15
"""Of each hypothesis test and state machine: what they find at all, they find soon."""

_MANY_EXAMPLES: Final = re.compile(r"max_examples=\d+")
_COPIED: Final = ("corpusgen", "tests", "data", "prompts")
_SURVIVED, _NOTICED, _HUNG, _NOT_PLANTED = 0, 1, 2, 99


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One changed module."""

    file: str
    line: int
    what: str
    tree: Callable[[], ast.Module]


@dataclass(kw_only=True)
class Outcome:
    """What became of the mutants that were tried."""

    tried: int = 0
    hung: int = 0
    survivors: list[Mutant] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Passed:
    """A test that passes without a mutant, and where it came by."""

    item: pytest.Item
    seconds: float
    lines: frozenset[tuple[str, int]]

    @property
    def limit_s(self) -> float:
        return SLACK * self.seconds + SLACK_S


@dataclass(kw_only=True)
class _Running:
    mutant: Mutant
    pid: int
    until: float


def run(
    root: Path,
    tests_of: Mapping[str, Sequence[str]],
    mutants: Sequence[Mutant],
    seconds: float,
    say: Callable[[str], None],
) -> Outcome:
    """Try as many mutants as the time allows, in their order."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        _copy(root, Path(folder), {name for names in tests_of.values() for name in names})
        bench = Bench(folder=Path(folder), tests_of=tests_of, mutants=mutants, end=time.monotonic() + seconds, say=say)
        _collect(bench, sorted({name for names in tests_of.values() for name in names}))
    if bench.outcome is None:
        raise RuntimeError(bench.why)
    return bench.outcome


def _copy(root: Path, folder: Path, tests: set[str]) -> None:
    for name in _COPIED:
        if (root / name).exists():
            shutil.copytree(root / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.parquet"))
    shutil.copy(root / "pyproject.toml", folder)
    for name in tests:
        test = folder / "tests" / name
        test.write_text(_MANY_EXAMPLES.sub(f"max_examples={EXAMPLES}", test.read_text()))


def _collect(bench: Bench, names: Sequence[str]) -> None:
    """Let pytest read the tests of the copy, and the bench run them."""
    from hypothesis import Phase, settings

    quick = settings(database=None, phases=[Phase.explicit, Phase.generate], report_multiple_bugs=False, deadline=None)
    settings.register_profile("mutants", quick)
    settings.load_profile("mutants")
    sys.dont_write_bytecode = True
    before, stdout = Path.cwd(), os.dup(1)
    os.chdir(bench.folder / "tests")
    sys.path[:0] = [str(bench.folder), str(bench.folder / "tests")]
    options = ["-q", "-s", "-p", "no:cacheprovider", "-p", "no:xdist", "--hypothesis-seed=1", "--assert=plain"]
    try:
        os.dup2(2, 1)  # stdout is for the figures
        pytest.main([*options, "-o", "tmp_path_retention_policy=none", *names], plugins=[bench])
    finally:
        os.dup2(stdout, 1)
        os.chdir(before)


@dataclass(kw_only=True, eq=False)
class Bench:
    """A pytest plugin that runs the tests it has read in forked children, once for each mutant."""

    folder: Path
    tests_of: Mapping[str, Sequence[str]]
    mutants: Sequence[Mutant]
    end: float
    say: Callable[[str], None]
    outcome: Outcome | None = None
    why: str = "the tests cannot be read"
    """What stands in the way of an outcome."""
    failures: int = 0
    """In a child."""
    hung: int = 0
    """In a child: failures for want of an end."""
    told: Path | None = None
    """Where a child says what failed."""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.failures += report.failed
        self.hung += report.failed and "Timeout (>" in report.longreprtext
        if report.failed and self.told is not None:
            self.told.write_text(f"{report.nodeid}\n{report.longreprtext[-400:]}")

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if session.testsfailed:
            return True
        if not all(
            self.folder.resolve() in Path(str(_module(file).__file__)).resolve().parents for file in self.tests_of
        ):
            self.why = "another corpusgen was read than the copy"
        elif passed := self._undisturbed(session.items):
            self.outcome = self._try_all(passed)
        return True

    # --- without a mutant

    def _undisturbed(self, items: Sequence[pytest.Item]) -> dict[str, list[Passed]]:
        """The tests of each module, the quickest first; none when one fails."""
        began, found = time.monotonic(), self.folder / "undisturbed.jsonl"
        if self._wait(self._fork(lambda: self._trace(items, found))) != _SURVIVED:
            failed = self.folder / "failed"
            self.why = f"without a mutant this fails: {failed.read_text() if failed.exists() else 'everything'}"
            return {}
        passed: dict[str, list[Passed]] = {file: [] for file in self.tests_of}
        for item, line in zip(items, found.read_text().splitlines(), strict=True):
            said = json.loads(line)
            lines = frozenset((file, number) for file, number in said["lines"])
            one = Passed(item=item, seconds=said["seconds"], lines=lines)
            item.add_marker(pytest.mark.timeout(one.limit_s, method="signal"), append=False)
            for file in (file for file, names in self.tests_of.items() if item.path.name in names):
                passed[file].append(one)
        self.say(f"{len(items)} tests pass without a mutant, in {time.monotonic() - began:.0f} s")
        return {file: sorted(tests, key=lambda one: one.seconds) for file, tests in passed.items()}

    def _trace(self, items: Sequence[pytest.Item], found: Path) -> int:
        """In a child: run everything, and write down which lines each test came by."""
        seen: set[tuple[str, int]] = set()
        self.told = self.folder / "failed"
        for file in self.tests_of:
            module = _module(file)
            vars(module)["_came_by"] = seen.add
            plant(module, _traced((self.folder / file).read_text(), file))
        with found.open("w") as out:
            for at, item in enumerate(items):
                seen.clear()
                began = time.monotonic()
                _run(item, items[at + 1] if at + 1 < len(items) else None)
                said = {"seconds": time.monotonic() - began, "lines": sorted(seen)}
                print(json.dumps(said), file=out, flush=True)
                if self.failures:
                    return _NOTICED
        return _SURVIVED

    # --- with one

    def _try_all(self, passed: Mapping[str, Sequence[Passed]]) -> Outcome:
        outcome, running = Outcome(), list[_Running]()
        for mutant in self.mutants:
            if time.monotonic() >= self.end:
                break
            running.append(self._start(mutant, _tests_of(mutant, passed[mutant.file])))
            while len(running) == SIDE_BY_SIDE:
                self._look(running, outcome)
        while running:
            self._look(running, outcome)
        return outcome

    def _start(self, mutant: Mutant, tests: Sequence[Passed]) -> _Running:
        until = (
            time.monotonic() + sum(one.limit_s for one in tests[:5]) + sum(one.limit_s - SLACK_S for one in tests[5:])
        )
        pid = self._fork(lambda: self._try(mutant, [one.item for one in tests]))
        return _Running(mutant=mutant, pid=pid, until=until)

    def _try(self, mutant: Mutant, items: Sequence[pytest.Item]) -> int:
        """In a child: whether a test notices."""
        if not plant(_module(mutant.file), mutant.tree()):
            return _NOT_PLANTED
        for at, item in enumerate(items):
            _run(item, items[at + 1] if at + 1 < len(items) else None)
            if self.failures:
                return _HUNG if self.hung else _NOTICED
        return _SURVIVED

    def _look(self, running: list[_Running], outcome: Outcome) -> None:
        """Take away those that are done."""
        time.sleep(0.005)
        for one in list(running):
            pid, status = os.waitpid(one.pid, os.WNOHANG)
            hangs = not pid and time.monotonic() > one.until
            if hangs:
                os.killpg(one.pid, signal.SIGKILL)
                os.waitpid(one.pid, 0)
            elif not pid:
                continue
            running.remove(one)
            self._ended(one, outcome, None if hangs else os.waitstatus_to_exitcode(status))

    def _ended(self, one: _Running, outcome: Outcome, code: int | None) -> None:
        shutil.rmtree(self.folder / str(one.pid), ignore_errors=True)
        where = f"{one.mutant.file}:{one.mutant.line}: {one.mutant.what}"
        if code == _NOT_PLANTED:
            raise RuntimeError(f"cannot be planted: {where}")
        outcome.tried += 1
        if code == _SURVIVED:
            outcome.survivors.append(one.mutant)
            self.say(f"survived: {where}")
        if code in (None, _HUNG):
            outcome.hung += 1
            self.say(f"hung: {where}")

    # --- children

    def _fork(self, act: Callable[[], int]) -> int:
        """A child with a folder of its own for its files, that says nothing."""
        sys.stdout.flush()
        pid = os.fork()
        if pid:
            return pid
        code = _NOTICED
        try:
            os.setsid()
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 1)
            os.dup2(quiet, 2)
            own = self.folder / str(os.getpid())
            own.mkdir()
            os.environ["PYTEST_DEBUG_TEMPROOT"] = str(own)
            code = act()
        finally:
            os._exit(code)

    def _wait(self, pid: int) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _run(item: pytest.Item, following: pytest.Item | None) -> None:
    item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)


def _tests_of(mutant: Mutant, passed: Sequence[Passed]) -> list[Passed]:
    """The tests that come by the mutant's line; all of the module's where none is seen to."""
    return [one for one in passed if (mutant.file, mutant.line) in one.lines] or list(passed)


def _module(file: str) -> ModuleType:
    return sys.modules[file.removesuffix(".py").replace("/", ".")]


# --- planting --------------------------------------------------------------------------------------------------------


def plant(module: ModuleType, source: ast.Module) -> bool:
    """Make a module's functions, defaults and constants those of another source of it; false if nothing differs."""
    changed = ModuleType(module.__name__)
    vars(changed).update({name: value for name, value in vars(module).items() if name.startswith("_came_by")})
    exec(compile(source, str(module.__file__), "exec"), vars(changed))
    return sum(_give(module, name, vars(module).get(name), value) for name, value in vars(changed).items()) > 0


def _give(holder: Any, name: str, old: object, new: object) -> bool:
    """Whether there was a difference between what is called so and what shall be."""
    old, new = _bare(old), _bare(new)
    if isinstance(old, FunctionType) and isinstance(new, FunctionType):
        return _give_code(old, new)
    if isinstance(old, type) and isinstance(new, type):
        if old.__module__ != getattr(holder, "__module__", holder.__name__):
            return False
        own = [key for key in vars(new) if not key.startswith("__dataclass_")]
        return sum(_give(old, key, vars(old).get(key), vars(new)[key]) for key in own) > 0
    if not _constant(old) or not _constant(new) or repr(old) == repr(new):
        return False
    _replace_everywhere(holder, name, old, new)
    return True


def _bare(value: object) -> object:
    """The function inside a property, a cached property, a static method or a decorated function."""
    for inside in ("fget", "func", "__func__", "__wrapped__"):
        found = getattr(value, inside, None)
        if isinstance(found, FunctionType):
            return found
    return value


def _give_code(old: FunctionType, new: FunctionType) -> bool:
    differs = False
    if _shape(old.__code__) != _shape(new.__code__):
        old.__code__, differs = new.__code__, True
    for name in ("__defaults__", "__kwdefaults__"):
        if repr(getattr(old, name)) != repr(getattr(new, name)):
            setattr(old, name, getattr(new, name))
            differs = True
    return differs


def _shape(code: Any) -> tuple[object, ...]:
    """What a code does, without where it stands."""
    constants = tuple(_shape(one) if hasattr(one, "co_code") else repr(one) for one in code.co_consts)
    return code.co_code, constants, code.co_names, code.co_varnames


def _constant(value: object) -> bool:
    return isinstance(value, int | float | str | bytes | tuple | dict | frozenset | None)


def _replace_everywhere(holder: Any, name: str, old: object, new: object) -> None:
    setattr(holder, name, new)
    for module in list(sys.modules.values()) if isinstance(holder, ModuleType) else ():
        if vars(module).get(name) is old and old is not None:
            setattr(module, name, new)


def _traced(source: str, file: str) -> ast.Module:
    """A source that says which of its lines it comes by."""
    tree = ast.parse(source)
    for block in _blocks(tree):
        block[:] = [out for statement in block for out in (*_mark(statement, file), statement)]
    return ast.fix_missing_locations(tree)


def _blocks(tree: ast.Module) -> Iterator[list[ast.stmt]]:
    """The blocks of statements inside functions."""
    for function in [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]:
        for node in list(ast.walk(function)):
            for name in ("body", "orelse", "finalbody"):
                block = getattr(node, name, None)
                if isinstance(block, list) and not (block and isinstance(block[0], ast.Expr) and _marked(block[0])):
                    yield block


def _marked(statement: ast.Expr) -> bool:
    value = statement.value
    return isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "_came_by"


def _mark(statement: ast.stmt, file: str) -> list[ast.stmt]:
    """A mark before a statement, for every line of it that is not a statement's of its own."""
    last = statement.end_lineno or statement.lineno
    inner = [block[0].lineno for name in ("body", "orelse") if (block := getattr(statement, name, None))]
    lines = range(statement.lineno, min([last + 1, *inner]))
    return [ast.parse(f"_came_by(({file!r}, {line}))").body[0] for line in lines]
