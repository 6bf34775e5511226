"""How the code measures: a mirror, not a law.

`make house` prints it, and a reader asks of each outlier whether it is one noun.

    python -m benchmarks.house
    python -m benchmarks.house --json
    python -m benchmarks.house some/folder    # the same figures of another project
    python -m benchmarks.house --tree         # writes floor plan and figures of the architecture

A file's lines are all of its lines. A function's run from `def` to its end, without decorators. The
mean length and the share of long lines are of lines that are not blank, indentation included.
"""

from __future__ import annotations

import ast
import json
import re
import textwrap
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from statistics import mean, median
from typing import Any

import click

ROOT = Path(__file__).resolve().parents[1]
PLAN = ROOT / "docs" / "architecture.md"
FOLDERS = ("pulse_edge", "export")
MAX_FILE, MAX_FUNCTION, MAX_PARAMETERS, MAX_FOLDER, MAX_LINE = 300, 50, 8, 10, 100
# What one request runs through, as files and folders of pulse_edge. Of the engines, only what they
# share.
CORE = (
    "model.py",
    "worker.py",
    "answer.py",
    "chat.py",
    "params.py",
    "provenance.py",
    "page",
    "text",
    "decode",
    "bundle/embeddings.py",
    "engines/engine.py",
    "engines/registry.py",
    "engines/cursor.py",
    "engines/options.py",
)

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class File:
    """A Python file, parsed once."""

    path: Path
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    def functions(self) -> Iterator[Function]:
        yield from (node for node in ast.walk(self.tree) if isinstance(node, Function))

    def top_level_names(self) -> Iterator[str]:
        for node in self.tree.body:
            if isinstance(node, Function | ast.ClassDef):
                yield node.name


@dataclass(frozen=True)
class House:
    """The figures. Lists hold (where, size), largest first."""

    files: int
    lines: int
    median_file: float
    median_function: float
    mean_line: float
    long_lines: float
    parallel_assignments: float
    repeated_names: int
    core_lines: int
    long_files: list[tuple[str, int]]
    long_functions: list[tuple[str, int]]
    wide_functions: list[tuple[str, int]]
    full_folders: list[tuple[str, int]]


def read_files(folders: Sequence[Path]) -> list[File]:
    """Every Python file below the folders; hidden folders are left out."""
    paths = [p for folder in folders for p in sorted(folder.rglob("*.py"))]
    kept = (p for p in paths if not any(part.startswith(".") for part in p.parts))
    return [File(path, path.read_text("utf-8", "replace")) for path in kept]


def length(node: Function) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def parameters(node: Function) -> int:
    """Parameters of a signature, `self` and `cls` not counted."""
    a = node.args
    names = [arg.arg for arg in (*a.posonlyargs, *a.args, *a.kwonlyargs)]
    return len(names) - (names[:1] in (["self"], ["cls"])) + bool(a.vararg) + bool(a.kwarg)


def is_parallel(node: ast.AST) -> bool:
    """Whether a statement is `a, b = x, y`: two assignments on one line. Unpacking is not."""
    return (
        isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Tuple)
        and any(isinstance(target, ast.Tuple) for target in node.targets)
    )


def repeated_names(files: Sequence[File]) -> dict[str, list[Path]]:
    """Top-level classes and functions that two files or more define."""
    places: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        for name in dict.fromkeys(file.top_level_names()):
            places[name].append(file.path)
    return {name: paths for name, paths in sorted(places.items()) if len(paths) > 1}


def core_files(root: Path = ROOT) -> list[Path]:
    """The files that one request runs through."""
    paths = (root / "pulse_edge" / name for name in CORE)
    return [
        file for path in paths for file in (sorted(path.rglob("*.py")) if path.is_dir() else [path])
    ]


def measure(files: Sequence[File], root: Path) -> House:
    """Figures of some files, named relative to `root`. Raises `ValueError` where there is none."""
    if not files:
        raise ValueError("no Python files: name a folder that holds some")
    every_line = [line for file in files for line in file.lines]
    code = [line for line in every_line if line.strip()]
    functions = [
        (f"{_name(file.path, root)}:{node.name}", node)
        for file in files
        for node in file.functions()
    ]
    parallel = sum(is_parallel(node) for file in files for node in ast.walk(file.tree))
    folders: dict[Path, int] = defaultdict(int)
    for file in files:
        folders[file.path.parent] += file.path.name != "__init__.py"
    core = set(core_files(root))
    return House(
        files=len(files),
        lines=len(every_line),
        median_file=median(len(file.lines) for file in files),
        median_function=median([length(node) for _, node in functions] or [0]),
        mean_line=round(mean(map(len, code)), 1),
        long_lines=round(sum(len(line) > MAX_LINE for line in code) / len(code), 4),
        parallel_assignments=round(1000 * parallel / len(every_line), 1),
        repeated_names=len(repeated_names(files)),
        core_lines=sum(len(file.lines) for file in files if file.path in core),
        long_files=_over(MAX_FILE, ((_name(file.path, root), len(file.lines)) for file in files)),
        long_functions=_over(MAX_FUNCTION, ((where, length(node)) for where, node in functions)),
        wide_functions=_over(
            MAX_PARAMETERS, ((where, parameters(node)) for where, node in functions)
        ),
        full_folders=_over(
            MAX_FOLDER, ((_name(path, root), count) for path, count in folders.items())
        ),
    )


