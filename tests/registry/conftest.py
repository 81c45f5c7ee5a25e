"""Environments into which plugins are really installed."""

from __future__ import annotations

from collections.abc import Callable

import importlib_metadata
import pytest
from registry.distributions import Environment


@pytest.fixture(scope="session")
def new_environment(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Environment]:
    """Make an environment on top of the running one."""
    return lambda: Environment(tmp_path_factory.mktemp("environment"))


@pytest.fixture(scope="session")
def preinstalled() -> list[str]:
    """Names that every environment has, because the running one has their providers."""
    return sorted(importlib_metadata.entry_points(group="sandbox_core.providers").names)
