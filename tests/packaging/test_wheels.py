"""What the distributions say, and that they work without the rest of this tree.

`release/checks.py`, of which `test_release.py` is the test, checks what they hold.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

pytestmark = pytest.mark.packaging

CORE = "sandbox-core"
PLUGINS = sorted(
    path.parent.name for path in Path(__file__).parents[2].glob("plugins/*/pyproject.toml")
)
GROUP = "sandbox_core.providers"

every_plugin = pytest.mark.parametrize("plugin", PLUGINS)
every_project = pytest.mark.parametrize("project", [CORE, *PLUGINS])

LOAD = """
import json
from sandbox_core.providers import LoadedProvider, discover, load

print(json.dumps([
    {
        "provider": result.provider.name,
        "distribution": result.candidate.distribution,
        "version": result.candidate.version,
        "editable": result.candidate.editable_path is not None,
    }
    if isinstance(result, LoadedProvider) else {"failed": str(result.error)}
    for result in load(discover())
]))
"""


def package_of(project: str) -> str:
    return project.replace("-", "_")


def provider_of(plugin: str) -> str:
    return plugin.removeprefix("sandbox-")


@dataclass(frozen=True)
class Distributions:
    """A folder of wheels and sdists, by the name of the project."""

    folder: Path

    def wheel(self, project: str) -> Path:
        (found,) = self.folder.glob(f"{package_of(project)}-*.whl")
        return found

    def metadata(self, project: str) -> importlib.metadata.Distribution:
        path = [str(self.wheel(project))]
        (found,) = importlib.metadata.Distribution.discover(path=path)
        return found

    def requirements(self, project: str) -> dict[str, Requirement]:
        """Return what a project needs without an extra, by the name of what it needs."""
        needed = map(Requirement, self.metadata(project).requires or [])
        return {
            canonicalize_name(one.name): one
            for one in needed
            if one.marker is None or one.marker.evaluate({"extra": ""})
        }

    def loaded(self, plugin: str) -> dict[str, object]:
        """Return what `LOAD` prints of a plugin that works."""
        return {
            "provider": provider_of(plugin),
            "distribution": plugin,
            "version": self.metadata(plugin).version,
            "editable": False,
        }


@pytest.fixture(scope="session")
def built(dist: Path) -> Distributions:
    return Distributions(dist)


# --- What they say ------------------------------------------------------------------------------


@every_project
def test_a_distribution_installs_on_every_python_from_3_10(
    project: str, built: Distributions
) -> None:
    """A plugin that asks for more than the core cannot be installed beside it."""
    expected = ">=3.10"
    assert expected == built.metadata(project).metadata["Requires-Python"]


@every_plugin
def test_a_plugin_claims_the_one_provider_that_it_is_named_after(
    plugin: str, built: Distributions
) -> None:
    """Provider, distribution and module are named alike, so that each leads to the others."""
    claims = [(one.group, one.name, one.value) for one in built.metadata(plugin).entry_points]
    expected = [(GROUP, provider_of(plugin), package_of(plugin))]
    assert expected == claims


def test_the_core_claims_no_provider(built: Distributions) -> None:
    """Every provider is a distribution of its own, the local one too."""
    assert not built.metadata(CORE).entry_points.select(group=GROUP)


def test_only_the_core_constrains_the_version_of_the_agents_sdk(built: Distributions) -> None:
    """Two constraints that drift apart are an installation that nobody can resolve.

    Vercel's has an upper bound of its own: later SDKs take another package of Vercel's.
    """
    constrained = {
        project
        for project in (CORE, *PLUGINS)
        if (sdk := built.requirements(project).get("openai-agents")) and sdk.specifier
    }
    assert {CORE, "sandbox-vercel"} == constrained


def test_the_oldest_agents_sdk_that_is_allowed_is_the_one_of_the_tests(
    built: Distributions,
) -> None:
    """Those before it were never tried, and lack what backends need."""
    oldest = f">={importlib.metadata.version('openai-agents')}"
    sdk = built.requirements(CORE)["openai-agents"]
    assert oldest in str(sdk.specifier).split(",")


# --- That they work -----------------------------------------------------------------------------


def test_every_provider_loads_from_its_wheel(
    installed: Path, built: Distributions, run: Callable[..., str]
) -> None:
    """Nothing in the environment comes from this tree, so each wheel has all that it needs."""
    expected = [built.loaded(plugin) for plugin in sorted(PLUGINS, key=provider_of)]
    assert expected == json.loads(run(installed / "bin" / "python", "-I", "-c", LOAD))


def test_what_the_wheels_need_fits_together(installed: Path, run: Callable[..., str]) -> None:
    """No requirement is missing, and none contradicts another one."""
    run("uv", "pip", "check", "--python", installed / "bin" / "python")


def test_every_command_of_the_core_starts_without_an_extra(
    pip_installed: Path, built: Distributions, run: Callable[..., str]
) -> None:
    """A command imports what only `sandbox-core[demo]` brings when it needs it, and not before."""
    commands = built.metadata(CORE).entry_points.select(group="console_scripts")
    assert {"sandbox", "sandbox-core"} == commands.names
    # Not where Vercel's SDK is installed, which has a `sandbox` of its own.
    for command in ("sandbox", "sandbox-core"):
        assert f"Usage: {command} " in run(pip_installed / "bin" / command, "--help")


def test_pip_installs_the_core_and_a_plugin_from_the_tree(
    pip_installed: Path, built: Distributions, run: Callable[..., str]
) -> None:
    """The project files have settings for uv, which pip does not know and must not need."""
    expected = [built.loaded("sandbox-local")]
    assert expected == json.loads(run(pip_installed / "bin" / "python", "-I", "-c", LOAD))
