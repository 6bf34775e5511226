"""The rules of docs/architecture.md, read from the source.

Floors, third-party modules, seams, legal values, names. Imports inside functions count. There are
no exceptions.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from support.paths import ROOT

# Import root -> its folder. The first two are the product: what an installation holds.
PRODUCT = {"pulse_edge": ROOT / "pulse_edge", "pulse_export": ROOT / "export" / "pulse_export"}
CLONE = {"benchmarks": ROOT / "benchmarks", "pulse_nano": ROOT / "pulse_nano"}

# Rule 1, lowest floor first. A room is a folder or a file of pulse_edge; the exporter is one room.
FLOORS = (
    {
        *("errors", "progress", "cancellation", "system", "units", "arrays", "assets"),
        *("privacy", "state", "guarded", "log"),
    },
    {"configuration", "deadline", "known"},
    {"bundle", "params", "ecg"},
    {"engines", "simulation"},
    {"page", "text"},
    {"decode"},
    {"provenance"},
    {"answer"},
    {"delivery", "rates"},
    {"panels", "audit", "health", "look", "turns", "job"},
    {"stream", "worker", "runner"},
    {"chat", "dispatcher"},
    {"model"},
    {"measure"},
    {"evaluate"},
    {"serve", "pulse_export"},
    {"pulse_edge"},  # the public names, pulse_edge/__init__.py
    {"cli"},
    {"__main__"},
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
# What a clone's folders may import of the project. None: everything.
CLONE_ROOMS = {
    "benchmarks": None,
    "pulse_nano": {"pulse_nano"} | {r for r in FLOOR if r != "pulse_export"},
}

# Rule 2: module prefix -> third-party modules. A new dependency is a row here. The prefixes that
# match add up; a row for `onnxruntime` holds for `onnxruntime_runs` too.
THIRD_PARTY = {
    "pulse_edge.arrays": {"numpy"},
    "pulse_edge.bundle": {"numpy"},
    "pulse_edge.bundle.keys": {"cryptography"},
    "pulse_edge.bundle.signatures": {"cryptography"},
    "pulse_edge.params": {"numpy"},
    "pulse_edge.ecg": {"numpy", "PIL"},
    "pulse_edge.ecg.readers": {"pydicom"},
    "pulse_edge.ecg.readers.library": {"ecgdatakit"},
    "pulse_edge.engines": {"numpy"},
    "pulse_edge.engines.onnxruntime": {"onnxruntime"},
    "pulse_edge.engines.openvino": {"openvino"},
    "pulse_edge.engines.tensorrt": {"tensorrt", "tensorrt_rtx"},
    "pulse_edge.engines.cuda_runtime": {"cuda"},
    "pulse_edge.engines.native": {"cuda"},
    "pulse_edge.simulation": {"numpy", "PIL"},
    "pulse_edge.simulation.dicom_file": {"pydicom"},
    "pulse_edge.page": {"numpy", "PIL"},
    "pulse_edge.page.pdf": {"pypdfium2"},
    "pulse_edge.text": {"numpy", "sentencepiece"},
    "pulse_edge.text.json_tokenizer": {"tokenizers"},
    "pulse_edge.decode": {"numpy"},
    "pulse_edge.decode.constraint": {"llguidance"},
    "pulse_edge.provenance": {"numpy"},
    "pulse_edge.answer": {"numpy"},
    "pulse_edge.delivery": set(),
    "pulse_edge.stream": set(),
    "pulse_edge.panels": {"numpy"},
    "pulse_edge.worker": {"numpy"},
    "pulse_edge.chat": {"numpy"},
    "pulse_edge.model": {"numpy"},
    "pulse_edge.measure": {"numpy"},
    "pulse_edge.measure.energy": {"pynvml"},
    "pulse_edge.evaluate": {"numpy"},
    "pulse_edge.evaluate.ecgbench.parquet": {"pyarrow"},
    "pulse_edge.serve": {
        "starlette",
        "uvicorn",
        "prometheus_client",
        "python_multipart",
        "pybase64",
    },
    "pulse_edge.serve.ray": {"ray"},
    "pulse_edge.cli": {"numpy", "click"},
    "pulse_export": {"numpy", "onnx", "ml_dtypes", "safetensors", "rich", "PIL"},
    "pulse_export.plan": {"tensorrt", "tensorrt_rtx"},
    "pulse_export.network.optimum.library": {"torch", "transformers", "optimum", "onnxruntime"},
}

# Rule 3: a room of implementations -> who may name them, and what the room shares. Its other files
# are named by the registry alone. An implementation may have several files: `onnxruntime` and
# `onnxruntime_runs` are one.
SEAMS = {
    "pulse_edge.engines": (
        {"registry"},
        {
            "__init__",
            "engine",
            "registry",
            "table",
            "cursor",
            "chunk",
            "options",
            "slot",
            "faster",
            "cuda_runtime",
            "cuda_driver",
            "onnxruntime_library",  # the one import of a package that measuring uses, too
        },
    ),
    "pulse_edge.ecg.readers": ({"registry"}, {"__init__", "registry", "library"}),
    "pulse_export.targets": ({"registry"}, {"__init__", "registry", "target", "options"}),
    "pulse_edge.cli": (
        {"__init__", "registry", "main"},
        {
            *(
                "__init__",
                "registry",
                "main",
                "options",
                "status",
                "stage_bar",
                "answers",
                "exporter",
            ),
            *("terminal", "questions", "signals", "shortage", "failure", "completion", "sources"),
            *("conversation", "line_editing", "layouts"),
        },
    ),
    "pulse_edge.evaluate": (
        {"registry"},
        {"__init__", "registry", "task", "run", "scoring", "layouts"},
    ),
}
NAMEDTUPLE_API = {"_replace", "_asdict", "_fields", "_make", "_field_defaults"}

# Rule 4: words that are legal values together -> the files that may list them, by the end of their
# path. Another file that writes three of them, or all, into one literal collection has a list of
# its own that will drift.
VOCABULARIES = {
    "cache types": ({"fp32", "fp16", "int8"}, {"bundle/manifest.py"}),
    "precisions": (
        {"fp32", "fp16", "int8", "int4", "w8a8"},
        # A target's file names the precisions that it runs: that is the seam.
        {"precision.py", "precisions.py", "targets/onnxruntime.py", "targets/tensorrt.py"},
    ),
    # The registry maps each name to its file; the type checker compares it with the manifest.
    "targets": ({"cpu", "cuda", "standard"}, {"bundle/manifest.py", "targets/registry.py"}),
    "devices": ({"auto", "cpu", "cuda"}, {"engines/table.py"}),
    "engines": ({"onnxruntime", "tensorrt"}, {"engines/table.py"}),
    "merges": ({"flat", "spatial_unpad"}, {"bundle/spec.py"}),
    "tensorrt libraries": (
        {"tensorrt", "tensorrt_rtx"},
        {"engines/tensorrt.py", "bundle/plans.py"},
    ),
}

# Rule 5: top-level names that two product files may define.
SHARED_NAMES = {
    "main": "the entry point of a program",
    "open_engine": "the one name that the engine registry asks every engine for",
    "target": "the one name that the target registry asks every target for",
}


class Source(NamedTuple):
    """A parsed file. `module` is its import name, `room` its place in FLOORS."""

    path: Path
    module: str
    tree: ast.Module

    @property
    def where(self) -> str:
        return str(self.path.relative_to(ROOT))

    @property
    def room(self) -> str:
        return room_of(self.module)

    def in_room(self, package: str) -> bool:
        return self.module.rpartition(".")[0] == package


def room_of(module: str) -> str:
    root, *rest = module.split(".")
    return rest[0] if root == "pulse_edge" and rest else root


@cache
def sources(clone: bool = False) -> tuple[Source, ...]:
    """Every file of the product, or of the folders that only a clone has."""
    found = []
    for root, folder in (CLONE if clone else PRODUCT).items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            module = ".".join((root, *(part for part in parts if part != "__init__")))
            found.append(Source(path, module, ast.parse(path.read_text("utf-8"))))
    return tuple(found)


@cache
def modules() -> frozenset[str]:
    return frozenset(source.module for source in (*sources(), *sources(True)))


def imports(source: Source) -> Iterator[tuple[str, str]]:
    """(module, name or "") of every import, in functions too, and of `import_module("…")`."""
    package = (
        source.module if source.path.name == "__init__.py" else source.module.rpartition(".")[0]
    )
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            base = ".".join(parents[: len(parents) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            for alias in node.names:
                child = f"{module}.{alias.name}"
                yield (child, "") if child in modules() else (module, alias.name)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = (
                node.func.attr
                if isinstance(node.func, ast.Attribute)
                else getattr(node.func, "id", "")
            )
            if called in ("import_module", "__import__") and not str(node.args[0].value).startswith(
                "."
            ):
                yield str(node.args[0].value), ""


def is_ours(module: str) -> bool:
    return module.split(".")[0] in PRODUCT | CLONE


# ---- 1: floors -----------------------------------------------------------------------------------


def upward_imports() -> Iterator[str]:
    for source in sources():
        for module, name in imports(source):
            if not is_ours(module) or (module == "pulse_edge" and name == "__version__"):
                continue
            room = room_of(module)
            if room == source.room:
                continue
            if room not in FLOOR or source.room not in FLOOR or FLOOR[room] >= FLOOR[source.room]:
                yield f"{source.where} -> {module}"
    for source in sources(True):
        allowed = CLONE_ROOMS[source.room]
        for module, _ in imports(source):
            if is_ours(module) and allowed is not None and room_of(module) not in allowed:
                yield f"{source.where} -> {module}"


def import_cycles() -> Iterator[str]:
    """Groups of product modules that import each other, directly or through others."""
    graph = {
        source.module: {m for m, _ in imports(source) if m in modules() and m != source.module}
        for source in sources()
    }
    reach = {module: _reachable(graph, module) for module in graph}
    groups = {frozenset({m, *(o for o in reach[m] if m in reach.get(o, ()))}) for m in graph}
    yield from (" <-> ".join(sorted(group)) for group in groups if len(group) > 1)


def _reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        for module in graph.get(waiting.pop(), set()) - seen:
            seen.add(module)
            waiting.append(module)
    return seen


# ---- 2: third-party modules ----------------------------------------------------------------------


def foreign_imports() -> Iterator[str]:
    for source in sources():
        allowed: set[str] = set()
        for prefix, names in THIRD_PARTY.items():
            if f"{source.module}.".startswith((f"{prefix}.", f"{prefix}_")):
                allowed |= names
        for module, _ in imports(source):
            top = module.split(".")[0]
            if not is_ours(module) and top not in sys.stdlib_module_names and top not in allowed:
                yield f"{source.where} -> {top}"


# ---- 3: seams and private names ------------------------------------------------------------------


def named_implementations() -> Iterator[str]:
    for source in (*sources(), *sources(True)):
        for module, _ in imports(source):
            package, _, file = module.rpartition(".")
            if package not in SEAMS:
                continue
            registries, shared = SEAMS[package]
            registry = source.module in {package, *(f"{package}.{name}" for name in registries)}
            same = source.module.rpartition(".")[2].split("_")[0] == file.split("_")[
                0
            ] and source.in_room(package)
            if file not in shared and not registry and not same:
                yield f"{source.where} -> {module}"


def private_access() -> Iterator[str]:
    """Imports of `_name`, and `thing._name` where the file does not define `_name` itself."""
    for source in (*sources(), *sources(True)):
        yield from _private_of_others(source)


def private_access_of_tests() -> Iterator[str]:
    """As `private_access`, of the suite: a test that knows a private name pins it.

    Names in strings count, too: `monkeypatch.setattr(thing, "_name", …)`.
    """
    for path in sorted((ROOT / "tests").rglob("*.py")):
        source = Source(path, path.stem, ast.parse(path.read_text("utf-8")))
        yield from _private_of_others(source)
        yield from _private_in_strings(source)


def _private_of_others(source: Source) -> Iterator[str]:
    for module, name in imports(source):
        if is_ours(module) and any(_private(part) for part in (*module.split("."), name)):
            yield f"{source.where}: {module} {name}".rstrip()
    own = _defined(source.tree)
    for node in ast.walk(source.tree):
        if (
            not isinstance(node, ast.Attribute)
            or not _private(node.attr)
            or node.attr in NAMEDTUPLE_API | own
        ):
            continue
        shown = ast.unparse(node)
        standard = shown.split(".")[0] in sys.stdlib_module_names
        foreign = shown.startswith("torch.ops.")  # public operators with such names
        if not standard and not foreign and shown.rpartition(".")[0] not in ("self", "cls"):
            yield f"{source.where}: {shown}"


def _private_in_strings(source: Source) -> Iterator[str]:
    """Private names that `setattr`, `getattr` and `delattr` take as strings."""
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.Call) or not ast.unparse(node.func).endswith("attr"):
            continue
        for argument in node.args[:2]:
            name = argument.value if isinstance(argument, ast.Constant) else None
            if isinstance(name, str) and any(_private(part) for part in name.split(".")):
                yield f"{source.where}: {ast.unparse(node.func)} {name}"


def _private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def _defined(tree: ast.Module) -> set[str]:
    """Names that a file binds: functions, classes, variables, attributes of `self`, fields."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names |= {node.attr} if ast.unparse(node.value) in ("self", "cls") else set()
    return names


