"""Imports point down: a package imports only those that stand before it in this order, and nothing imports a heavy extra."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import sdeflow

ROOT = Path(sdeflow.__file__).parent

LAYERS = [
    {"errors", "types"},
    {"extras"},
    {"calculus"},
    {"brownian"},
    {"processes"},
    {"laws", "paths", "solvers", "networks"},
    {"data"},
    {"likelihood"},
    {"models"},
    {"training"},
    {"plotting"},
    {"analysis"},
    {"cli"},
    {"__init__", "__main__"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def part(path):
    """The part of the package that a file belongs to."""
    relative = path.relative_to(ROOT)
    return relative.parts[0].removesuffix(".py")


def imports(path):
    """The parts that a file imports, anywhere in it but for type checking only."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "sdeflow":
            names = node.module.split(".")[1:]
            yield from names[:1] or [alias.name for alias in node.names if alias.name in LEVEL]
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("sdeflow."))


FILES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path):
    here = part(path)
    assert here in LEVEL, f"{here} has no place in the layers"
    for name in imports(path):
        assert name in LEVEL, f"{name} has no place in the layers"
        if name != here:
            assert LEVEL[name] < LEVEL[here], f"{path.name} in {here} imports {name}"


def test_importing_sdeflow_needs_no_extra():
    """Core dependencies only: torch, torchsde, torchdiffeq, numpy, tqdm."""
    code = (
        "import sys, sdeflow;"
        "heavy = {'matplotlib', 'typer', 'rich', 'sklearn', 'scipy.integrate', 'pandas', 'plotly'};"
        "heavy |= {'lightning', 'lightning_fabric', 'safetensors'};"
        "found = heavy & set(sys.modules);"
        "sys.exit(f'imported {found}' if found - {'scipy.integrate'} else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_public_names_exist():
    for name in sdeflow.__all__:
        assert getattr(sdeflow, name) is not None
