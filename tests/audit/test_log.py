"""An audit log while it is written: what a line holds, crashes, full disks, other processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from pulse_edge import configuration
from pulse_edge.audit import log as log_module
from pulse_edge.audit.check import check_logs
from pulse_edge.audit.log import AuditLog, audit_logs
from pulse_edge.audit.record import BEGUN, NOTHING, RESUMED, answer_hash
from pulse_edge.errors import AuditError

from support.answers import PRIVATE, answer
from support.paths import ROOT
from support.process import run
from support.signing import permissions_bind

pytest.importorskip("fcntl", reason="an audit log needs flock")


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda number: None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def records(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_a_line_says_what_gave_the_answer(path: Path) -> None:
    moment = datetime(2026, 3, 1, 12, 0, 0, 123456, timezone(timedelta(hours=1)))
    head = AuditLog(path, clock=lambda: moment).append(answer())
    begun, line = records(path)
    assert begun == {
        "previous": NOTHING,
        "event": BEGUN,
        "time": "2026-03-01T11:00:00.123+00:00",
        "format": "pulse-edge audit log 1",
        "hash": begun["hash"],
    }
    assert line == {
        "previous": begun["hash"],
        "event": "answer",
        "time": "2026-03-01T11:00:00.123+00:00",
        "bundle": "b" * 64,
        "verified": {"how": "checksum", "key": None},
        "engine": {
            "engine": "onnxruntime",
            "engine_version": "1.32.0",
            "device": "cpu",
            "threads": 1,
            "context": 2048,
        },
        "versions": {"pulse-edge": "0.1.0", "python": "3.11.0"},
        "machine": "x86_64",
        "parameters": {"temperature": 0.5, "seed": 3, "stop": 1},
        "usage": {
            "prompt_tokens": 10,
            "image_tokens": 4,
            "cached_tokens": 0,
            "new_tokens": 3,
            "drafted_tokens": 0,
            "accepted_tokens": 0,
        },
        "finish_reason": "eos",
        "answer": answer_hash(answer().to_dict()),
        "hash": head,
    }


def test_no_text_no_path_no_name_and_no_page(path: Path) -> None:
    AuditLog(path).append(answer(note="Jane's", template=["Jane", "Müller"]))
    text = path.read_text("ascii")
    for private in PRIVATE:
        assert private not in text
        assert json.dumps(private)[1:-1] not in text
    assert str(path) not in text


def test_the_log_goes_on_where_another_process_stopped(path: Path) -> None:
    AuditLog(path).append(answer(1))
    first = AuditLog(path).append(answer(2))
    assert check_logs([path]).head == first
    assert check_logs([path]).answers == 2
    assert [r["event"] for r in records(path)] == [BEGUN, "answer", "answer"]


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_only_the_owner_may_read_a_log(path: Path) -> None:
    before = os.umask(0)
    try:
        AuditLog(path)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_line_is_on_the_disk_before_its_answer_is_given(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = AuditLog(path)
    flushed: list[int] = []
    real = os.fsync

    def fsync(number: int) -> None:
        flushed.append(path.stat().st_size)
        real(number)

    monkeypatch.setattr(os, "fsync", fsync)
    log.append(answer())
    assert flushed == [path.stat().st_size]


# -- several writers


def test_threads_share_a_log(path: Path) -> None:
    log = AuditLog(path)
    with ThreadPoolExecutor(4) as pool:
        heads = list(pool.map(lambda n: log.append(answer(n)), range(40)))
    summary = check_logs([path], anchors=heads)
    assert summary.answers == 40


def test_processes_share_a_log_also_over_rotations(path: Path) -> None:
    script = (
        "import sys; sys.path.insert(0, sys.argv[2] + '/tests')\n"
        "from pulse_edge.audit.log import AuditLog\nfrom support.answers import answer\n"
        "log = AuditLog(sys.argv[1], largest=4000)\n"
        "for number in range(9): print(log.append(answer(number)))"
    )
    command = [sys.executable, "-c", script, str(path), str(ROOT)]
    writers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    heads = [line for w in writers for line in w.communicate(timeout=60)[0].split()]
    assert [w.returncode for w in writers] == [0, 0, 0]
    numbered = sorted(path.parent.glob("audit.jsonl.*"), key=lambda p: int(p.suffix[1:]))
    assert len(numbered) >= 2
    summary = check_logs([*numbered, path], anchors=heads)
    assert (summary.answers, summary.cut_short, len(set(heads))) == (27, 0, 27)
    assert sorted(p.name for p in path.parent.iterdir() if p.name.startswith(".")) == []


# -- rotation


def test_a_large_log_goes_on_in_a_new_file(path: Path) -> None:
    log = AuditLog(path, largest=1500)
    heads = [log.append(answer(number)) for number in range(5)]
    first, second = path.with_name("audit.jsonl.1"), path.with_name("audit.jsonl.2")
    assert check_logs([first, second, path], anchors=heads).answers == 5
    assert check_logs([path]).continues == records(second)[-1]["hash"]
    with pytest.raises(AuditError, match="does not continue the file before it"):
        check_logs([first, path])
    with pytest.raises(AuditError, match="does not continue the file before it"):
        check_logs([path, second])


def test_a_crash_in_the_midst_of_a_rotation(path: Path) -> None:
    """The old file has its second name, and the new one is not in place yet."""
    log = AuditLog(path, largest=1500)
    log.append(answer(1))
    log.append(answer(2))
    numbered = path.with_name("audit.jsonl.1")
    os.link(path, numbered)
    log.append(answer(3))
    assert not path.with_name("audit.jsonl.2").exists()
    assert check_logs([numbered, path]).answers == 3


def test_a_log_that_cannot_be_rotated_goes_on_growing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    log = AuditLog(path, largest=1500)
    for number in range(5):
        log.append(answer(number))
    assert check_logs([path]).answers == 5
    assert os.listdir(path.parent) == [path.name]


def test_a_log_that_somebody_moves_away_begins_anew(path: Path) -> None:
    log = AuditLog(path)
    log.append(answer(1))
    path.rename(path.with_name("old"))
    log.append(answer(2))
    assert check_logs([path]).answers == check_logs([path.with_name("old")]).answers == 1


# -- crashes


def cuts(line: bytes) -> list[int]:
    """How many bytes of a last line a crash may have left."""
    return [1, 2, 11, 12, len(line) // 3, len(line) // 2, len(line) - 3, len(line) - 2]


@pytest.mark.parametrize("index", range(8))
def test_the_log_goes_on_after_a_line_that_was_cut_short(path: Path, index: int) -> None:
    log = AuditLog(path)
    kept = log.append(answer(1))
    whole = path.read_bytes()
    log.append(answer(2))
    line = path.read_bytes()[len(whole) :]
    path.write_bytes(whole + line[: cuts(line)[index]])
    summary = check_logs([path], anchors=[kept])
    assert (summary.answers, summary.cut_short, summary.head) == (1, 1, kept)
    head = AuditLog(path).append(answer(3))
    summary = check_logs([path], anchors=[kept])
    assert (summary.answers, summary.cut_short, summary.head) == (2, 1, head)
    assert json.loads(path.read_bytes().splitlines()[-2])["event"] == RESUMED


def test_only_the_end_of_a_line_was_lost(path: Path) -> None:
    log = AuditLog(path)
    log.append(answer(1))
    path.write_bytes(path.read_bytes()[:-1])
    log.append(answer(2))
    assert check_logs([path]).answers == 2
    assert check_logs([path]).cut_short == 0


def test_crashes_one_after_the_other(path: Path) -> None:
    """The line that says so is cut short, too, and then only its end is written."""
    log = AuditLog(path)
    log.append(answer(1))
    for rest in (b'{"previous":"ab', b'\n{"previous":"cd', b"\n", b'{"pre', b'\n{"previous"'):
        path.write_bytes(path.read_bytes() + rest)
    log.append(answer(2))
    path.write_bytes(path.read_bytes() + b'{"prev')
    log.append(answer(3))
    summary = check_logs([path])
    assert (summary.answers, summary.cut_short) == (3, 2)


@pytest.mark.parametrize("size", [0, 1, 5, 40, 200])
def test_a_crash_while_the_first_line_was_written(path: Path, size: int) -> None:
    AuditLog(path)
    path.write_bytes(path.read_bytes()[:size])
    AuditLog(path).append(answer())
    assert check_logs([path]).answers == 1


def test_a_killed_writer_leaves_a_whole_log(path: Path) -> None:
    script = (
        "import os, sys; sys.path.insert(0, sys.argv[2] + '/tests')\n"
        "from pulse_edge.audit.log import AuditLog\nfrom support.answers import answer\n"
        "log = AuditLog(sys.argv[1])\n"
        "print(log.append(answer()), flush=True)\n"
        "while True: log.append(answer())"
    )
    command = [sys.executable, "-c", script, str(path), str(ROOT)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout
        head = writer.stdout.readline().strip()
        writer.kill()
    AuditLog(path).append(answer())
    check_logs([path], anchors=[head])


# -- what cannot be written


def test_a_disk_that_is_full_withholds_the_answer(path: Path) -> None:
    """A limit on the size of files stands for it: a part of the line is written, then no more."""
    done = run(
        """
        import resource, signal, sys
        sys.path.insert(0, sys.argv[2] + "/tests")
        from pulse_edge.audit.log import AuditLog
        from pulse_edge.errors import AuditError
        from support.answers import answer
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        log = AuditLog(sys.argv[1])
        log.append(answer(1))
        limit = log.path.stat().st_size + 300  # a third of a line
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        try:
            log.append(answer(2))
        except AuditError as error:
            print(error)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        log.append(answer(3))
        """,
        path,
        ROOT,
    )
    assert "the audit log cannot be written (File too large), so no answer is given" in done.stdout
    assert done.stdout.count("\n") == 1
    summary = check_logs([path])
    assert (summary.answers, summary.cut_short) == (2, 0), "the part was taken back"


def test_a_line_that_cannot_be_flushed_withholds_the_answer(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = AuditLog(path)

    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(AuditError, match=r"cannot be written \(Input/output error\)"):
            log.append(answer(1))
    log.append(answer(2))
    assert check_logs([path]).answers == 1


@pytest.mark.parametrize("kind", ["no folder", "folder", "link", "dangling", "pipe", "device"])
def test_a_place_that_is_no_file(path: Path, kind: str) -> None:
    place = path
    if kind == "no folder":
        place = path / "audit.jsonl"
    elif kind == "folder":
        path.mkdir()
    elif kind in ("link", "dangling"):
        target = path.with_name("target")
        if kind == "link":
            AuditLog(target)
        path.symlink_to(target)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        place = Path("/dev/null")
    with pytest.raises(AuditError, match=r"^[^\n]+$"):
        AuditLog(place)


def test_a_log_that_may_not_be_written(path: Path) -> None:
    if not permissions_bind():
        pytest.skip("this user may write everywhere")
    AuditLog(path)
    path.chmod(0o400)
    with pytest.raises(AuditError, match=r"cannot be written \(Permission denied\)"):
        AuditLog(path)


@pytest.mark.parametrize(
    "content",
    [b"\x89PNG\r\n", b"hello\n", b"[]\n", b'{"answer":1}\n', b'{"previous":1}\n', b"\n", b"\0" * 9],
)
def test_another_file_is_left_as_it_is(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(AuditError, match="name another file"):
        AuditLog(path)
    assert path.read_bytes() == content


def test_an_altered_end_is_not_written_over(path: Path) -> None:
    log = AuditLog(path)
    log.append(answer(1))
    altered = path.read_bytes().replace(b'"new_tokens":3', b'"new_tokens":4')
    path.write_bytes(altered)
    with pytest.raises(AuditError, match="its end was altered, so nothing is added"):
        log.append(answer(2))
    assert path.read_bytes() == altered


def test_a_system_without_locks(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "fcntl", None)
    with pytest.raises(AuditError, match="needs a system with flock"):
        AuditLog(path)


# -- whose logs


def test_the_logs_of_the_caller_and_of_the_device(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = tmp_path / "rules.toml"
    monkeypatch.setattr(configuration, "SYSTEM_FILE", tmp_path / "none")
    monkeypatch.delenv(configuration.VARIABLE, raising=False)
    assert audit_logs() == ()
    assert [log.path for log in audit_logs(path)] == [path]
    rules.write_text(f'audit = "{tmp_path / "device.jsonl"}"')
    monkeypatch.setenv(configuration.VARIABLE, str(rules))
    assert [log.path for log in audit_logs(path)] == [path, tmp_path / "device.jsonl"]
    rules.write_text(f'audit = "{path}"')
    assert [log.path for log in audit_logs(path)] == [path]
    rules.write_text(f'audit = "{tmp_path}/none/a.jsonl"')
    with pytest.raises(AuditError):
        audit_logs()


def test_the_time_is_now(path: Path) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    AuditLog(path)
    begun = datetime.fromisoformat(str(records(path)[0]["time"]))
    assert before <= begun <= datetime.now(UTC) + timedelta(seconds=1)
