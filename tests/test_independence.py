"""The core and its tests import no plugin; a plugin imports only the core's public modules."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from syntax import syntax_tree

ROOT = Path(__file__).parents[1]
PLUGINS = {
    path.stem if path.is_file() else path.name
    for folder in ("plugins/*/src/*", "plugins/*/tests/*.py")
    for path in ROOT.glob(folder)
}
FOLDERS = ("conftest.py", "src", "tests")
FILES = sorted(
    path.relative_to(ROOT)
    for path in (ROOT / FOLDERS[0], *(ROOT / "src").rglob("*.py"), *(ROOT / "tests").rglob("*.py"))
)


PUBLIC = re.compile(
    r"sandbox_core\.(errors|providers|providers\.(archives|listings|remote)|testing\b.*|workflow)"
)
"""The modules that a plugin may import; a name of any other may change with each release."""


def imported(path: Path) -> Iterator[str]:
    """Iterate over the modules that a file imports, wherever in it."""
    for node in ast.walk(syntax_tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def packages(path: Path) -> set[str]:
    return {module.partition(".")[0] for module in imported(path)}


def test_there_are_plugins_and_files() -> None:
    assert {"sandbox_local", "sandbox_docker", "docker_engine"} <= PLUGINS
    assert len(FILES) > 200


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_plugin_is_imported(folder: str) -> None:
    found = {
        str(path): sorted(names)
        for path in FILES
        if path.parts[0] == folder and (names := PLUGINS & packages(ROOT / path))
    }

    assert {} == found


def test_plugins_import_only_public_modules() -> None:
    """import-linter would need each plugin named in its configuration."""
    found = {
        (str(path.relative_to(ROOT)), module)
        for path in ROOT.glob("plugins/*/src/**/*.py")
        for module in imported(path)
        if module.startswith("sandbox_core") and not PUBLIC.fullmatch(module)
    }

    assert set() == found
