"""Distributions that exist for a test: written as source, built by hatchling, installed by uv.

An `Environment` is a real virtual environment that also sees what the running one has installed,
`sandbox-core` above all. What it has is looked at from outside: a script of this folder runs in its
interpreter and prints JSON.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import TypeAlias

Json: TypeAlias = "Mapping[str, Json] | Sequence[Json] | str | int | float | bool | None"

SCRIPTS = Path(__file__).parent

HOOK = """
    @hookimpl
    def sandbox_client_provider():
        return Provider()
"""
"""The hook of a module that has a class named Provider."""

_IMPORTS = """
    from agents.sandbox.sandboxes.unix_local import (
        UnixLocalSandboxClient,
        UnixLocalSandboxClientOptions,
    )
    from sandbox_core.providers import SandboxClientProvider, hookimpl
"""
# The one hook of PEP 517 that is needed, for all source trees in one process.
_BUILD = """
import os, sys
from hatchling import build
for tree in sys.argv[2:]:
    os.chdir(tree)
    build.build_wheel(sys.argv[1])
"""


@dataclass(frozen=True, kw_only=True)
class Plugin:
    """A distribution of one module, which claims one provider name."""

    name: str
    """The provider name that the entry point claims."""

    distribution: str
    source: str
    version: str = "1.0"
    group: str = "sandbox_core.providers"

    @property
    def module(self) -> str:
        return self.distribution.replace("-", "_").lower()

    def write(self, folder: Path) -> Path:
        """Write the source tree and return its root."""
        root = folder / f"{self.distribution}-{self.version}"
        package = root / "src" / self.module
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(self.source)
        (root / "pyproject.toml").write_text(
            dedent(f"""
                [build-system]
                requires = ["hatchling"]
                build-backend = "hatchling.build"

                [project]
                name = "{self.distribution}"
                version = "{self.version}"

                [project.entry-points."{self.group}"]
                {self.name} = "{self.module}"

                # For editable installs: the folder itself, which needs no further build dependency.
                [tool.hatch.build]
                dev-mode-dirs = ["src"]
            """)
        )
        return root


def plugin(name: str, source: str | None = None, *, version: str = "1.0") -> Plugin:
    """Return a plugin in the distribution ``acme-<name>``; a healthy one if no source is given."""
    return Plugin(
        name=name,
        distribution=f"acme-{name}",
        version=version,
        source=module(provider(name), HOOK) if source is None else source,
    )


def module(*parts: str) -> str:
    """Return a plugin's module: the usual imports, and the parts one after the other."""
    return "\n\n".join(dedent(part).strip() for part in (_IMPORTS, *parts)) + "\n"


def provider(
    name: str,
    *,
    without: str = "",
    client: str = "return UnixLocalSandboxClient(inherit_host_environment=False)",
    **overrides: str,
) -> str:
    """Return a provider class, whose client is the SDK's for local directories.

    Args:
        name: The provider's name.
        without: An attribute to leave out.
        client: The one statement of `create_client`.
        overrides: Source of attributes, by the attribute's name.
    """
    attributes = {
        "name": repr(name),
        "summary": "'Sandboxes at Acme'",
        "api_version": "1",
        "options_type": "UnixLocalSandboxClientOptions",
        **overrides,
    }
    lines = [f"    {key} = {value}" for key, value in attributes.items() if key != without]
    return "\n".join(
        [
            "class Provider(SandboxClientProvider):",
            *lines,
            "",
            "    def create_client(self):",
            f"        {client}",
        ]
    )


class Environment:
    """A virtual environment on top of the running one, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        home = folder / "venv"
        folder.mkdir(parents=True, exist_ok=True)
        self._uv("venv", "--python", sys.executable, str(home))
        self.python = home / ("Scripts" if os.name == "nt" else "bin") / "python"
        self.site_packages = Path(
            self._output("-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
        )
        # `addsitedir` rather than the bare path: it also follows the editable installs there.
        running = dict.fromkeys(map(sysconfig.get_path, ("purelib", "platlib")))
        (self.site_packages / "running.pth").write_text(
            "".join(f"import site; site.addsitedir({path!r})\n" for path in running)
        )

    def install(self, *plugins: Plugin) -> None:
        """Build the plugins and install their wheels."""
        self._install(plugins, "--python", str(self.python))

    def install_last(self, *plugins: Plugin) -> None:
        """Install the plugins into a further folder, which comes last on the path."""
        folder = self._folder / "last"
        self._install(plugins, "--target", str(folder))
        (self.site_packages / "zz-last.pth").write_text(f"{folder}\n")

    def install_editable(self, plugin: Plugin) -> Path:
        """Install the plugin from its source tree, and return that."""
        tree = plugin.write(self._folder / "editable")
        self._uv(
            *("pip", "install", "--no-deps", "--no-build-isolation"),
            *("--python", str(self.python), "--editable", str(tree)),
        )
        return tree

    def run(self, script: str, arguments: Json = None) -> str:
        """Run a script of this folder with JSON arguments, and return what it printed."""
        return self._output(str(SCRIPTS / script), json.dumps(arguments))

    def start(self, script: str) -> subprocess.Popen[str]:
        """Start a script of this folder, connected by pipes."""
        return subprocess.Popen(
            [self.python, "-I", str(SCRIPTS / script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=_environ(),
        )

    def dist_info(self, plugin: Plugin) -> Path:
        """Return the folder of an installed plugin's metadata."""
        return self.site_packages / f"{plugin.module}-{plugin.version}.dist-info"

    def _install(self, plugins: Sequence[Plugin], *where: str) -> None:
        # A folder for each call: two plugins may have one name and version.
        work = self._folder / f"build-{len(list(self._folder.iterdir()))}"
        trees = [str(plugin.write(work / "source")) for plugin in plugins]
        wheels = work / "wheels"
        wheels.mkdir()
        _check([sys.executable, "-c", _BUILD, str(wheels), *trees], work)
        built = sorted(str(wheel) for wheel in wheels.iterdir())
        self._uv("pip", "install", "--no-deps", *where, *built)

    def _uv(self, *arguments: str) -> None:
        cache = str(self._folder / "uv-cache")
        command = [_uv(), "--quiet", "--no-config", "--offline", "--cache-dir", cache]
        _check([*command, *arguments], self._folder)

    def _output(self, *arguments: str) -> str:
        return _check([str(self.python), "-I", *arguments], self._folder)


def _uv() -> str:
    beside_python = Path(sys.executable).parent / "uv"
    found = str(beside_python) if beside_python.is_file() else shutil.which("uv")
    assert found is not None, "these tests need uv: pip install uv"
    return found


def _environ() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("SANDBOX_CORE_")}


def _check(command: Sequence[str], folder: Path) -> str:
    done = subprocess.run(
        command, cwd=folder, env=_environ(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout
