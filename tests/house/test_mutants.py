"""`make mutants`: what a mutant is, which tests meet it, and that verdicts are right."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("coverage")
from support.mutants.clean import CleanRun
from support.mutants.equivalents import Equivalent, equivalents
from support.mutants.nursery import KILLED, SURVIVED, TIMEOUT, Order
from support.mutants.operators import Mutant, mutants_of
from support.mutants.rooms import ROOMS
from support.paths import ROOT


def changes(source: str) -> set[tuple[str, str]]:
    """(what becomes what, the changed line) of a source's mutants."""
    found = set()
    for mutant in mutants_of("file.py", source):
        lines = mutant.source.splitlines()
        found.add((mutant.change, lines[mutant.line - 1].strip()))
    return found


@pytest.mark.parametrize(
    ("line", "change", "becomes"),
    [
        ("a < b", "< -> <=", "a <= b"),
        ("a <= b", "<= -> <", "a < b"),
        ("a > b", "> -> >=", "a >= b"),
        ("a >= b", ">= -> >", "a > b"),
        ("a == b", "== -> !=", "a != b"),
        ("a is not b", "is not -> is", "a is b"),
        ("a not in b", "not in -> in", "a in b"),
        ("a < b < c", "< -> <=", "a < b <= c"),
        ("(a) + (b)", "+ -> -", "(a) - (b)"),
        ("a // b", "// -> *", "a * b"),
        ("a and b and c", "and -> or", "a and b or c"),
        ("not a", "not x -> x", "a"),
        ("-a", "-x -> x", "a"),
        ("é + ü", "+ -> -", "é - ü"),
        ("f(3)", "3 -> 2", "f(2)"),
        ("f(3)", "3 -> 4", "f(4)"),
        ("f(0.5)", "0.5 -> 0.75", "f(0.75)"),
        ("f(True)", "True -> False", "f(False)"),
        ("f(a)", "statement -> pass", "pass"),
        ("a += 1", "statement -> pass", "pass"),
        ("a += 1", "+= -> -=", "a -= 1"),
        ("a.b = c", "statement -> pass", "pass"),
        ("raise a", "raise -> pass", "pass"),
        ("x = a if b else c", "condition -> not condition", "x = a if (not (b)) else c"),
        ('x = {"k": a}', "'k' -> …XX", "x = {'kXX': a}"),
        ('a["k"]', "'k' -> …XX", "a['kXX']"),
        ('a == "k"', "'k' -> …XX", "a == 'kXX'"),
        ('a.startswith("k")', "'k' -> …XX", "a.startswith('kXX')"),
    ],
)
def test_faults_of_a_line(line: str, change: str, becomes: str) -> None:
    assert (change, becomes) in changes(line)


@pytest.mark.parametrize(
    ("source", "change", "becomes"),
    [
        ("def f():\n    return a", "return x -> return None", "return None"),
        ("while a:\n    break", "break -> continue", "continue"),
        ("while a:\n    continue", "continue -> break", "break"),
        ("def f(a=3):\n    b", "3 -> 4", "def f(a=4):"),
        ("class C:\n    a: int = 3", "3 -> 2", "a: int = 2"),
        ("@property\ndef f():\n    return a + b", "+ -> -", "return a - b"),
    ],
)
def test_faults_of_a_block(source: str, change: str, becomes: str) -> None:
    assert (change, becomes) in changes(source)


@pytest.mark.parametrize(
    "source",
    [
        '"""Text."""',
        "import a",
        "from a import b",
        "def f(a: Literal[3]) -> Literal[4]: ...",
        "@dataclass(frozen=True)\nclass C: ...",
        "class C(Protocol):\n    a: int = 3",
        "if TYPE_CHECKING:\n    a = 3",
        "x = f'{a + 1}'",
        "def f():\n    return None",
        "x = a.reshape(-1, 3)",
        "x = zip(a, b, strict=True)",
        "x = field(metadata={'help': 'text'})",
    ],
)
def test_what_has_no_faults(source: str) -> None:
    assert changes(source) == set()


def test_messages_of_errors_have_no_faults() -> None:
    assert changes('raise E("text")') == {("raise -> pass", "pass")}


