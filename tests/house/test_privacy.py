"""No process of ours asks the network for anything, or writes where it was not told to.

Shown by strace, for every command, and in the source, for every import of a library that reports.
A dependency that is added later is covered as soon as a command uses it.
"""

from __future__ import annotations

import ast
import json
import os
import sys
from pathlib import Path

import pytest

from pulse_edge.assets import SAMPLE_PAGE
from pulse_edge.cli.registry import COMMANDS
from pulse_edge.privacy import silent_variables

from support.fixture_types import Bundles, Checkpoints
from support.paths import ROOT
from support.traced import Trace, trace, why_no_trace

NOTICE = "Research use only: not a medical device, not for diagnosis or treatment."
# Commands run one after the other in one process, each as if by itself.
RUN = """
import json, sys
from pulse_edge.cli.main import main
codes = []
for arguments in json.load(open(sys.argv[1])):
    try:
        main(arguments)
    except SystemExit as error:
        codes.append(error.code)
json.dump(codes, open(sys.argv[2], "w"))
"""
Arguments = tuple[str | Path, ...]
# Command -> (its arguments, exit code, line on stderr). {bundle}, {checkpoint}, {page} and
# {recording} are there before; {out} is where it may write. A new command is a row here.
SHORT = ("--threads", "1", "--max-new-tokens", "2")
BENCH = ("--quick", "-r", "1", "--warmup", "0", "-n", "2", "--prompt-lengths", "8")
ROWS: dict[str, tuple[Arguments, int, str]] = {
    "sample": (("sample", "{out}"), 0, ""),
    "ask": (("ask", "{recording}", "--model", "{bundle}", *SHORT), 0, ""),
    "chat": (("chat", "{page}", "--model", "{bundle}", *SHORT), 0, NOTICE),
    "panel": (("panel", "{page}", "--json"), 0, ""),
    "draw": (("draw", "{recording}", "{out}/page.png"), 0, ""),
    "info": (("info", "{bundle}"), 0, ""),
    "export": (("export", "{checkpoint}", "{out}/bundle"), 0, ""),
    "build": (("build", "{bundle}", "--device", "sm90"), 8, "error: "),
    "verify": (("verify", "{bundle}", "--against", "{checkpoint}", "--tokens", "2"), 0, ""),
    "sign": (("sign", "--new-key", "{out}/key.pem"), 0, ""),
    "audit": (("audit", "verify", "{out}/missing.jsonl"), 10, "error: "),
    # What a server does is traced in tests/serve/test_server_traced.py.
    "serve": (("serve", "--host", "192.0.2.1"), 2, "error: "),
    "eval": (("eval", "--pages", "1", "--workers", "1"), 0, ""),
    # What `run --base-url` and `judge` ask is the URL that they are given.
    "ecgbench": (("ecgbench", "mini", "--out", "{out}/mini", "--pages", "1"), 0, ""),
    "bench": (("bench", "{bundle}", *BENCH, "--append", "{out}/records.jsonl"), 0, ""),
    "fit": (("fit", "--model", "pulse-7b", "--device", "orin-nano-8gb"), 0, ""),
}

needs_strace = pytest.mark.skipif(bool(why_no_trace()), reason=why_no_trace())


