"""Defines the labels of sandboxes, which name the owner and the request of each.

The labels' names are a published contract: the sandboxes of earlier versions are found by them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from temporalio import activity
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client

from sandbox_core.wire.messages import CreateSessionRequest, ResumeSessionRequest, WorkflowRun

NAMESPACE_ID = "sandbox-core.namespace-id"
"""The namespace's id on the Temporal server: different servers have namespaces of one name."""

NAMESPACE = "sandbox-core.namespace"
WORKFLOW_ID = "sandbox-core.workflow-id"
RUN_ID = "sandbox-core.run-id"

KEY = "sandbox-core.key"
"""Identifies the request that the sandbox was made for, across its attempts."""

REQUEST = "sandbox-core.request"
"""The SHA-256 of that request, in hexadecimal."""

ATTEMPT = "sandbox-core.attempt"
"""The attempt at that request that made it, counted from 1."""

WORKER = "sandbox-core.worker"
"""The own queue of the worker that made it."""


@dataclass(frozen=True, kw_only=True)
class Namespace:
    """A worker's Temporal namespace, for labels."""

    name: str
    id: str

    @classmethod
    async def of(cls, client: Client) -> Namespace:
        """Ask the server for the id of the client's namespace.

        Raises:
            RPCError: The server did not answer, or denied the request.
        """
        described = await client.workflow_service.describe_namespace(
            DescribeNamespaceRequest(namespace=client.namespace),
            retry=True,
            timeout=timedelta(seconds=10),
        )
        return cls(name=client.namespace, id=described.namespace_info.id)


def owner_labels(namespace: Namespace, owner: WorkflowRun | None = None) -> dict[str, str]:
    """Return the labels that name `owner`, by default the workflow of the current activity."""
    info = activity.info()
    return {
        NAMESPACE_ID: namespace.id,
        NAMESPACE: namespace.name,
        WORKFLOW_ID: (info.workflow_id if owner is None else owner.workflow_id) or "",
        RUN_ID: (info.workflow_run_id if owner is None else owner.run_id) or "",
    }


def request_labels(request: CreateSessionRequest | ResumeSessionRequest) -> dict[str, str]:
    """Return the labels that name the request that a sandbox is made for."""
    if isinstance(request, CreateSessionRequest):
        return {KEY: request.create_key, REQUEST: digest(request)}
    # Each epoch of a session is unique, and the same in all attempts at a request.
    return {KEY: f"{request.state.get('session_id', '')}.{request.epoch}", REQUEST: digest(request)}


def digest(request: CreateSessionRequest | ResumeSessionRequest) -> str:
    """Return the SHA-256 of a request, which tells requests with the same key apart."""
    content = json.dumps(request.dump(), sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def has_all(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Return whether `labels` include all the `wanted` ones."""
    return wanted.items() <= labels.items()
