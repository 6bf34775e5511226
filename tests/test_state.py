"""The state folder: hints that outlive a process, and never anything else."""

from __future__ import annotations

import json
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pulse_edge.state import KINDS, VARIABLE, forget, recall, remember, state_folder

from support.process import run

FACTS: dict[str, Any] = {
    "gpu": "Secret GPU of Ward 7",
    "driver": 13000,
    "exact": 0.5,
    "tuned": True,
    "none": None,
}
VALUE = {"error": 0.25, "rows": [1, 2, 3], "nested": {"ok": True, "none": None}}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state folder, which does not exist yet."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "state"))
    return tmp_path / "state"


def recalled_afresh(kind: str = "verdicts", facts: dict[str, Any] | None = None) -> Any:
    """As another process would recall it."""
    forget()
    return recall(kind, FACTS if facts is None else facts)


def record(folder: Path) -> Path:
    (path,) = (folder / "verdicts").iterdir()
    return path


# ---- remembering ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_value_outlives_the_process(folder: Path, kind: str) -> None:
    remember(kind, FACTS, VALUE)
    assert recalled_afresh(kind) == VALUE
    assert [path.name for path in folder.iterdir()] == [kind]


@pytest.mark.parametrize("number", [0.0, -0.0, 1e-300, 2.5e300, float("inf"), 1, -(2**63), True])
def test_numbers_come_back_as_they_were(folder: Path, number: float) -> None:
    remember("verdicts", FACTS, {"x": number})
    found = recalled_afresh()["x"]
    assert (found, type(found)) == (number, type(number))


def test_another_process_recalls_it(folder: Path) -> None:
    script = """
    from pulse_edge.state import recall, remember
    print(recall("verdicts", {"a": 1}))
    remember("verdicts", {"a": 1}, {"x": 2})
    """
    remember("verdicts", {"a": 1}, {"x": 1})
    assert run(script).stdout == "{'x': 1}\n"
    assert recall("verdicts", {"a": 1}) == {"x": 2}  # not what this process remembers itself


@pytest.mark.parametrize("fact", FACTS)
def test_any_other_fact_is_another_record(folder: Path, fact: str) -> None:
    remember("verdicts", FACTS, VALUE)
    other = FACTS | {fact: "other"}
    missing = {name: value for name, value in FACTS.items() if name != fact}
    assert recalled_afresh(facts=other) is None
    assert recalled_afresh(facts=missing) is None
    assert recalled_afresh(facts=dict(reversed(FACTS.items()))) == VALUE


def test_kinds_are_apart(folder: Path) -> None:
    remember("verdicts", FACTS, VALUE)
    assert recalled_afresh("rates") is None


def test_nothing_is_made_before_something_is_remembered(folder: Path) -> None:
    assert recall("verdicts", FACTS) is None
    assert not folder.exists()


def test_no_text_reaches_the_disk(folder: Path) -> None:
    remember("verdicts", FACTS, VALUE)
    content = b"".join(p.read_bytes() + p.name.encode() for p in folder.rglob("*") if p.is_file())
    for word in (b"Secret", b"Ward", b"gpu", b"driver", str(folder).encode()):
        assert word not in content
    assert record(folder).name.isalnum()


@pytest.mark.parametrize(
    "value",
    [
        {"name": "text"},
        {"names": ["text"]},
        {"nested": {"deep": [{"name": "text"}]}},
        {"path": Path("x")},
        {"bytes": b"x"},
        {"a path/as a key": 1},
        {"": 1},
        {"Upper": 1},
        {"x" * 41: 1},
        {1: 1},
        {"complex": 1j},
        {"set": {1}},
        "text",
    ],
    ids=str,
)
def test_text_is_refused(folder: Path, value: Any) -> None:
    with pytest.raises(ValueError, match="numbers only"):
        remember("verdicts", FACTS, value)
    assert not folder.exists()


def test_sizes_and_kinds_are_checked(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"bytes, over 1024"):
        remember("verdicts", FACTS, {"x": [0] * 1000})
    with pytest.raises(ValueError, match="'other' is not one of engines, rates, shapes, verdicts"):
        remember("other", FACTS, VALUE)
    with pytest.raises(ValueError, match="'other' is not one of engines, rates, shapes, verdicts"):
        recall("other", FACTS)
    assert not folder.exists()