class Place:
    """A folder for one traced process: its HOME, temporary files, output and inputs."""

    def __init__(self, root: Path, inputs: dict[str, Path]) -> None:
        self.root = root
        self.home = root / "home"
        self.out = root / "out"
        self.temporary = root / "tmp"
        for folder in (self.home, self.out, self.temporary):
            folder.mkdir()
        self._inputs = inputs | {"out": self.out}

    def environment(self, **more: str) -> dict[str, str]:
        kept = {
            name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ
        }
        search = os.pathsep.join(str(ROOT / folder) for folder in (".", "export"))
        return {
            **kept,
            "PYTHONPATH": search,
            "PYTHONDONTWRITEBYTECODE": "1",
            # Else Python itself looks the user up when it starts without HOME (site.py).
            "PYTHONUSERBASE": str(self.out),
            "TMPDIR": str(self.temporary),
            "HOME": str(self.home),
            **more,
        }

    def python(self, code: str, *arguments: str | Path, **environment: str) -> Trace:
        """Trace a Python program. An empty variable is not set."""
        variables = {k: v for k, v in self.environment(**environment).items() if v}
        command = [sys.executable, "-c", code, *arguments]
        return trace(command, self.root / "trace", variables, self.out)

    def commands(self, names: tuple[str, ...], **environment: str) -> tuple[Trace, list[int]]:
        """Trace commands of the table; also returns their exit codes."""
        rows = [[str(a).format(**self._inputs) for a in ROWS[name][0]] for name in names]
        tasks, codes = self.root / "rows.json", self.out / "codes.json"
        tasks.write_text(json.dumps(rows))
        traced = self.python(RUN, tasks, codes, **environment)
        assert traced.code == 0, traced.stderr
        return traced, json.loads(codes.read_text())


@pytest.fixture
def place(tmp_path: Path, bundles: Bundles, checkpoints: Checkpoints) -> Place:
    data = pytest.importorskip("pydicom.data")
    recording = data.get_testdata_file("waveform_ecg.dcm", download=False)
    if recording is None:
        pytest.skip("this pydicom comes without its sample waveform")
    inputs = {
        "bundle": bundles("int4", 32),
        "checkpoint": checkpoints(),
        "page": SAMPLE_PAGE,
        "recording": Path(recording),
    }
    return Place(tmp_path, inputs)


# ---- what processes do ---------------------------------------------------------------------------


def test_every_command_has_a_row() -> None:
    assert set(ROWS) == set(COMMANDS)


def spoken(names: tuple[str, ...]) -> list[str]:
    return [ROWS[name][2] for name in names if ROWS[name][2]]


def check_nothing_is_told(place: Place, files: list[Path]) -> None:
    """No text, name or path that a command was given is in what it remembers."""
    for path in files:
        remembered = path.read_text("ascii")
        for told in ("bundle", "page", "report", "rate?", str(place.root), "pulse"):
            assert told not in remembered.lower()


def check(place: Place, names: tuple[str, ...], **environment: str) -> None:
    traced, codes = place.commands(names, **environment)
    assert codes == [ROWS[name][1] for name in names], traced.stderr
    assert traced.network() == []
    home = Path(environment.get("HOME") or place.home)
    state = home / ".local" / "state"  # what is measured is remembered there
    outside = set(traced.writes_outside([place.out, place.temporary, state / "pulse-edge"]))
    assert outside <= {str(folder) for folder in (home, home / ".local", state)}
    lines = traced.stderr.splitlines()
    assert len(lines) == len(spoken(names)), traced.stderr
    for line, beginning in zip(lines, spoken(names), strict=True):
        assert line.startswith(beginning)


@needs_strace
def test_no_command_uses_the_network_or_writes_elsewhere(place: Place) -> None:
    check(place, tuple(ROWS))
    files = [path for path in place.home.rglob("*") if path.is_file()]
    assert {path.parent.name for path in files} == {"rates"}
    check_nothing_is_told(place, files)


@needs_strace
@pytest.mark.parametrize(
    ("commands", "environment"),
    [
        (("ask", "export"), {"HOME": ""}),
        (("ask", "export"), {"HOME": "/nonexistent", "ORT_DISABLE_TELEMETRY": "0"}),
        (("ask", "export", "bench"), {"HOME": "/proc"}),
    ],
    ids=["no home", "a home that is not there, and reports asked for", "a home that is read-only"],
)
def test_in_every_home(
    place: Place, commands: tuple[str, ...], environment: dict[str, str]
) -> None:
    check(place, commands, **environment)


