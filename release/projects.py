"""The distributions of this repository, which are released together with one version."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
CORE: Final = "sandbox-core"

_VERSION: Final = re.compile(r'^__version__ = "([^"]*)"$', re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Project:
    """A distribution."""

    name: str
    folder: Path

    @property
    def package(self) -> str:
        """The name of its only package."""
        return self.name.replace("-", "_")

    @property
    def pyproject(self) -> Path:
        """Its pyproject.toml."""
        return self.folder / "pyproject.toml"

    @property
    def source(self) -> Path:
        """The folder of its package."""
        return self.folder / "src" / self.package

    @property
    def version(self) -> str:
        """The version, from `__version__` of its package.

        Raises:
            ValueError: The package has no such line, or several.
        """
        found = _VERSION.findall((self.source / "__init__.py").read_text("utf-8"))
        if len(found) != 1:
            raise ValueError(f"{self.source}/__init__.py: expected one line `__version__ = ...`")
        return str(found[0])

    def set_version(self, version: str) -> None:
        """Change the version."""
        file = self.source / "__init__.py"
        text = file.read_text("utf-8")
        file.write_text(_VERSION.sub(f'__version__ = "{version}"', text), "utf-8")


def projects(root: Path = ROOT) -> list[Project]:
    """Return the core, and then the plugins by name."""
    plugins = sorted(path.parent for path in root.glob("plugins/*/pyproject.toml"))
    return [
        Project(name=CORE, folder=root),
        *(Project(name=folder.name, folder=folder) for folder in plugins),
    ]