def test_the_oldest_records_go_first(folder: Path) -> None:
    most = KINDS["rates"].records
    for number in range(most + 5):
        remember("rates", {"n": number}, {"x": number})
        path = max((folder / "rates").iterdir(), key=lambda p: p.stat().st_mtime_ns)
        os.utime(path, ns=(number * 10**9, number * 10**9))
    assert len(list((folder / "rates").iterdir())) == most
    kept = [number for number in range(most + 5) if recalled_afresh("rates", {"n": number})]
    assert kept == list(range(5, most + 5))


def test_left_overs_of_interrupted_writes_go_too(folder: Path) -> None:
    remember("rates", {"n": 0}, {"x": 0})
    for number in range(KINDS["rates"].records + 5):
        left = folder / "rates" / f".{number}"
        left.touch()
        os.utime(left, ns=(number, number))
    remember("rates", {"n": 1}, {"x": 1})
    assert len(list((folder / "rates").iterdir())) == KINDS["rates"].records
    assert recalled_afresh("rates", {"n": 1}) == {"x": 1}


# ---- damage and strangers ------------------------------------------------------------------------


def test_every_damaged_byte_is_found(folder: Path) -> None:
    remember("verdicts", FACTS, VALUE)
    path = record(folder)
    raw = path.read_bytes()
    for at in range(len(raw)):
        for changed in (raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :], raw[:at]):
            path.write_bytes(changed)
            assert recalled_afresh() is None, (at, changed)
    path.write_bytes(raw)
    assert recalled_afresh() == VALUE


@pytest.mark.parametrize(
    "content", [b"", b"\n\n", b"\xff\xfe", b"null", b"{" * 5000, b"x" * 5000, b"1\n2\n3\n4"]
)
def test_other_content_is_forgotten(folder: Path, content: bytes) -> None:
    remember("verdicts", FACTS, VALUE)
    record(folder).write_bytes(content)
    assert recalled_afresh() is None
    remember("verdicts", FACTS, VALUE)
    assert recalled_afresh() == VALUE


def test_a_record_under_another_name_is_none(folder: Path) -> None:
    remember("verdicts", {"n": 1}, {"x": 1})
    moved = record(folder)
    remember("verdicts", {"n": 2}, {"x": 2})
    (other,) = {*(folder / "verdicts").iterdir()} - {moved}
    moved.replace(other)
    assert recalled_afresh(facts={"n": 2}) is None


def replaced_by_a_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def replaced_by_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def replaced_by_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DISTRUSTED: dict[str, Callable[[Path, Path], None]] = {
    "a folder that others may write to": lambda f, r: f.chmod(0o777),
    "a folder that the group may write to": lambda f, r: f.chmod(0o770),
    "a kind that others may write to": lambda f, r: r.parent.chmod(0o722),
    "a record that others may write to": lambda f, r: r.chmod(0o606),
    "a link in place of the folder": lambda f, r: replaced_by_a_link(f),
    "a link in place of a kind": lambda f, r: replaced_by_a_link(r.parent),
    "a link in place of a record": lambda f, r: replaced_by_a_link(r),
    "a pipe in place of a record": lambda f, r: replaced_by_a_pipe(r),
    "a folder in place of a record": lambda f, r: replaced_by_a_folder(r),
}


@pytest.mark.parametrize("change", DISTRUSTED)
def test_what_others_could_have_written_is_not_read(folder: Path, change: str) -> None:
    remember("verdicts", FACTS, VALUE)
    DISTRUSTED[change](folder, record(folder))
    assert recalled_afresh() is None
    remember("verdicts", FACTS, VALUE)  # at the least in memory
    assert recall("verdicts", FACTS) == VALUE


@pytest.mark.parametrize("owned", ["folder", "kind", "record"])
def test_what_another_user_owns_is_not_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch, owned: str
) -> None:
    remember("verdicts", FACTS, VALUE)
    inodes = {
        "folder": folder.stat().st_ino,
        "kind": (folder / "verdicts").stat().st_ino,
        "record": record(folder).stat().st_ino,
    }
    real = os.fstat

    def fstat(descriptor: int) -> os.stat_result:
        status = real(descriptor)
        if status.st_ino != inodes[owned]:
            return status
        fields = list(status[:10])
        fields[stat.ST_UID] = os.geteuid() + 1
        return os.stat_result(fields)

    monkeypatch.setattr(os, "fstat", fstat)
    assert recalled_afresh() is None


