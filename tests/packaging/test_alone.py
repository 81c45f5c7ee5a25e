"""Each plugin alone, with the newest versions that it allows, has all that it imports.

Beside the others, it may live on what they require.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from projects import Project, projects

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(600)]

# Modules that are imported by a function count too.
MAKE_CLIENT = """
import importlib, pkgutil, sys
from sandbox_core.providers import LoadedProvider, discover, load

(result,) = load(discover())
if not isinstance(result, LoadedProvider):
    sys.exit(f"{result.error}")
package = importlib.import_module(result.candidate.module)
for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
    importlib.import_module(module.name)
try:
    result.provider.create_client()
except ImportError:
    raise
except Exception as error:
    print(f"{type(error).__name__}: {error}")
"""

_NO_ENGINE = "EngineUnreachable: "


def _required_variables(plugin: Project) -> list[str]:
    """Return the variables that a plugin's row in the table of the README names."""
    row = tomllib.loads(plugin.pyproject.read_text())["tool"]["sandbox-core"]
    return re.findall(r"`([A-Z0-9_]+)`", row["needs"])


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory, run: Callable[..., str]) -> Path:
    """An empty environment, which each test fills with what its plugin needs and nothing else."""
    made = tmp_path_factory.mktemp("alone") / "env"
    run("uv", "venv", "--quiet", "--python", sys.executable, made)
    return made / "bin" / "python"


@pytest.mark.parametrize("plugin", projects()[1:], ids=lambda plugin: plugin.name)
def test_it_makes_its_client(
    plugin: Project, environment: Path, dist: Path, run: Callable[..., str], tmp_path: Path
) -> None:
    wheels = [*dist.glob("sandbox_core-*.whl"), *dist.glob(f"{plugin.package}-*.whl")]
    run("uv", "pip", "install", "--quiet", "--exact", "--python", environment, *wheels)
    variables = dict.fromkeys(_required_variables(plugin), "unused")
    if "DOCKER_HOST" in variables:
        variables["DOCKER_HOST"] = f"unix://{tmp_path}/none.sock"

    made = subprocess.run(
        [environment, "-I", "-c", MAKE_CLIENT],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), **variables},
        capture_output=True,
        text=True,
        check=False,
    )

    assert 0 == made.returncode, made.stderr
    said = made.stdout.strip()
    assert said == "" or ("DOCKER_HOST" in variables and said.startswith(_NO_ENGINE)), said
