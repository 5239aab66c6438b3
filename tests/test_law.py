"""The import law, the code budget, and a light import: what keeps the house readable, measured."""

from __future__ import annotations

import ast
import functools
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "gossamer"

# A package imports itself and the packages before it; `errors` and `files` import nothing above them.
ORDER = ("errors", "files", "gates", "data", "models", "training", "circuits", "viz", "recipes", "cli", "")
DOORS = {
    "matplotlib": "viz",
    "triton": "gates",
    "peft": "models training",
    "networkx": "circuits",
    "fastapi": "viz",
}
BUDGET = {"median": 12, "p90": 45, "longest": 80, "file": 300}
KERNELS = {"gates/attention/triton_kernel.py", "gates/attention/fused.py"}
MOST_ROOMS, MOST_ARROWS = 14, 45


def modules(root: Path = SOURCE) -> list[Path]:
    return sorted(root.rglob("*.py"))


def dotted(path: Path, root: Path = SOURCE) -> str:
    """A file as a module of gossamer: `gates.edges`; "" for the front door."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(module: str) -> str:
    """The package that a module belongs to; the two files of the root are rooms, the front door is ""."""
    first = module.split(".")[0]
    return "" if first == "__main__" else first


def _typing_only(tree: ast.Module) -> set[ast.AST]:
    """Nodes under `if TYPE_CHECKING`, which load nothing."""
    found: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            found |= {inner for part in node.body for inner in ast.walk(part)}
    return found


@functools.cache
def known_modules(root: Path) -> frozenset[str]:
    """Every module under a folder, dotted."""
    return frozenset(dotted(path, root) for path in modules(root))


@functools.cache
def imports(path: Path, root: Path = SOURCE) -> frozenset[str]:
    """What a file imports anywhere in it: `.gates.edges` for modules of gossamer, `torch` for foreign packages.

    The literal of `import_module("...")` is an import like any other.
    """
    tree, known = ast.parse(path.read_text(encoding="utf-8")), known_modules(root)
    package = list(path.relative_to(root).parts[:-1])
    found: set[str] = set()

    def add(base: list[str], names: list[str]) -> None:
        for name in names:
            whole = ".".join([*base, name])
            found.add("." + (whole if whole in known else ".".join(base)))

    for node in set(ast.walk(tree)) - _typing_only(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            here = (node.module or "").split(".") if node.module else []
            if node.level == 0:
                found.add(here[0])
            else:
                add([*package[: len(package) - node.level + 1], *here], [alias.name for alias in node.names])
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            for literal in (a.value for a in node.args if isinstance(a, ast.Constant)):
                text, level = str(literal), len(str(literal)) - len(str(literal).lstrip("."))
                if level:
                    add(
                        [*package[: len(package) - level + 1], *text.lstrip(".").split(".")[:-1]],
                        [text.split(".")[-1]],
                    )
                else:
                    found.add(text.split(".")[0])
    return frozenset(found)


def graph(root: Path = SOURCE) -> dict[str, set[str]]:
    """Module -> the modules of gossamer that it imports; the front door, whose version many read, is left out."""
    found = {}
    for path in modules(root):
        here = dotted(path, root)
        found[here] = {name[1:] for name in imports(path, root) if name.startswith(".")} - {"", here}
    return found


def upward(arrows: dict[str, set[str]]) -> list[str]:
    """The arrows from a package to one that is not before it."""
    rank = {name: i for i, name in enumerate(ORDER)}
    return [
        f"{here} imports {there}"
        for here, others in arrows.items()
        for there in sorted(others)
        if room(there) != room(here) and rank[room(there)] > rank[room(here)]
    ]


def circle(arrows: dict[str, set[str]]) -> list[str]:
    """A circle of modules, or nothing."""
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for other in sorted(arrows.get(name, ())):
            if found := visit(other, [*path, name]):
                return found
        done.add(name)
        return []

    return next((found for name in sorted(arrows) if (found := visit(name, []))), [])


def test_every_file_is_in_a_package() -> None:
    assert {room(dotted(path)) for path in modules()} == set(ORDER)


def test_arrows_point_down() -> None:
    assert upward(graph()) == []


def test_no_circle_of_files() -> None:
    assert circle(graph()) == []


def test_the_house_is_small_enough_to_be_drawn() -> None:
    rooms = {room(name) for name in graph()}
    arrows = {(room(a), room(b)) for a, others in graph().items() for b in others if room(a) != room(b)}
    print(f"{len(rooms)} rooms, {len(arrows)} arrows")  # noqa: T201
    assert len(rooms) <= MOST_ROOMS
    assert len(arrows) <= MOST_ARROWS


@pytest.mark.parametrize(("package", "allowed"), DOORS.items())
def test_heavy_packages_have_one_door(package: str, allowed: str) -> None:
    users = {room(dotted(path)) for path in modules() if package in imports(path)}
    assert users <= set(allowed.split())


def test_gates_know_no_transformers() -> None:
    assert not [path for path in modules(SOURCE / "gates") if "transformers" in imports(path)]


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("from ..training.trainer import x", ["circuits.circuit imports training.trainer"]),
        ("from ..viz import figure", ["circuits.circuit imports viz.figure"]),
        ("import_module('..viz.figure', __package__)", ["circuits.circuit imports viz.figure"]),
        ("if TYPE_CHECKING:\n    from ..viz import figure", []),
    ],
)
def test_the_law_can_fail(tmp_path: Path, line: str, names: list[str]) -> None:
    for name in ("circuits/circuit", "viz/figure", "training/trainer"):
        path = tmp_path / f"{name}.py"
        path.parent.mkdir()
        path.write_text(line if name == "circuits/circuit" else "")
    expected = [name for name in names if "viz" in name]  # training is before circuits
    assert upward(graph(tmp_path)) == expected


def test_the_search_for_circles_can_find_one(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.py").write_text("from . import b")
    (tmp_path / "data" / "b.py").write_text("def f():\n    from .c import x")
    (tmp_path / "data" / "c.py").write_text("importlib.import_module('.a', __package__)")
    assert circle(graph(tmp_path)) == ["data.a", "data.b", "data.c", "data.a"]


def lengths() -> list[tuple[int, str]]:
    found = []
    for path in modules():
        name = str(path.relative_to(SOURCE))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and name not in KERNELS:
                found.append((node.end_lineno - node.lineno + 1, f"{name}:{node.lineno} {node.name}"))  # type: ignore[operator]
    return sorted(found)


def test_functions_keep_the_budget() -> None:
    found = lengths()
    counts = [n for n, _ in found]
    assert statistics.median(counts) <= BUDGET["median"]
    assert counts[int(0.9 * (len(counts) - 1))] <= BUDGET["p90"]
    assert counts[-1] <= BUDGET["longest"], found[-1][1]


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(SOURCE)))
def test_files_keep_the_budget(path: Path) -> None:
    limit = 500 if str(path.relative_to(SOURCE)) in KERNELS else BUDGET["file"]
    assert len(path.read_text(encoding="utf-8").splitlines()) <= limit


@pytest.mark.parametrize("statement", ["import gossamer", "import gossamer.cli"])
def test_import_is_light(statement: str) -> None:
    assert heavy_after(statement) == "[]"


def test_the_light_import_test_can_fail() -> None:
    assert heavy_after("import gossamer, numpy") == "['numpy']"


@pytest.mark.integration
def test_every_public_name_is_there() -> None:
    code = "import gossamer; print(all(getattr(gossamer, n) is not None for n in gossamer.__all__))"
    assert run_python(code) == "True"


def test_no_public_name_is_a_package_too() -> None:
    names = run_python("import gossamer; print(*gossamer.__all__)").split()
    assert not set(names) & {path.stem for path in SOURCE.iterdir()}


# `info` imports torch in a process of its own.
@pytest.mark.parametrize("verb", [pytest.param("info", marks=pytest.mark.integration), "trace", "sparsify"])
def test_help_and_info_load_no_more_than_they_need(verb: str) -> None:
    code = f"import sys, importlib; importlib.import_module('gossamer.cli.{verb}')\n"
    if verb == "info":
        code += "import gossamer.models.summary, gossamer.models.quiet\n"
    code += "print(sorted({'matplotlib', 'datasets', 'gossamer.training.trainer'} & set(sys.modules)))"
    assert run_python(code) == "[]"


def heavy_after(statement: str) -> str:
    """The list of heavy packages that a new process has loaded after a statement, as Python prints it."""
    heavy = ["torch", "transformers", "matplotlib", "datasets", "numpy"]
    return run_python(f"import sys; {statement}; print(sorted(set({heavy}) & set(sys.modules)))")


def run_python(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()
