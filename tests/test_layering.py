"""Who may import whom, read from the sources; and what `import planner` brings along, asked of a fresh process."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LEAVES = {"planner.types", "planner.actions", "planner.energies", "planner.errors", "planner.symmetry"}
HEAVY = ("lightning", "pytorch_lightning", "transformers", "mujoco", "matplotlib", "gymnasium", "scipy")
CORE = ("planner", "planner.plan", "planner.mpc", "planner.optimizers", "planner.energies")

ALLOWED = {
    **{leaf: LEAVES for leaf in LEAVES},
    "planner.optimizers": LEAVES | {"planner.optimizers"},
    "planner.models": LEAVES | {"planner.models"},
    "planner.plan": LEAVES | {"planner.optimizers"},
}
"""What a module may import of `planner`; modules that are not named here may import more."""


@dataclass(frozen=True)
class Import:
    """One imported module, by its full name, and where."""

    by: str  # the importing module, such as planner.models.jepa
    what: str  # the imported one, such as torch.nn
    line: int
    inside_function: bool

    def __str__(self) -> str:
        return f"{self.by} imports {self.what} in line {self.line}"


def modules(package: str) -> dict[str, Path]:
    """Every module of a package, by name."""
    paths = sorted((ROOT / package).rglob("*.py"))
    return {".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p for p in paths}


KNOWN = modules("planner") | modules("envs")


def imports(name: str) -> Iterator[Import]:
    """All imports of a module, relative ones resolved, those inside functions and `if TYPE_CHECKING` too."""
    tree = ast.parse(KNOWN[name].read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    inside = {id(node) for function in functions for node in ast.walk(function)}
    package = name.split(".") if KNOWN[name].name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parts = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*parts, *([node.module] if node.module else [])])
            # `from planner import plan` imports the module, `from planner.plan import Plan` only a name in it.
            found = [f"{base}.{a.name}" if f"{base}.{a.name}" in KNOWN else base for a in node.names]
        else:
            continue
        yield from (Import(name, what, node.lineno, id(node) in inside) for what in found)


ALL = [found for name in KNOWN for found in imports(name)]


def within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def nothing(offenders: list[Import]) -> None:
    assert not offenders, "\n".join(map(str, offenders))


def test_the_sources_were_read() -> None:
    assert "planner.types" in KNOWN and any(found.by == "planner.types" for found in ALL)


def test_planner_never_imports_envs() -> None:
    nothing([found for found in ALL if within(found.by, "planner") and within(found.what, "envs")])


def test_planner_imports_by_name_in_one_place_only() -> None:
    """Elsewhere a computed import could reach `envs`, or whatever a file tells it to."""
    for name in modules("planner"):
        for node in ast.walk(ast.parse(KNOWN[name].read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or name == "planner.tasks":
                continue
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__", "spec_from_file_location", "run_module", "run_path"):
                target = node.args[0] if node.args else None
                plain = isinstance(target, ast.Constant) and isinstance(target.value, str)
                assert plain and not within(target.value, "envs"), f"{name} line {node.lineno}: {called}"


def test_envs_takes_only_the_vocabulary_of_planner() -> None:
    allowed = {"planner.types", "planner.actions", "planner.errors", "planner.symmetry", "planner.tasks"}
    ours = [found for found in ALL if within(found.by, "envs") and within(found.what, "planner")]
    nothing([found for found in ours if found.what not in allowed])


def test_modules_import_downwards() -> None:
    for module, allowed in ALLOWED.items():
        ours = [found for found in ALL if within(found.by, module) and within(found.what, "planner")]
        nothing([found for found in ours if not within(found.what, *allowed)])


def test_nothing_imports_the_command_line() -> None:
    nothing(
        [
            found
            for found in ALL
            if within(found.what, "planner.cli")
            and not within(found.by, "planner.cli", "planner.__main__", "planner.command")
        ]
    )


@pytest.mark.parametrize(
    ("library", "places"),
    [
        (
            "lightning",
            [
                "planner.training",
            ],
        ),
        ("pytorch_lightning", []),
        ("transformers", ["planner.models"]),
        ("gymnasium", ["planner.evaluate", "planner.adapters", "envs"]),
        ("mujoco", ["envs"]),
        ("matplotlib", ["planner.evaluate"]),
        ("scipy", ["planner.evaluate"]),
    ],
)
def test_libraries_stay_in_their_place(library: str, places: list[str]) -> None:
    nothing([found for found in ALL if within(found.what, library) and not within(found.by, *places)])


def test_plotting_and_foreign_models_are_imported_inside_functions() -> None:
    lazy = [found for found in ALL if within(found.what, "matplotlib", "transformers", "scipy")]
    nothing([found for found in lazy if not found.inside_function])


def test_the_core_brings_nothing_heavy_along() -> None:
    there = [name for name in CORE if name in KNOWN]
    code = f"import sys, {', '.join(there)}; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