# ---- 4: legal values -----------------------------------------------------------------------------


def repeated_values() -> Iterator[str]:
    for source in sources():
        for node in ast.walk(source.tree):
            words = _words(node)
            complete = [
                (-len(words & values), len(values), vocabulary)
                for vocabulary, (values, _) in VOCABULARIES.items()
                if len(words & values) >= min(3, len(values))
            ]
            if complete:
                vocabulary = min(complete)[2]  # the one that explains most of the words
                values, homes = VOCABULARIES[vocabulary]
                if not source.where.endswith(tuple(homes)):
                    yield f"{source.where}: {vocabulary} {', '.join(sorted(words & values))}"


def _words(node: ast.AST) -> set[str]:
    """The strings of a literal collection: a tuple, list, set, `Literal[...]`, a dict's keys."""
    items: Iterable[ast.AST | None] = ()
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        items = node.elts
    elif isinstance(node, ast.Dict):
        items = node.keys
    return {
        item.value
        for item in items
        if isinstance(item, ast.Constant) and isinstance(item.value, str)
    }


# ---- 5: one name, one file -----------------------------------------------------------------------


def repeated_names() -> Iterator[str]:
    files = defaultdict(set)
    for source in sources():
        for node in source.tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
                files[node.name].add(source.where)
    for name, places in sorted(files.items()):
        dunder = name.startswith("__") and name.endswith("__")
        if len(places) > 1 and name not in SHARED_NAMES and not dunder:
            yield f"{name}: {', '.join(sorted(places))}"


