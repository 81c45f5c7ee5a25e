"""The modules that importing sandbox-core imports."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import importlib_metadata
import pytest
import tomli
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from registry.distributions import Environment, plugin

ROOT = Path(__file__).parents[2]

# In this order: each is imported on top of the ones before it.
MODULES = ("sandbox_core", "sandbox_core.workflow", "sandbox_core.providers", "sandbox_core.worker")


@pytest.fixture(scope="module")
def imported(new_environment: Callable[[], Environment]) -> dict[str, list[str]]:
    environment = new_environment()
    environment.install(plugin("alpha"))
    report: dict[str, list[str]] = json.loads(environment.run("report_imports.py", MODULES))
    return report


def _vendor_modules() -> set[str]:
    """The packages of the distributions that only plugins require."""
    core = _required(ROOT / "pyproject.toml")
    named = set().union(*map(_required, ROOT.glob("plugins/*/pyproject.toml"))) - core
    installed = importlib_metadata.packages_distributions()
    return {
        module
        for module, distributions in installed.items()
        if named & {canonicalize_name(name) for name in distributions}
    }


def _required(pyproject: Path) -> set[str]:
    project = tomli.loads(pyproject.read_text(encoding="utf-8"))["project"]
    requirements = [Requirement(each) for each in project["dependencies"]]
    named = {canonicalize_name(each.name) for each in requirements}
    # The vendors' SDKs are extras of the Agents SDK.
    extras = {extra for each in requirements for extra in each.extras}
    return named | {canonicalize_name(extra) for extra in extras}


class TestImport:
    """A provider and its vendor's SDK are imported by nothing but loading and activating it."""

    @pytest.mark.parametrize("module", MODULES)
    def test_no_provider_and_no_vendor_sdk_is_imported(
        self, imported: dict[str, list[str]], module: str
    ) -> None:
        """They may all be installed."""
        of_plugins = {
            path.parent.name for path in ROOT.glob("plugins/*/src/*/__init__.py")
        } | _vendor_modules()

        assert {"sandbox_local", "docker", "daytona"} <= of_plugins
        assert set() == ({"acme_alpha"} | of_plugins) & set(imported[module])

    def test_the_package_alone_imports_nothing_large(self, imported: dict[str, list[str]]) -> None:
        """Its parts are imported from where they are."""
        assert set() == {"agents", "pydantic", "temporalio"} & set(imported["sandbox_core"])
