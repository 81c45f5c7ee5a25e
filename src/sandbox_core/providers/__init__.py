"""What a provider's author imports, and how providers are found."""

from sandbox_core.providers.contract import (
    CAPABILITIES,
    CONTRACT_VERSION,
    SandboxClientProvider,
    SupportsCheck,
    SupportsDestroy,
    SupportsExists,
    SupportsIdentity,
)
from sandbox_core.providers.hooks import hookimpl
from sandbox_core.providers.registry import (
    ENTRY_POINT_GROUP,
    Candidate,
    FailedProvider,
    LoadedProvider,
    discover,
    load,
)

__all__ = [
    "CAPABILITIES",
    "CONTRACT_VERSION",
    "ENTRY_POINT_GROUP",
    "Candidate",
    "FailedProvider",
    "LoadedProvider",
    "SandboxClientProvider",
    "SupportsCheck",
    "SupportsDestroy",
    "SupportsExists",
    "SupportsIdentity",
    "discover",
    "hookimpl",
    "load",
]
