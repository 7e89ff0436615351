"""Small changes to the code that guards money and answers, each of which a test must notice.

``python tests/mutants.py [--seconds 150 | --long] [--seed N] [--json]``. A mutant is one change to one place: a
comparison shifted, plus for minus, a condition negated, a number changed, a statement removed. It is planted into a
forked copy of a process that has read the tests already (``mutant_bench.py``), and only the tests that come by its line
run, the quickest first; a mutant that no test notices is reported by file and line.

Why not mutmut: version 3.8 works offline, but in 15 minutes on two cores got through 1,410 of its 1,711 mutants of the
ledger and the validator, where every mutant of all three modules takes four minutes here. Most of what it left alive is
SQL in capitals, the words of errors and ``zip(strict=None)``, which no test should notice, while it leaves out
constants, defaults of fields and decorated functions; what else it found has tests now.
"""

from __future__ import annotations

import argparse
import ast
import json
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mutant_bench import Mutant, Outcome, run

ROOT = Path(__file__).resolve().parents[1]

LEDGER_TESTS = ("test_ledger_edges.py", "test_caps.py", "test_leases.py", "test_reconcile.py", "test_ledger.py")

TESTS_OF: Mapping[str, Sequence[str]] = {
    "corpusgen/budget/amounts.py": LEDGER_TESTS,
    "corpusgen/budget/ledger.py": LEDGER_TESTS,
    "corpusgen/teachers/wire.py": ("test_wire_edges.py", "test_wire_dialects.py", "test_wire.py"),
    "corpusgen/stages/committing.py": ("test_committing.py",),
}
"""The ledger with the amounts it counts, the validator of answers and the commit of shards, and what tests them."""

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
class Equivalent:
    """A mutant that does what the code does, so that no test could tell."""

    file: str
    code: str
    """Its line of the source."""
    what: str
    why: str


EQUIVALENT: Sequence[Equivalent] = (
    Equivalent(
        file="corpusgen/budget/ledger.py",
        code="_LOOKUP = 400",
        what="400 for 401",
        why="how many are looked up at once, not what is found",
    ),
)


def mutants_of(file: str) -> list[Mutant]:
    """Every mutant of a module that does something else, in the order of its lines."""
    text = (ROOT / file).read_text()
    lines, found = text.splitlines(), list(_mutants(file, text))
    same = {(one.code, one.what) for one in EQUIVALENT if one.file == file}
    if gone := same - {(lines[one.line - 1].strip(), one.what) for one in found}:
        raise RuntimeError(f"no such mutants of {file} any more, take them off the list: {sorted(gone)}")
    return [one for one in found if (lines[one.line - 1].strip(), one.what) not in same]


def _mutants(file: str, text: str) -> Iterator[Mutant]:
    for at, changes in enumerate(_places(ast.parse(text))):
        for number, change in enumerate(changes):
            yield Mutant(file=file, line=change.line, what=change.what, tree=partial(_changed, text, at, number))


def _changed(text: str, at: int, number: int) -> ast.Module:
    tree = ast.parse(text)
    _places(tree)[at][number].make()
    return ast.fix_missing_locations(tree)


@dataclass(frozen=True, kw_only=True)
class Change:
    """Something that can be done to a tree."""

    line: int
    what: str
    make: Callable[[], None]


def _places(tree: ast.Module) -> list[list[Change]]:
    """The changes of every node that has any, as acts on this very tree."""
    every = [[*_of_expression(node), *_of_block(node)] for node in _walk(tree)]
    return [changes for changes in every if changes]


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
    for what, make in _changes(node):
        yield Change(line=node.lineno, what=what, make=make)  # type: ignore[attr-defined]  # what has changes has a line


def _changes(node: ast.AST) -> Iterator[tuple[str, Callable[[], None]]]:
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
                what = f"removed: {ast.unparse(statement)[:60]}"
                yield Change(line=statement.lineno, what=what, make=_remover(block, at))


def _acts(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Expr):
        return not isinstance(statement.value, ast.Constant | ast.Yield)  # a docstring; a context manager's only word
    return isinstance(statement, ast.AugAssign | ast.Raise | ast.Continue | ast.Break | ast.Delete)


def _remover(block: list[ast.stmt], at: int) -> Callable[[], None]:
    return lambda: block.__setitem__(at, ast.Pass())


def measure(seconds: float, seed: int, say: Callable[[str], None]) -> dict[str, object]:
    """Figures of a seeded sample, as large as the time allows."""
    every = [mutant for file in TESTS_OF for mutant in mutants_of(file)]
    random.Random(seed).shuffle(every)
    outcome = run(ROOT, TESTS_OF, every, seconds, say)
    return {
        "mutants": len(every),
        "mutants_tried": outcome.tried,
        "mutants_killed": round((outcome.tried - len(outcome.survivors)) / max(1, outcome.tried), 4),
        "mutants_equivalent": len(EQUIVALENT),
        "mutants_hung": outcome.hung,
        "survivors": _named(outcome),
    }


def _named(outcome: Outcome) -> list[str]:
    return [
        f"{one.file}:{one.line}: {one.what}" for one in sorted(outcome.survivors, key=lambda one: (one.file, one.line))
    ]


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
