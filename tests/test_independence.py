"""The core and its tests know no plugin: what they need of one is found as a worker finds it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

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


def imported(path: Path) -> Iterator[str]:
    """Iterate over the top packages that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


def test_there_are_plugins_and_files() -> None:
    assert {"sandbox_local", "sandbox_docker", "docker_engine"} <= PLUGINS
    assert len(FILES) > 200


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_plugin_is_imported(folder: str) -> None:
    found = {
        str(path): sorted(names)
        for path in FILES
        if path.parts[0] == folder and (names := PLUGINS & set(imported(ROOT / path)))
    }

    assert {} == found
