"""A bundle's integrity: any change is refused in one line that says what and where."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pulse_edge.bundle.bundle import open_bundle, open_while_hashing
from pulse_edge.bundle.limits import WEIGHTS
from pulse_edge.bundle.manifest import MANIFEST, SCHEMA_VERSION, Manifest, loads
from pulse_edge.bundle.opened import OpenedFile
from pulse_edge.bundle.sealed_json import dumps
from pulse_edge.errors import BundleError

from support.manifests import edit_manifest, reseal

FILES = (
    "decoder.onnx",
    "decoder.onnx.data",
    "embeddings.bin",
    "tokenizer.model",
    "vision.onnx",
    "vision.onnx.data",
)


@pytest.fixture
def copy(bundle: Path, tmp_path: Path) -> Path:
    """A bundle to damage."""
    return Path(shutil.copytree(bundle, tmp_path / "copy"))


@pytest.fixture(scope="module")
def victim(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A bundle to damage and mend, many times over; at the end it must be whole again."""
    path = Path(shutil.copytree(bundle, tmp_path_factory.mktemp("victim") / "copy"))
    yield path
    open_bundle(path)


@pytest.fixture(scope="module")
def raw(bundle: Path) -> bytes:
    return (bundle / MANIFEST).read_bytes()


def refused(path: Path | str, **options: Any) -> str:
    """The message of the refusal, which is one line."""
    with pytest.raises(BundleError) as caught:
        open_bundle(path, **options)
    assert one_line(caught.value)
    return str(caught.value)


def one_line(error: Exception) -> bool:
    text = str(error)
    return text == text.strip() != "" and text.isprintable() and len(text) < 1000


# -- whole


def test_opens_and_holds_exactly_the_listed_files(bundle: Path) -> None:
    opened = open_bundle(bundle)
    assert tuple(f.path for f in opened.manifest.files) == FILES
    assert sorted(p.name for p in bundle.iterdir()) == sorted([*FILES, MANIFEST])
    assert opened.size == sum(opened.file(f).stat().st_size for f in FILES)
    assert opened.digest == json.loads((bundle / MANIFEST).read_bytes())["seal"]
    assert open_bundle(str(bundle)).manifest == opened.manifest


def test_manifest_round_trip(raw: bytes) -> None:
    manifest = loads(raw)
    assert dumps(manifest) == raw
    assert loads(dumps(manifest)) == manifest
    assert manifest.sealed() == manifest
    assert manifest.schema_version == SCHEMA_VERSION == 1
    renamed = dataclasses.replace(manifest, target="cuda").sealed()
    assert renamed.seal != manifest.seal
    assert loads(dumps(renamed)) == renamed
    assert (
        reseal(json.loads(raw)) == raw
    )  # the helper of these tests makes what the format asks for


def test_progress_adds_up(bundle: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    opened = open_bundle(bundle, progress=lambda *call: seen.append(call))
    assert {(stage, total) for stage, _, total in seen} == {("checking", opened.size)}
    assert sum(amount for _, amount, _ in seen) == opened.size


# -- one byte


@pytest.mark.parametrize("name", FILES)
def test_one_flipped_bit_in_any_file(victim: Path, name: str) -> None:
    size = (victim / name).stat().st_size

    @settings(max_examples=60, deadline=None, database=None)
    @given(st.integers(0, size - 1), st.integers(0, 7))
    @example(0, 0)
    @example(size - 1, 7)
    def check(at: int, bit: int) -> None:
        with (victim / name).open("r+b") as file:
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 1 << bit]))
            file.flush()
            try:
                message = refused(victim)
            finally:
                file.seek(at)
                file.write(bytes([byte]))
        assert str(victim / name) in message
        assert "altered" in message

    check()


