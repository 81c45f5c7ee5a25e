"""What importing sandbox-core imports."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from registry.distributions import Environment, plugin

# In this order: each is imported on top of the ones before it.
MODULES = ("sandbox_core", "sandbox_core.workflow", "sandbox_core.providers", "sandbox_core.worker")
FORBIDDEN = {"acme_alpha", "daytona", "docker", "sandbox_daytona", "sandbox_local"}


@pytest.fixture(scope="module")
def imported(new_environment: Callable[[], Environment]) -> dict[str, list[str]]:
    environment = new_environment()
    environment.install(plugin("alpha"))
    report: dict[str, list[str]] = json.loads(environment.run("report_imports.py", MODULES))
    return report


class TestImport:
    """A provider and its vendor's SDK are imported by nothing but loading and activating it."""

    @pytest.mark.parametrize("module", MODULES)
    def test_no_provider_and_no_vendor_sdk_is_imported(
        self, imported: dict[str, list[str]], module: str
    ) -> None:
        """They may all be installed."""
        assert set() == FORBIDDEN & set(imported[module])

    def test_the_package_alone_imports_nothing_large(self, imported: dict[str, list[str]]) -> None:
        """Its parts are imported from where they are."""
        assert set() == {"agents", "pydantic", "temporalio"} & set(imported["sandbox_core"])
