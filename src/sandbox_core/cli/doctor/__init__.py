"""`sandbox-core doctor`: finds what is wrong with this host's setup, and says what fixes it."""

from __future__ import annotations

from sandbox_core.cli.doctor.findings import print_findings, without_secrets, worst
from sandbox_core.cli.doctor.providers import check_providers
from sandbox_core.cli.doctor.settings import check_settings
from sandbox_core.cli.doctor.storage import check_storage
from sandbox_core.cli.doctor.temporal import check_temporal
from sandbox_core.cli.doctor.versions import check_versions
from sandbox_core.cli.ending import gather
from sandbox_core.config import read_configuration


async def run_doctor(
    *, as_json: bool, storage: str | None, address: str | None, namespace: str | None
) -> int:
    """Print all findings; return 1 if one of them is a problem, 0 otherwise.

    Args:
        as_json: Whether to print JSON.
        storage: The workers' storage; None for the configuration's.
        address: The Temporal server; None for Temporal's own configuration.
        namespace: The namespace; None for Temporal's own configuration.
    """
    configuration = read_configuration()
    temporal, stored, providers = await gather(
        check_temporal(address, namespace),
        check_storage(storage, configuration),
        check_providers(configuration),
    )
    findings = without_secrets(
        [*temporal, *stored, *providers, *check_versions(), *check_settings(configuration)]
    )
    print_findings(findings, as_json=as_json)
    return int(worst(findings) == "problem")