def test_every_mutant_of_a_file_compiles_and_differs() -> None:
    path = ROOT / "pulse_edge" / "decode" / "loop.py"
    source = path.read_text("utf-8")
    mutants = mutants_of("loop.py", source)
    assert len(mutants) > 20
    assert len({mutant.source for mutant in mutants}) == len(mutants)
    for mutant in mutants:
        compile(mutant.source, "mutant", "exec")
        lines = mutant.diff(source).splitlines()
        assert sum(line.startswith("-") and not line.startswith("---") for line in lines) >= 1
        assert mutant.text in source


# -- which tests


def test_tests_that_cover_a_line_come_quickest_first() -> None:
    lines = {("a.py", 3): frozenset({"t/x.py::slow", "t/x.py::quick", "t/x.py::failed"})}
    clean = CleanRun({"t/x.py::slow": 2.0, "t/x.py::quick": 0.1, "u/y.py::z": 1.0}, (), lines)
    assert clean.covering("a.py", 3) == ["t/x.py::quick", "t/x.py::slow"]
    assert clean.covering("a.py", 4) == clean.covering("b.py", 3) == []
    assert clean.of(["t"]) == clean.of(["t/x.py"]) == ["t/x.py::quick", "t/x.py::slow"]
    assert clean.of(["t/x.p", "u/y.py"]) == ["u/y.py::z"]


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_has_files_and_tests(room: str) -> None:
    assert ROOMS[room].paths(ROOT)
    assert ROOMS[room].test_paths(ROOT)


# -- verdicts


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A module, and tests that pass with it."""
    (tmp_path / "doubling.py").write_text("def double(x):\n    return 2 * x\n")
    test = "from doubling import double\n\ndef test_double():\n    assert double(3) == 6\n"
    (tmp_path / "test_doubling.py").write_text(test)
    (tmp_path / "conftest.py").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("source", "outcome"),
    [
        ("def double(x):\n    return 3 * x\n", KILLED),
        ("def double(x):\n    return x + x\n", SURVIVED),
        ("def double(x):\n    while True: pass\n", KILLED),  # by the time of one test
        ("import os\nos.kill(os.getpid(), 9)\n", KILLED),
        ("no python", KILLED),
    ],
)
def test_verdicts(tree: Path, source: str, outcome: str) -> None:
    """In a nursery of its own, as a hunt has it."""
    order = Order("doubling.py", source, ("test_doubling.py::test_double",), 0.5, 30)
    assert in_nursery(tree, order) == outcome
    assert (tree / "doubling.py").read_text() == "def double(x):\n    return 2 * x\n"


def test_tests_that_do_not_end_are_a_verdict(tree: Path) -> None:
    source = "import time\ntime.sleep(60)\n"
    order = Order("doubling.py", source, ("test_doubling.py::test_double",), 0.5, 1)
    assert in_nursery(tree, order) == TIMEOUT


def in_nursery(tree: Path, order: Order) -> str:
    path = os.pathsep.join([str(tree), str(ROOT / "tests"), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", NURSERY, str(tree)],
        env=os.environ | {"PYTHONPATH": path},
        input=order.line(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout.strip()


# Without the slow imports, which these tests do not need.
NURSERY = "from support.mutants import nursery; nursery.SLOW_IMPORTS = (); nursery.main()"


# -- equivalent mutants


def test_a_row_covers_its_line_and_changes_only() -> None:
    row = Equivalent("a.py", "x = 1", ("1 -> 2",), "why")
    assert row.covers(Mutant("a.py", 9, "x = 1", "1 -> 2", ""))
    assert not row.covers(Mutant("a.py", 9, "x = 1", "1 -> 0", ""))
    assert not row.covers(Mutant("a.py", 9, "y = 1", "1 -> 2", ""))
    assert not row.covers(Mutant("b.py", 9, "x = 1", "1 -> 2", ""))
    assert Equivalent("a.py", "x = 1", ("*",), "").covers(Mutant("a.py", 9, "x = 1", "1 -> 0", ""))


def test_every_row_has_a_reason_and_a_mutant() -> None:
    """A row that covers nothing is out of date."""
    for row in equivalents():
        assert row.reason.strip()
        mutants = mutants_of(row.file, (ROOT / row.file).read_text("utf-8"), {row.line})
        covered = {mutant.change for mutant in mutants if row.covers(mutant)}
        assert covered, f"{row.file}: {row.line}"
        assert "*" in row.changes or covered == set(row.changes), f"{row.file}: {row.line}"
