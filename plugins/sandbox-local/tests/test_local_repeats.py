"""Operations of a local directory that are attempted twice."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from faults.repeats import RepeatPromises

from sandbox_local import LocalProvider
from sandbox_local.client import LabellingLocalSandboxClient


@dataclass
class Local:
    """The provider and its client."""

    provider: LocalProvider
    client: LabellingLocalSandboxClient


@pytest.fixture
def backend() -> Local:
    provider = LocalProvider()
    return Local(provider, provider.create_client())


class TestRepeat(RepeatPromises):
    """In a directory of this host."""