@needs_strace
def test_what_is_remembered_stays_in_the_state_folder(place: Place) -> None:
    code = (
        "from pulse_edge.state import remember, recall\n"
        "remember('verdicts', {'gpu': 'secret name'}, {'error': 0.5})\n"
        "print(recall('verdicts', {'gpu': 'secret name'}))"
    )
    home = place.python(code)
    state = place.home / ".local" / "state" / "pulse-edge"
    parents = [state.parent.parent, state.parent, state]
    assert set(home.writes_outside([state])) == {str(folder) for folder in parents[:2]}
    assert home.stdout == "{'error': 0.5}\n"
    for variable in ("XDG_STATE_HOME", "PULSE_EDGE_STATE"):
        folder = place.out / variable
        traced = place.python(code, **{variable: str(folder)})
        assert traced.writes_outside([folder]) == []
        assert list(folder.iterdir())
    for environment in ({"PULSE_EDGE_STATE": "off"}, {"HOME": ""}, {"HOME": "/nonexistent"}):
        traced = place.python(code, **environment)
        assert traced.writes_outside([]) == []
        assert (traced.stdout, traced.stderr) == ("{'error': 0.5}\n", "")


# ---- the trace sees what it must -----------------------------------------------------------------

NETWORK = {
    "an internet socket": "import socket; socket.socket()",
    "one of IPv6, in a child": (
        "import subprocess, sys; subprocess.run([sys.executable, '-c', "
        "'import socket; socket.socket(socket.AF_INET6)'])"
    ),
    "a resolver": (
        "import socket\ntry: socket.gethostbyname('name.invalid')\nexcept OSError: pass"
    ),
    "a look-up of users": "import os; os.path.expanduser('~nobody')",
}
WRITES = {
    "a file": "import os; open(os.environ['HOME'] + '/x', 'w')",
    "a file, in vain": "try: open('/proc/x', 'w')\nexcept OSError: pass",
    "a folder": "import os; os.mkdir('../x')",
    "a folder by its descriptor": "import os; os.mkdir('x', dir_fd=os.open('..', os.O_RDONLY))",
    "a removal": "import os\ntry: os.unlink('../x')\nexcept OSError: pass",
    "a rename": "import os; open('a', 'w').close(); os.rename('a', '../x')",
    "a link": "import os; os.symlink('a', '../x')",
}


@needs_strace
@pytest.mark.parametrize("offence", NETWORK)
def test_the_trace_sees_the_network(offence: str, tmp_path: Path) -> None:
    traced = Place(tmp_path, {}).python(NETWORK[offence])
    assert traced.code == 0, traced.stderr
    assert traced.network()


@needs_strace
@pytest.mark.parametrize("offence", WRITES)
def test_the_trace_sees_writes(offence: str, tmp_path: Path) -> None:
    place = Place(tmp_path, {})
    traced = place.python(WRITES[offence])
    assert traced.code == 0, traced.stderr
    (path,) = traced.writes_outside([place.out, place.temporary])
    assert Path(path).name == "x"


@needs_strace
def test_the_trace_is_silent_about_a_process_that_does_nothing(tmp_path: Path) -> None:
    place = Place(tmp_path, {})
    traced = place.python("import this, socket, ssl, tempfile; open('x', 'w')")
    assert traced.network() == []
    assert traced.writes_outside([place.out]) == []
    assert traced.writes_outside([]) == [str(place.out / "x")]


@needs_strace
def test_the_trace_sees_onnx_runtime_report(tmp_path: Path) -> None:
    """So the tests above fail if the variable is not set."""
    import onnxruntime

    version = tuple(int(number) for number in onnxruntime.__version__.split(".")[:2])
    if version < (1, 29):
        pytest.skip("ONNX Runtime reports from 1.29 on")
    place = Place(tmp_path, {})
    traced = place.python("import onnxruntime", ORT_DISABLE_TELEMETRY="")
    assert traced.writes_outside([place.out, place.temporary])


# ---- what the source says ------------------------------------------------------------------------