def test_every_byte_of_the_manifest_counts(raw: bytes) -> None:
    """All of them, one after the other: brackets, white space, digits, hashes, the newline at the
    end.
    """
    for at in range(len(raw)):
        changed = raw[:at] + bytes([raw[at] ^ 1 << at % 8]) + raw[at + 1 :]
        with pytest.raises(BundleError) as caught:
            loads(changed)
        assert one_line(caught.value)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_inserted_removed_and_doubled_bytes_of_the_manifest(
    raw: bytes, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(raw)))
    end = data.draw(st.integers(at, min(len(raw), at + 40)))
    piece = data.draw(
        st.one_of(
            st.just(raw[at:end] * 2), st.binary(max_size=3), st.sampled_from([b" ", b"\n", b"0"])
        )
    )
    changed = raw[:at] + piece + raw[end:]
    if changed == raw:
        return
    with pytest.raises(BundleError) as caught:
        loads(changed)
    assert one_line(caught.value)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"eps": 1e-05', b'"eps": 1e-5'),
        (b'"eps": 1e-05', b'"eps": 0.00001'),
        (b"10000.0", b"10000.00"),
        (b"10000.0", b"1e4"),
        (b'"legacy": false', b'"legacy":  false'),
        (b"0.48145466", b"0.481454660"),
        (b"0.48145466", b"NaN"),
        (b'"target": "cpu"', b'"target": "cp\\u0075"'),
        (b'"target": "cpu",', b'"target": "cpu", "target": "cpu",'),
        (b" 1,\n", b" 1,\r\n"),
        (b"{\n", b"\xef\xbb\xbf{\n"),
    ],
)
def test_another_spelling_of_the_same_manifest(raw: bytes, old: bytes, new: bytes) -> None:
    assert old in raw
    with pytest.raises(BundleError):
        loads(raw.replace(old, new, 1))


# -- files


