"""The arrows between the packages, read from the imports themselves."""

from __future__ import annotations

import ast
import importlib.metadata
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LEAVES = ("models", "placement")
APPLICATIONS = ("pipelines", "serving")
PACKAGES = (*LEAVES, *APPLICATIONS)
FILES = {package: sorted((ROOT / package).rglob("*.py")) for package in PACKAGES}
READERS = {"open", "read_text", "read_bytes", "write_text", "write_bytes", "read_parquet", "read_csv", "OSFile"}
"""Names whose call means that a file is touched."""


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imported(path: Path) -> Iterator[str]:
    """Full names of every module that a file imports, inside functions too."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{relative(path)}:{node.lineno}: a relative import; write the full name"
            yield node.module or ""


def packages_of(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imported(path)}


def calls(path: Path) -> set[str]:
    """Last names of everything that a file calls."""
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            function = node.func
            if isinstance(function, ast.Name):
                found.add(function.id)
            elif isinstance(function, ast.Attribute):
                found.add(function.attr)
    return found


@pytest.mark.parametrize("leaf", LEAVES)
def test_leaves__import_neither_each_other_nor_the_applications(leaf: str) -> None:
    """What both applications need stays usable by both, and by anyone without either."""
    banned = set(PACKAGES) - {leaf}
    wrong = {relative(path): packages_of(path) & banned for path in FILES[leaf]}
    assert not {path: names for path, names in wrong.items() if names}


@pytest.mark.parametrize(("one", "other"), [APPLICATIONS, APPLICATIONS[::-1]])
def test_applications__never_import_each_other(one: str, other: str) -> None:
    """The service runs without the batch jobs, and they without the service."""
    assert not [relative(path) for path in FILES[one] if other in packages_of(path)]


def test_imports__are_absolute_and_nothing_imports_the_tests() -> None:
    """A module reads the same wherever it is opened; `imported` refuses relative imports."""
    assert not [relative(p) for paths in FILES.values() for p in paths if "tests" in packages_of(p)]


def test_mlflow__is_imported_by_two_files_of_the_leaves() -> None:
    """One door to the registry, and the file that MLflow itself loads."""
    found = {relative(path) for leaf in LEAVES for path in FILES[leaf] if "mlflow" in packages_of(path)}
    assert found == {"models/registry.py", "models/pyfunc.py"}


def test_lightning__is_imported_where_training_happens_alone() -> None:
    """Forecasting must not pay seconds for a training library."""
    found = {
        path for paths in FILES.values() for path in paths if {"lightning", "pytorch_lightning"} & packages_of(path)
    }
    assert {path.name for path in found} <= {"training.py", "hybrid_training.py"}


def test_leaves__touch_files_in_the_artefact_module_and_the_registry_alone() -> None:
    """Data in, data out: only a saved model is read or written here (`pyfunc.py` reads which kind it was handed)."""
    allowed = {"models/artefact.py", "models/registry.py", "models/pyfunc.py"}
    touching = {relative(path): calls(path) & READERS for leaf in LEAVES for path in FILES[leaf]}
    assert not {path: names for path, names in touching.items() if names and path not in allowed}


def test_init_files__hold_a_docstring_and_nothing_else() -> None:
    """Importing a package must cost nothing and do nothing."""
    for paths in FILES.values():
        for path in (p for p in paths if p.name == "__init__.py"):
            body = tree(path).body
            assert len(body) == 1, relative(path)
            assert ast.get_docstring(tree(path)), relative(path)


def test_package_names__are_owned_by_no_other_distribution() -> None:
    """`models` is a common word: another installed package of that name would shadow ours, or be shadowed."""
    owners = importlib.metadata.packages_distributions()
    assert {name: set(owners.get(name, [])) - {"premirror"} for name in PACKAGES} == {name: set() for name in PACKAGES}


def test_packages__are_all_named_in_the_build_configuration() -> None:
    """The list there is explicit, so a forgotten folder would be missing from every installation."""
    import tomllib

    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"])
    folders = {relative(p.parent).replace("/", ".") for paths in FILES.values() for p in paths}
    assert listed == folders
