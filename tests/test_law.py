"""The import law, the code budget, and a light import: what keeps the house readable, measured."""

from __future__ import annotations

import ast
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "gossamer"

# A module may import modules of lower levels only. A package counts as one room: what is inside may import each other.
LEVELS = (
    {"errors", "noise", "gate", "progress"},
    {"files", "memory", "attention", "ceiling", "circuit", "divergence", "intervals", "probe", "rows"},
    {
        "draw",
        "estimate",
        "logits",
        "metrics",
        "resume",
        "schedule",
        "stability",
        "text",
        "card",
        "export",
        "watch",
    },
    {"config", "distributed", "gates", "ledger", "portions"},
    {"interface", "projection"},
    {"modeling"},
    {"base", "checkpoint", "lora", "tasks", "trace", "authors"},
    {"components", "describe", "hub", "intervene", "trainer", "viewer"},
    {"minimal", "pages", "sparsify", "film", "recipe"},
    {"verify", "serve", "job"},
    {"report", "study", "figures", "notebook"},
    {"demo", "task_study"},
    {"cli"},
    {"__init__", "__main__"},
)
HEAVY = {"matplotlib": {"draw"}, "triton": {"attention"}}
BUDGET = {"median": 12, "p90": 45, "longest": 80, "file": 300}
KERNELS = {"attention/triton_kernel.py", "attention/fused.py"}


def modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def room(path: Path) -> str:
    """The top-level module or package that a file belongs to."""
    first = path.relative_to(SOURCE).parts[0]
    return first.removesuffix(".py")


def imports(path: Path) -> set[str]:
    """The rooms of gossamer, and the foreign packages, that a file imports anywhere in it."""
    found: set[str] = set()
    depth = len(path.relative_to(SOURCE).parts) - 1
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level == 0:
                found.add((node.module or "").split(".")[0])
            elif node.level == depth + 1:
                names = [node.module] if node.module else [alias.name for alias in node.names]
                found |= {"." + name.split(".")[0] for name in names}
        elif (
            isinstance(node, ast.Call)
            and getattr(node.func, "attr", getattr(node.func, "id", "")) == "import_module"
        ):
            found |= {
                ("." + text.lstrip(".").split(".")[0]) if text.startswith(".") else text.split(".")[0]
                for argument in node.args
                if isinstance(argument, ast.Constant) and isinstance(text := argument.value, str)
            }
    return found


def level_of(name: str) -> int:
    return next((i for i, rooms in enumerate(LEVELS) if name in rooms), -1)


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(SOURCE)))
def test_arrows_point_down(path: Path) -> None:
    here = room(path)
    assert level_of(here) >= 0, f"{here} has no level: give it one in LEVELS and in DESIGN.md"
    for name in sorted(imports(path)):
        if name.startswith(".") and name[1:] != here and not name[1:].startswith("__version"):
            assert level_of(name[1:]) < level_of(here), f"{here} imports {name[1:]}, which is not below it"


@pytest.mark.parametrize(("package", "allowed"), HEAVY.items())
def test_heavy_packages_have_one_door(package: str, allowed: set[str]) -> None:
    users = {room(path) for path in modules() if package in imports(path)}
    assert users <= allowed


def test_the_law_can_fail() -> None:
    assert "torch" in imports(SOURCE / "gate.py")
    assert ".errors" in imports(SOURCE / "ceiling.py")
    assert level_of("cli") > level_of("trainer") > level_of("gate") >= 0


def test_the_law_sees_imports_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "SOURCE", tmp_path)
    path = tmp_path / "circuit.py"
    path.write_text("from importlib import import_module\nimport_module('.notebook', __package__)\n")
    assert ".notebook" in imports(path)


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
    heavy = ["torch", "transformers", "matplotlib", "datasets", "numpy"]
    code = f"import sys; {statement}; print(sorted(set({heavy}) & set(sys.modules)))"
    assert run_python(code) == "[]"


def test_the_light_import_test_can_fail() -> None:
    assert run_python("import sys; import gossamer.gate; print('torch' in sys.modules)") == "True"


def test_every_public_name_is_there() -> None:
    code = "import gossamer; print(all(getattr(gossamer, n) is not None for n in gossamer.__all__))"
    assert run_python(code) == "True"


def test_a_public_name_outlives_the_module_of_its_name() -> None:
    code = "from gossamer import verify, trace, prove; import gossamer.trace; import gossamer.verify\n"
    code += "print([callable(f) for f in (verify, trace, prove, gossamer.trace, gossamer.verify)])"
    assert run_python(code) == str([True] * 5)
    assert run_python("import gossamer.trace; from gossamer import trace; print(callable(trace))") == "True"


def run_python(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()
