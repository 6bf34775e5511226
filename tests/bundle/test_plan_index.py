"""The index of plans, and TensorRT's log, on a bundle of a few bytes."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pulse_edge.bundle.bundle import Bundle, open_bundle
from pulse_edge.bundle.plans import (
    LIBRARIES,
    PlanIndex,
    PlanKey,
    available,
    error_log,
    load_library,
    open_plans,
    plan_directory,
    plan_size,
    publish,
    staged,
)
from pulse_edge.errors import EngineError

from support.hand_bundle import write_bundle
from support.manifests import reseal

KEY = PlanKey("tensorrt", "10.16.1", 87)
PLANS = {"vision.plan": b"see", "decoder.plan": b"decode"}


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return open_bundle(write_bundle(tmp_path / "bundle"))


def published(bundle: Bundle, key: PlanKey = KEY, plans: dict[str, bytes] = PLANS) -> PlanIndex:
    with staged(bundle, key) as staging:
        assert staging.parent == bundle.path / "plans"
        for name, content in plans.items():
            (staging / name).write_bytes(content)
        return publish(
            bundle,
            key,
            staging,
            prefill_rows=64,
            logit_rows=8,
            views=5,
            step_profile=1,
            several_profile=2,
        )


def test_plans_come_back(bundle: Bundle) -> None:
    index = published(bundle)
    opened = open_plans(bundle, KEY)
    assert opened.index == index
    assert (index.prefill_rows, index.logit_rows, index.views) == (64, 8, 5)
    assert (index.step_profile, index.several_profile) == (1, 2)
    assert (index.key, index.bundle, index.schema_version) == (KEY, bundle.digest, 1)
    assert opened.files.file("decoder.plan").read() == b"decode"
    assert (plan_size(index, "vision.plan"), plan_size(index, "decoder.plan")) == (3, 6)
    assert available(bundle) == ["tensorrt-10.16.1-sm87"]


def test_what_is_written(bundle: Bundle) -> None:
    published(bundle)
    root = plan_directory(bundle, KEY)
    assert root == bundle.path / "plans" / "tensorrt-10.16.1-sm87"
    assert os.listdir(root.parent) == [root.name]
    assert sorted(os.listdir(root)) == ["decoder.plan", "plans.json", "vision.plan"]
    data = json.loads((root / "plans.json").read_bytes())
    assert reseal(data) == (root / "plans.json").read_bytes()
    assert data["schema_version"] == 1


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_other_users_may_read_plans(bundle: Bundle) -> None:
    published(bundle)
    assert stat.S_IMODE(plan_directory(bundle, KEY).stat().st_mode) == 0o755


@pytest.mark.parametrize("index", [True, False])
def test_plans_replace_those_before(bundle: Bundle, index: bool) -> None:
    published(bundle)
    root = plan_directory(bundle, KEY)
    (root / "left.over").touch()
    if not index:
        (root / "plans.json").unlink()
    published(bundle, plans=PLANS | {"decoder.plan": b"anew"})
    assert open_plans(bundle, KEY).files.file("decoder.plan").read() == b"anew"
    assert sorted(os.listdir(root)) == ["decoder.plan", "plans.json", "vision.plan"]


def test_a_folder_loads_when_its_index_is_whole(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither while the plans before are removed, nor while the index is being written."""
    published(bundle)
    root = plan_directory(bundle, KEY)
    seen: list[list[str]] = []
    rename = Path.rename

    def watched(self: Path, target: Path) -> Path:
        seen.append(available(bundle))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", watched)
    published(bundle)
    assert seen == [[], []]
    assert available(bundle) == [root.name]