# ---- where it lies -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"HOME": "{}/home"}, "{}/home/.local/state/pulse-edge"),
        ({"HOME": "{}/home", "XDG_STATE_HOME": "{}/xdg"}, "{}/xdg/pulse-edge"),
        ({"HOME": "{}/home", "XDG_STATE_HOME": ""}, "{}/home/.local/state/pulse-edge"),
        ({"HOME": "{}/home", "XDG_STATE_HOME": "rel"}, "{}/home/.local/state/pulse-edge"),
        ({"XDG_STATE_HOME": "{}/xdg"}, "{}/xdg/pulse-edge"),
        ({"HOME": "{}/home", VARIABLE: "{}/own"}, "{}/own"),
        ({"HOME": "{}/home", VARIABLE: ""}, "{}/home/.local/state/pulse-edge"),
        ({"HOME": "{}/home", VARIABLE: "off"}, None),
        ({"HOME": "{}/home", VARIABLE: "relative"}, None),
        ({"HOME": "{}/absent"}, None),
        ({"HOME": ""}, None),
        ({"HOME": "home"}, None),
        ({}, None),
    ],
    ids=str,
)
def test_the_folder(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    expected: str | None,
) -> None:
    (tmp_path / "home").mkdir()
    for name in ("HOME", "XDG_STATE_HOME", VARIABLE):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(tmp_path))
    found = state_folder()
    assert found == (Path(expected.format(tmp_path)) if expected else None)
    remember("verdicts", FACTS, VALUE)
    assert recall("verdicts", FACTS) == VALUE
    if found is None:
        assert [path.name for path in tmp_path.rglob("*")] == ["home"]
        assert recalled_afresh() is None
    else:
        assert stat.S_IMODE(found.stat().st_mode) == 0o700
        assert stat.S_IMODE(record(found).stat().st_mode) == 0o600
        assert recalled_afresh() == VALUE


@pytest.mark.parametrize("place", ["/proc/pulse-edge", "/dev/null/state", "{}/file", "{}/file/in"])
def test_where_it_cannot_be_written_memory_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(VARIABLE, place.format(tmp_path))
    remember("verdicts", FACTS, VALUE)
    assert recall("verdicts", FACTS) == VALUE


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "off")
    most = KINDS["rates"].records
    for number in range(most + 5):
        remember("rates", {"n": number}, {"x": number})
    kept = [number for number in range(most + 5) if recall("rates", {"n": number})]
    assert kept == list(range(5, most + 5))


@pytest.mark.parametrize("call", ["open", "rename", "mkdir", "listdir"])
def test_a_disk_that_fails_is_none_of_the_users_concern(
    folder: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    real = getattr(os, call)

    def fail(path: Any, *args: Any, **options: Any) -> Any:
        if "src_dir_fd" in options or options.get("dir_fd") is not None or call == "listdir":
            raise OSError(28, "No space left on device")
        return real(path, *args, **options)

    monkeypatch.setattr(os, call, fail)
    if call == "open":
        monkeypatch.setattr(os, "supports_dir_fd", {fail})
    remember("verdicts", FACTS, VALUE)
    assert recall("verdicts", FACTS) == VALUE
    names = [path.name for path in folder.rglob("*") if path.name.startswith(".")]
    assert names == []  # no half record stays


# ---- several at once -----------------------------------------------------------------------------


def test_threads_never_see_half_a_record(folder: Path) -> None:
    remember("verdicts", FACTS, {"x": [0] * 50})
    seen: list[Any] = []

    def work(number: int) -> None:
        for _ in range(20):
            remember("verdicts", FACTS, {"x": [number] * 50})
            forget()
            seen.append(recall("verdicts", FACTS))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 80
    assert all(value is not None and len(set(value["x"])) == 1 for value in seen)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_remembers() -> None:
    """Also where another thread of the parent remembers at the moment of the fork."""
    script = """
    import os, threading, warnings
    from pulse_edge.state import recall, remember

    warnings.simplefilter("ignore")
    os.environ["PULSE_EDGE_STATE"] = "off"
    stop = threading.Event()

    def busy():
        while not stop.is_set():
            remember("rates", {"n": 1}, {"x": 1})

    thread = threading.Thread(target=busy)
    thread.start()
    codes = []
    for _ in range(20):
        child = os.fork()
        if child == 0:
            remember("rates", {"n": 2}, {"x": 2})
            os._exit(recall("rates", {"n": 2})["x"])
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    stop.set()
    thread.join()
    print(set(codes))
    """
    assert run(script).stdout == "{2}\n"


def test_a_record_is_two_lines_of_json_and_a_checksum(folder: Path) -> None:
    remember("verdicts", FACTS, VALUE)
    checksum, body, end = record(folder).read_text("ascii").split("\n")
    assert (len(checksum), json.loads(body), end) == (64, VALUE, "")
