"""The Temporal server: whether it answers, its version, the namespace and its limits."""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta

from temporalio.api.workflowservice.v1 import (
    DescribeNamespaceRequest,
    DescribeNamespaceResponse,
    GetSystemInfoRequest,
)
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from sandbox_core.cli.connection import (
    ServerUnavailable,
    address_source,
    connect,
    connection_settings,
)
from sandbox_core.cli.doctor.findings import Finding
from sandbox_core.wire.limits import MAX_PAYLOAD_BYTES

_CONNECTED_WITHIN_S = 10.0
_ANSWERED_WITHIN = timedelta(seconds=10)
_SERVER, _NAMESPACE, _LIMITS = "temporal server", "temporal namespace", "temporal payloads"


async def check_temporal(address: str | None, namespace: str | None) -> list[Finding]:
    """Return the findings about the server that the other commands would use.

    The arguments are those of `connect`.
    """
    try:
        host = connection_settings(address, namespace)["target_host"]
    except ServerUnavailable as error:
        return [
            Finding(
                check=_SERVER,
                verdict="problem",
                seen=str(error),
                fix="correct the TEMPORAL_ variables, or the file that TEMPORAL_CONFIG_FILE names",
            )
        ]
    where = f"{host} ({address_source(address, host)})"
    try:
        client = await asyncio.wait_for(connect(address, namespace), _CONNECTED_WITHIN_S)
        info = await client.workflow_service.get_system_info(
            GetSystemInfoRequest(), timeout=_ANSWERED_WITHIN
        )
    except (asyncio.TimeoutError, ServerUnavailable, RPCError) as error:
        return [_unreachable(where, error)]
    version = info.server_version or "unknown"
    return [
        Finding(check=_SERVER, seen=f"{where}, version {version}"),
        *await _check_namespace(client),
    ]


def _unreachable(where: str, error: Exception) -> Finding:
    if isinstance(error, asyncio.TimeoutError):
        reason = f"no answer within {_CONNECTED_WITHIN_S:g} s"
    else:
        cause = error.__cause__ if isinstance(error, ServerUnavailable) else error
        reason = _reason(str(cause))
    return Finding(
        check=_SERVER,
        verdict="problem",
        seen=f"{where}: {reason}",
        fix="set --address or TEMPORAL_ADDRESS (and TEMPORAL_API_KEY or TEMPORAL_TLS, if the "
        "server requires them); for a local server, run `sandbox-core dev`",
    )


def _reason(text: str) -> str:
    """Return an error of the SDK without the Rust values around its cause."""
    messages = re.findall(r'message: "([^"]+)"', text)
    return messages[-1] if messages else " ".join(text.split())


async def _check_namespace(client: Client) -> list[Finding]:
    name = client.namespace
    try:
        described = await client.workflow_service.describe_namespace(
            DescribeNamespaceRequest(namespace=name), timeout=_ANSWERED_WITHIN
        )
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return [
                Finding(
                    check=_NAMESPACE,
                    verdict="problem",
                    seen=f"{name} does not exist",
                    fix=f"set --namespace or TEMPORAL_NAMESPACE, or create it: temporal operator "
                    f"namespace create --namespace {name}",
                )
            ]
        return [
            Finding(
                check=_NAMESPACE,
                verdict="warning",
                seen=f"{name} is not described ({error.status.name}: {error.message}): sandboxes "
                f"get no labels, so orphans are not found",
                fix="give the credentials the permission to describe the namespace",
            )
        ]
    return [Finding(check=_NAMESPACE, seen=name), _limits(described)]


def _limits(described: DescribeNamespaceResponse) -> Finding:
    limit = described.namespace_info.limits.blob_size_limit_error
    if not limit:
        return Finding(
            check=_LIMITS,
            seen=f"the server names no limit; up to {MAX_PAYLOAD_BYTES:,} bytes are sent inline",
        )
    if limit <= MAX_PAYLOAD_BYTES:
        return Finding(
            check=_LIMITS,
            verdict="problem",
            seen=f"the server refuses payloads of {limit:,} bytes; up to {MAX_PAYLOAD_BYTES:,} "
            f"may be sent inline",
            fix="set the server's dynamic configuration limit.blobSize.error to 2097152",
        )
    return Finding(
        check=_LIMITS,
        seen=f"up to {limit:,} bytes are accepted; larger ones than {MAX_PAYLOAD_BYTES:,} go to "
        f"the storage",
    )