def test_a_folder_that_is_half_removed_has_no_plans(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(bundle)
    root = plan_directory(bundle, KEY)
    remove = shutil.rmtree

    def stopped(path: Path, **options: Any) -> None:
        if path == root:
            raise KeyboardInterrupt
        remove(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", stopped)
        with pytest.raises(KeyboardInterrupt):
            published(bundle)
    assert sorted(os.listdir(root)) == ["decoder.plan", "vision.plan"]
    assert os.listdir(root.parent) == [root.name]
    with pytest.raises(EngineError, match="has no plans"):
        open_plans(bundle, KEY)


def test_no_plans(bundle: Bundle) -> None:
    assert available(bundle) == []
    expected = f"{bundle.path} has no plans for {KEY}; build them on this device: pulse-edge build "
    with pytest.raises(EngineError, match=re.escape(expected + str(bundle.path))):
        open_plans(bundle, KEY)
    other = PlanKey("tensorrt_rtx", "1.7", 120)
    published(bundle, other)
    with pytest.raises(EngineError, match=re.escape(f"for {KEY} (but for {other}); build")):
        open_plans(bundle, KEY)
    assert str(other) == "tensorrt_rtx-1.7-sm120"


def edited(root: Path, **fields: Any) -> None:
    data = json.loads((root / "plans.json").read_bytes()) | fields
    (root / "plans.json").write_bytes(reseal(data))


def unlisted(root: Path, name: str) -> None:
    files = json.loads((root / "plans.json").read_bytes())["files"]
    edited(root, files=[file for file in files if file["path"] != name])


OTHER_KEY = {"library": "tensorrt", "version": "10.16.2", "capability": 87}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: edited(root, key=OTHER_KEY), ": its plans were built for tensorrt-10.16.2"),
        (lambda root: edited(root, bundle="ab" * 32), "another bundle (abababababababab…); build"),
        (lambda root: edited(root, schema_version=0), "/plans.json: schema version 0"),
        (lambda root: edited(root, schema_version=2), "/plans.json: schema version 2"),
        (lambda root: unlisted(root, "vision.plan"), "/plans.json: lists no vision.plan; build"),
        (lambda root: unlisted(root, "decoder.plan"), "/plans.json: lists no decoder.plan; build"),
        (lambda root: edited(root, files=[]), "/plans.json: lists no decoder.plan; build them"),
        (lambda root: (root / "vision.plan").write_bytes(b"sea"), "/vision.plan: altered"),
        (lambda root: (root / "decoder.plan").unlink(), "/decoder.plan: missing"),
    ],
)
def test_plans_that_do_not_fit(
    bundle: Bundle, damage: Callable[[Path], object], message: str
) -> None:
    published(bundle)
    root = plan_directory(bundle, KEY)
    damage(root)
    with pytest.raises(EngineError) as caught:
        open_plans(bundle, KEY)
    assert str(caught.value).startswith(f"{root}{message[: message.find(':') + 1]}")
    assert message in str(caught.value)
    assert f"build them again: pulse-edge build {bundle.path}" in str(caught.value)


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt_rtx"])
def test_libraries(monkeypatch: pytest.MonkeyPatch, name: Any) -> None:
    library = SimpleNamespace(__version__="1", IKVCacheUpdateLayer=object)
    monkeypatch.setitem(sys.modules, name, library)
    assert load_library(name) is library
    monkeypatch.setitem(sys.modules, name, SimpleNamespace(__version__="0.9"))
    with pytest.raises(EngineError, match=f"^{name} 0.9 has no KV cache that is updated in place"):
        load_library(name)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(EngineError, match=f"^{name} is not installed") as caught:
        load_library(name)
    assert str(caught.value).endswith(LIBRARIES[name])
    assert list(LIBRARIES) == ["tensorrt", "tensorrt_rtx"]


def test_an_index_names_a_known_library(bundle: Bundle) -> None:
    published(bundle)
    edited(plan_directory(bundle, KEY), key=OTHER_KEY | {"library": "tensorrtXX"})
    with pytest.raises(EngineError, match="'tensorrtXX' is not one of tensorrt, tensorrt_rtx"):
        open_plans(bundle, KEY)


class Logger:
    """TensorRT's base of loggers, whose severities fall from 0, an internal error."""

    INTERNAL_ERROR, ERROR, WARNING, INFO = range(4)
    started = 0

    def __init__(self) -> None:
        type(self).started += 1


def library(name: str) -> Any:
    return SimpleNamespace(__name__=name, ILogger=type("Logger", (Logger,), {}))


def test_a_log_keeps_errors_and_warnings() -> None:
    trt = library("trt of one test")
    log = error_log(trt)
    assert type(log).started == 1
    for severity in range(4):
        log.log(severity, f"message {severity}")
    assert log.complaints == ["message 0", "message 1"]
    assert list(log.warnings) == ["message 2"]
    assert error_log(trt, fresh=False) is log
    assert log.complaints == ["message 0", "message 1"]
    assert list(log.warnings) == ["message 2"]
    assert error_log(trt) is log
    assert (log.complaints, list(log.warnings)) == ([], [])
    assert error_log(library("trt of another test")) is not log


def test_a_log_is_bounded() -> None:
    log = error_log(library("trt that complains"))
    for number in range(1010):
        log.log(Logger.ERROR, f"{number}")
        log.log(Logger.WARNING, f"{number}")
    assert log.complaints == [f"{number}" for number in range(910, 1010)]
    assert list(log.warnings) == [f"{number}" for number in range(10, 1010)]