def _name(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def _over(limit: int, sizes: Iterator[tuple[str, int]]) -> list[tuple[str, int]]:
    return sorted(
        ((where, size) for where, size in sizes if size > limit), key=lambda row: (-row[1], row[0])
    )


def report(house: House) -> Iterator[str]:
    """The lines that `make house` prints."""
    yield f"{house.files} files, {house.lines:,} lines; the request's core {house.core_lines:,}"
    yield f"median file {house.median_file:g} lines, median function {house.median_function:g}"
    yield f"mean line {house.mean_line} characters, {house.long_lines:.1%} over {MAX_LINE}"
    yield f"parallel tuple assignments {house.parallel_assignments} in 1,000 lines"
    yield f"top-level names defined twice or more: {house.repeated_names}"
    for title, rows in (
        (f"files over {MAX_FILE} lines", house.long_files),
        (f"functions over {MAX_FUNCTION} lines", house.long_functions),
        (f"functions with more than {MAX_PARAMETERS} parameters", house.wide_functions),
        (f"folders with more than {MAX_FOLDER} modules", house.full_folders),
    ):
        yield f"\n{title}: {len(rows)}"
        yield from (f"{size:6}  {where}" for where, size in rows)


def tree(root: Path = ROOT) -> Iterator[str]:
    """The floor plan: every module of the product, with the first sentence of its docstring."""
    for folder in (root / "pulse_edge", root / "export" / "pulse_export"):
        depth = len(folder.parent.relative_to(root).parts)
        if depth:
            yield f"{folder.parent.name}/"
        yield from _branch(folder, depth)


def _branch(folder: Path, depth: int) -> Iterator[str]:
    yield _leaf(f"{folder.name}/", folder / "__init__.py", depth)
    for path in sorted(folder.iterdir(), key=lambda path: (path.is_dir(), path.name)):
        if path.is_dir() and next(path.rglob("*.py"), None):
            yield from _branch(path, depth + 1)
        elif path.suffix == ".py" and path.name != "__init__.py":
            yield _leaf(path.name, path, depth + 1)


def _leaf(name: str, path: Path, depth: int) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "" if path.exists() else ""
    sentence = re.split(r"(?<!et al)(?<=[\w)`])\.(?:\s|$)", " ".join(docstring.split()))[0]
    line = f"{'  ' * depth}{name}"
    what = textwrap.shorten(sentence, MAX_LINE - 30, placeholder=" …")
    return f"{line:<28}  {what}".rstrip()


def with_tree(page: str, root: Path = ROOT) -> str:
    """The page of the architecture with today's floor plan and this project's figures."""
    plan = "\n".join(tree(root))
    page = re.sub(
        r"(<!-- tree -->\n).*?(<!-- /tree -->)",
        lambda m: f"{m[1]}```\n{plan}\n```\n{m[2]}",
        page,
        flags=re.S,
    )
    row = table_row("**pulse-edge**", measure(read_files([root / name for name in FOLDERS]), root))
    return re.sub(r"^\| \*\*pulse-edge\*\* \|.*$", lambda _: row, page, flags=re.M)


def table_row(title: str, house: House) -> str:
    """A project's row of the table at the end of docs/architecture.md."""
    cells = (
        title,
        str(house.files),
        f"{house.lines:,}",
        f"{house.median_file:g} / {house.median_function:g}",
        str(house.mean_line),
        f"{100 * house.long_lines:.1f} %",
        str(house.parallel_assignments),
        str(house.repeated_names),
        str(len(house.long_functions)),
        str(len(house.wide_functions)),
    )
    return f"| {' | '.join(cells)} |"


@click.command()
@click.argument("folders", nargs=-1, type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option(
    "--tree", "write_tree", is_flag=True, help="Rewrite the floor plan of docs/architecture.md."
)
def main(folders: tuple[Path, ...], as_json: bool, write_tree: bool) -> None:
    """Measure FOLDERS [default: the product, pulse_edge and export]."""
    if write_tree:
        PLAN.write_text(with_tree(PLAN.read_text("utf-8")), encoding="utf-8")
        return
    chosen = [folder.resolve() for folder in folders] or [ROOT / name for name in FOLDERS]
    house = measure(read_files(chosen), ROOT)
    figures: dict[str, Any] = asdict(house)
    click.echo(json.dumps(figures, indent=1) if as_json else "\n".join(report(house)))


if __name__ == "__main__":
    main()
