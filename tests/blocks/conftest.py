"""The Python blocks of pages as modules."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

Load = Callable[[str], ModuleType]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Imports code as a module that workflows can be defined in."""
    folder = tmp_path / "modules"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))

    def load(code: str) -> ModuleType:
        name = f"page_{tmp_path.name}_{len(list(folder.glob('*.py')))}"
        (folder / f"{name}.py").write_text(code, encoding="utf-8")
        module = importlib.import_module(name)
        monkeypatch.setitem(sys.modules, name, module)  # Removed again after the test.
        return module

    return load