# Libraries that report, or import one that does, and the only places that import them.
REPORTING = {
    "onnxruntime": {
        "pulse_edge/engines/onnxruntime_library.py",
        "export/pulse_export/network/optimum/library.py",
        "benchmarks/peers/",
    },
    "onnxruntime_genai": {"benchmarks/peers/"},
    "optimum": {"export/pulse_export/network/optimum/library.py", "benchmarks/peers/"},
    "transformers": {"export/pulse_export/network/optimum/library.py", "benchmarks/peers/"},
    "huggingface_hub": {"benchmarks/peers/"},
    "openvino": {"pulse_edge/engines/openvino_library.py", "benchmarks/peers/"},
    "nncf": {"benchmarks/peers/"},
    "ray": {"pulse_edge/serve/ray_library.py"},
}
PRODUCT = ("pulse_edge", "export", "benchmarks", "pulse_nano", "examples")


def reporting_imports(text: str) -> list[tuple[int, str]]:
    """(line, library) of each import of a library that reports, in functions too."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.stmt | ast.expr):
            continue
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = ast.unparse(node.func).rpartition(".")[2]
            names = [str(node.args[0].value)] if called in ("import_module", "__import__") else []
        for name in names:
            if name.split(".")[0] in REPORTING:
                found.append((node.lineno, name.split(".")[0]))
    return found


def silenced(text: str) -> dict[str, int]:
    """Library -> the line of the first call of `silence` with it."""
    lines: dict[str, int] = {}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "silence":
            for argument in node.args:
                if isinstance(argument, ast.Constant):
                    lines.setdefault(str(argument.value), node.lineno)
    return lines


@pytest.mark.parametrize("folder", PRODUCT)
def test_only_the_silenced_places_import_what_reports(folder: str) -> None:
    for path in sorted((ROOT / folder).rglob("*.py")):
        where = path.relative_to(ROOT).as_posix()
        for line, library in reporting_imports(path.read_text("utf-8")):
            assert where.startswith(tuple(REPORTING[library])), f"{where}:{line} {library}"


@pytest.mark.parametrize(
    ("path", "library"),
    [
        ("pulse_edge/engines/onnxruntime_library.py", "onnxruntime"),
        ("export/pulse_export/network/optimum/library.py", "huggingface_hub"),
        ("pulse_edge/engines/openvino_library.py", "openvino"),
        ("pulse_edge/serve/ray_library.py", "ray"),
    ],
)
def test_the_runtime_silences_before_it_imports(path: str, library: str) -> None:
    text = (ROOT / path).read_text("utf-8")
    assert silenced(text)[library] < min(line for line, _ in reporting_imports(text))


@pytest.mark.parametrize("path", ["benchmarks/peers/__init__.py", "tests/conftest.py"])
def test_packages_silence_before_their_modules_import(path: str) -> None:
    text = (ROOT / path).read_text("utf-8")
    assert silenced(text).keys() >= {"onnxruntime", "huggingface_hub"}
    assert reporting_imports(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "import onnxruntime as ort",
        "import numpy, onnxruntime.tools",
        "def f():\n    from onnxruntime.capi import x",
        "from optimum.onnxruntime import y",
        "import importlib\nimportlib.import_module('transformers')",
        "__import__('huggingface_hub')",
    ],
)
def test_imports_are_found(text: str) -> None:
    assert reporting_imports(text)


@pytest.mark.parametrize("text", ["import numpy", "from . import onnxruntime", "f('onnxruntime')"])
def test_other_lines_are_none(text: str) -> None:
    assert not reporting_imports(text)


def test_one_file_names_the_variables() -> None:
    """Elsewhere they would drift apart, or hide that the one place fails."""
    names = [name for name in silent_variables() if "_" in name]
    paths = [p for folder in (*PRODUCT, "tests/support") for p in (ROOT / folder).rglob("*.py")]
    paths += [ROOT / name for name in ("Makefile", ".ci/run", "tests/conftest.py")]
    paths.remove(ROOT / "pulse_edge" / "privacy.py")
    for path in paths:
        text = path.read_text("utf-8")
        assert not [name for name in names if name in text], path.relative_to(ROOT)
