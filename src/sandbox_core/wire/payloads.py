"""Reads payloads of histories, some of which nobody here may be able to read."""

from __future__ import annotations

from collections.abc import Iterable

from temporalio.api.common.v1 import Payload
from temporalio.client import Client

from sandbox_core.errors import StorageError


async def decoded(client: Client, payloads: Iterable[Payload]) -> object:
    """Return the value of the only payload; None if there is none, or nobody here can read it."""
    given = list(payloads)
    if not given or not given[0].metadata:
        return None
    try:
        (value,) = await client.data_converter.decode(given)
    except (RuntimeError, ValueError, KeyError, StorageError):  # A codec's, or another storage.
        return None
    return value
