"""The API for authors of providers, and the discovery of providers."""

from sandbox_core.providers.adapter import client_provider
from sandbox_core.providers.contract import (
    CAPABILITIES,
    CONTRACT_VERSION,
    HostProcess,
    LabelledSandbox,
    ProcessStream,
    SandboxClientProvider,
    SupportsCheck,
    SupportsDestroy,
    SupportsExists,
    SupportsHostProcesses,
    SupportsIdentity,
    SupportsLabels,
    SupportsProcessStreams,
    SupportsRelabel,
)
from sandbox_core.providers.discovery import ENTRY_POINT_GROUP, Candidate, discover
from sandbox_core.providers.hooks import hookimpl
from sandbox_core.providers.labelling import LabellingClient
from sandbox_core.providers.private_folder import private_folder
from sandbox_core.providers.registry import FailedProvider, LoadedProvider, Provider, load
from sandbox_core.providers.stopped import SandboxStopped
from sandbox_core.wire.retry_after import (
    parse_retry_after,
    retry_after_of,
    retry_after_where_raised,
)
from sandbox_core.wire.strict import StrictOptions

__all__ = [
    "CAPABILITIES",
    "CONTRACT_VERSION",
    "ENTRY_POINT_GROUP",
    "Candidate",
    "FailedProvider",
    "HostProcess",
    "LabelledSandbox",
    "LabellingClient",
    "LoadedProvider",
    "ProcessStream",
    "Provider",
    "SandboxClientProvider",
    "SandboxStopped",
    "StrictOptions",
    "SupportsCheck",
    "SupportsDestroy",
    "SupportsExists",
    "SupportsHostProcesses",
    "SupportsIdentity",
    "SupportsLabels",
    "SupportsProcessStreams",
    "SupportsRelabel",
    "client_provider",
    "discover",
    "hookimpl",
    "load",
    "parse_retry_after",
    "private_folder",
    "retry_after_of",
    "retry_after_where_raised",
]