@pytest.mark.parametrize("name", FILES)
def test_removed_truncated_and_longer_files(copy: Path, name: str) -> None:
    file = copy / name
    content = file.read_bytes()
    for changed in (content[:-1], content[: len(content) // 2], b"", content + b"\0"):
        file.write_bytes(changed)
        for check_hashes in (True, False):
            message = refused(copy, check_hashes=check_hashes)
            assert f"{file}: {len(changed)} bytes, {MANIFEST} says {len(content)}" in message
    file.unlink()
    for check_hashes in (True, False):
        assert f"{file}: missing" in refused(copy, check_hashes=check_hashes)
    file.mkdir()
    assert str(file) in refused(copy)


def test_hashes_can_be_left_out_sizes_cannot(copy: Path) -> None:
    (copy / "embeddings.bin").write_bytes(bytes((copy / "embeddings.bin").stat().st_size))
    assert "altered" in refused(copy)
    open_bundle(copy, check_hashes=False)


# -- checked while an engine is made


def flip(path: Path, name: str) -> None:
    content = bytearray((path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (path / name).write_bytes(content)


def test_what_is_parsed_is_checked_before_what_is_only_read_meanwhile(
    bundle: Path, tmp_path: Path
) -> None:
    """A flipped bit in any file: the body runs only where no parser can meet it; the bundle is
    refused even then.
    """
    names = [f.path for f in open_bundle(bundle).manifest.files]
    assert {n for n in names if n.endswith(WEIGHTS)} == {
        "decoder.onnx.data",
        "vision.onnx.data",
        "embeddings.bin",
    }
    for name in names:
        copy, begun = tmp_path / name.replace(".", "-"), False
        shutil.copytree(bundle, copy)
        flip(copy, name)
        with pytest.raises(BundleError, match=rf"{name}: altered"), open_while_hashing(copy):
            begun = True
        assert begun == name.endswith(WEIGHTS)


def test_a_body_that_fails_of_altered_weights_says_so(copy: Path) -> None:
    flip(copy, "decoder.onnx.data")
    with (
        pytest.raises(BundleError, match=r"decoder\.onnx\.data: altered"),
        open_while_hashing(copy),
    ):
        raise RuntimeError("no such weights")
    with (
        pytest.raises(RuntimeError, match="another reason"),
        open_while_hashing(copy, check_hashes=False),
    ):
        raise RuntimeError("another reason")


def test_a_body_that_fails_of_its_own_says_that(bundle: Path) -> None:
    with pytest.raises(RuntimeError, match="out of memory"), open_while_hashing(bundle):
        raise RuntimeError("out of memory")


def test_weights_are_checked_while_the_body_runs(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, hash_file = threading.Event(), OpenedFile.sha256
    late_files: list[str] = []

    def late(self: OpenedFile, step: Callable[[int], None] | None = None) -> str:
        assert running.wait(10), "hashed before the body, or instead of it"
        late_files.append(self.path.name)
        return hash_file(self, step)

    monkeypatch.setattr(OpenedFile, "sha256", late)
    with open_while_hashing(bundle) as opened:
        running.set()
    assert sorted(late_files) == sorted(opened.weights)


def test_ctrl_c_does_not_wait_for_the_rest_of_the_check(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = threading.Event()

    def endless(_self: OpenedFile, step: Callable[[int], None]) -> str:
        while True:
            step(1)
            started.set()
            time.sleep(0.001)

    monkeypatch.setattr(OpenedFile, "sha256", endless)
    with pytest.raises(KeyboardInterrupt), open_while_hashing(bundle):
        raise KeyboardInterrupt if started.wait(10) else AssertionError


def test_what_is_not_a_bundle_says_what_it_is(checkpoint: Path, tmp_path: Path) -> None:
    assert "looks like a checkpoint; run 'pulse-edge export'" in refused(checkpoint)
    assert f"no {MANIFEST}" in refused(tmp_path)
    assert "not a directory" in refused(tmp_path / "absent")
    assert "not a directory" in refused(checkpoint / "config.json")
    (tmp_path / MANIFEST).mkdir()
    assert "cannot be read" in refused(tmp_path)


def test_links_that_lead_nowhere_or_to_something_endless(copy: Path) -> None:
    content = (copy / "embeddings.bin").read_bytes()
    (copy / "embeddings.bin").unlink()
    (copy / "embeddings.bin").symlink_to(copy / "embeddings.bin")
    assert str(copy / "embeddings.bin") in refused(copy)
    (copy / "embeddings.bin").unlink()
    os.mkfifo(copy / "embeddings.bin")
    edit_manifest(copy, lambda m: m["files"][FILES.index("embeddings.bin")].update(size=0))
    assert "embeddings.bin" in refused(copy)
    (copy / "embeddings.bin").unlink()
    (copy / "embeddings.bin").write_bytes(content)
    (copy / MANIFEST).unlink()
    os.mkfifo(copy / MANIFEST)
    assert MANIFEST in refused(copy)


# -- the manifest's fields


def paths(value: Any, at: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Every place in a manifest."""
    yield at
    children = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, child in children:
        yield from paths(child, (*at, key))


def put(data: Any, at: tuple[str | int, ...], change: Callable[[Any, Any], object]) -> bytes:
    """`data` with `change(parent, key)` done at a place, sealed again."""
    data = json.loads(json.dumps(data))
    parent = data
    for key in at[:-1]:
        parent = parent[key]
    change(parent, at[-1])
    return reseal(data)


def remove(parent: Any, key: Any) -> None:
    del parent[key]


def test_a_missing_field_is_named(raw: bytes) -> None:
    data = json.loads(raw)
    free = ("tools", "seal", "schema_version")
    fields = [p for p in paths(data) if p and isinstance(p[-1], str) and p[0] not in free]
    assert len(fields) > 60
    for at in fields:
        with pytest.raises(BundleError, match=f"missing field '{at[-1]}'") as caught:
            loads(put(data, at, remove))
        assert one_line(caught.value)
    with pytest.raises(BundleError, match="missing field 'seal'"):
        loads(json.dumps({k: v for k, v in data.items() if k != "seal"}).encode())


def test_an_unknown_field_is_named(raw: bytes) -> None:
    data = json.loads(raw)
    objects = [
        (),
        *(p for p in paths(data) if p and p[0] != "tools" and isinstance(_at(data, p), dict)),
    ]
    assert len(objects) > 10
    for at in objects:
        with pytest.raises(BundleError, match="unknown field 'colour'") as caught:
            loads(put(data, (*at, "colour"), lambda parent, key: parent.update({key: 1})))
        assert one_line(caught.value)


def _at(data: Any, path: tuple[str | int, ...]) -> Any:
    for key in path:
        data = data[key]
    return data


@pytest.mark.parametrize(
    "wrong", [None, True, 1.5, 3, "x", [], [1], {}, {"a": 1}, [[]], "\ud800", "\n", -1, 10**400]
)
def test_a_field_of_the_wrong_type_is_refused_where_it_stands(raw: bytes, wrong: Any) -> None:
    """Every place takes every kind of value; those of the right type pass and are not this test's
    concern.
    """
    data = json.loads(raw)
    refusals = 0
    for at in paths(data):
        if at not in ((), ("seal",)) and type(_at(data, at)) is not type(wrong):
            with pytest.raises(BundleError) as caught:
                loads(put(data, at, lambda parent, key: parent.__setitem__(key, wrong)))
            assert one_line(caught.value)
            assert at[0] == "schema_version" or str(at[-1]) in str(caught.value)
            refusals += 1
    assert refusals > 20
    with pytest.raises(BundleError):
        loads(json.dumps(data | {"seal": wrong}, indent=1).encode())


@pytest.mark.parametrize("version", [0, 2, -1, "1", 1.0, True, None, [1], {}, "9" * 5000])
def test_another_schema_version_says_both(copy: Path, version: Any) -> None:
    edit_manifest(copy, lambda m: m.update(schema_version=version))
    message = refused(copy)
    assert "schema" in message
    if version not in (1, True):
        assert f"this pulse-edge reads {SCHEMA_VERSION}" in message


@pytest.mark.parametrize(
    "name",
    [
        "../copy/embeddings.bin",
        "/etc/passwd",
        "./embeddings.bin",
        "sub/embeddings.bin",
        "..",
        ".",
        "",
        "a\0b",
        "\n",
    ],
)
def test_a_file_name_that_leads_elsewhere(copy: Path, name: str) -> None:
    (copy / "sub").mkdir()
    shutil.copy(copy / "embeddings.bin", copy / "sub")
    edit_manifest(copy, lambda m: m["files"][FILES.index("embeddings.bin")].update(path=name))
    for check_hashes in (True, False):
        assert "not a plain file name" in refused(copy, check_hashes=check_hashes)


@pytest.mark.parametrize(
    "name", ["decoder.onnx", "embeddings.bin", "tokenizer.model", "vision.onnx"]
)
def test_a_manifest_that_does_not_list_a_part(copy: Path, name: str) -> None:
    edit_manifest(copy, lambda m: m.update(files=[f for f in m["files"] if f["path"] != name]))
    assert f"lists no {name}" in refused(copy)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0",
        b"\xff\xfe",
        b"{",
        b"[]",
        b"null",
        b"1",
        b'"x"',
        b"{}",
        b"not json",
        b"NaN",
        b"1" * 5000,
        b"\xef\xbb\xbf{}",
        '{"schema_version": 1}'.encode("utf-16"),
        b'{"schema_version": 1}',
        b"\x89PNG\r\n\x1a\n",
        b"version https://git-lfs.github.com/spec/v1",
    ],
)
def test_a_manifest_that_is_none(copy: Path, content: bytes) -> None:
    (copy / MANIFEST).write_bytes(content)
    assert MANIFEST in refused(copy)


@pytest.mark.parametrize(("left", "right"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_deep_nesting_is_refused_at_every_depth(left: bytes, right: bytes) -> None:
    for depth in (*range(10, 1100, 45), 5_000, 200_000):
        deep = left * depth + b"1" + right * depth
        for raw in (
            deep,
            b'{"schema_version": 1, "model": ' + deep + b"}",
            b'{"schema_version": ' + deep + b"}",
        ):
            with pytest.raises(BundleError) as caught:
                loads(raw)
            assert one_line(caught.value)


def test_the_seal_covers_the_files(bundle: Path, copy: Path) -> None:
    """Two bundles of equal seals are equal; a forged manifest has another one, which every answer
    carries.
    """
    other = (copy / "embeddings.bin").read_bytes()[::-1]
    (copy / "embeddings.bin").write_bytes(other)
    at = FILES.index("embeddings.bin")
    edit_manifest(copy, lambda m: m["files"][at].update(sha256=hashlib.sha256(other).hexdigest()))
    forged = open_bundle(copy)
    assert forged.digest != open_bundle(bundle).digest
    assert isinstance(forged.manifest, Manifest)