RULES = {
    "1 imports go down": upward_imports,
    "1 no cycles": import_cycles,
    "2 third-party modules": foreign_imports,
    "3 registries name implementations": named_implementations,
    "3 private stays private": private_access,
    "3 private, in tests": private_access_of_tests,
    "4 legal values have one home": repeated_values,
    "5 one name, one file": repeated_names,
}


@pytest.mark.parametrize("rule", RULES)
def test_the_rule_holds(rule: str) -> None:
    assert sorted(set(RULES[rule]())) == []


def test_every_room_has_a_floor() -> None:
    rooms = {source.room for source in sources()}
    assert rooms <= set(FLOOR)
    assert len(FLOOR) == sum(map(len, FLOORS)), "a room is on two floors"


def test_the_documented_floors_are_these() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", page, re.M)
    documented = [
        set(re.findall(r"`(\w+)`", rooms)) for _, rooms in sorted(rows, key=lambda row: int(row[0]))
    ]
    assert documented == [rooms for rooms in FLOORS if rooms != {"pulse_edge"}]


def test_the_runtime_has_no_training_framework() -> None:
    """Neither torch in the runtime nor onnx outside the exporter. The one file that has torch is
    the exporter's way to Optimum, which a workstation runs."""
    for source in sources():
        if source.module == "pulse_export.network.optimum.library":
            continue
        tops = {module.split(".")[0] for module, _ in imports(source)}
        assert not tops & {"torch", "transformers", "matplotlib", "scipy"}, source.where
        assert source.module.startswith("pulse_export") or not tops & {"onnx", "safetensors"}, (
            source.where
        )


def test_no_file_names_a_machine() -> None:
    """Neither source nor documents hold paths of the machine they were written on."""
    local = re.compile(r"(?<![\w.])/(?:work|root|home/\w+)/")
    paths = [p for root in (*PRODUCT.values(), *CLONE.values()) for p in root.rglob("*.py")]
    paths += [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "pulse_nano").glob("*.md"),
    ]
    assert not [str(p.relative_to(ROOT)) for p in paths if local.search(p.read_text("utf-8"))]
