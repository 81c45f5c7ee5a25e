"""Connects commands to the Temporal server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from temporalio.client import Client
from temporalio.envconfig import ClientConfig
from temporalio.service import RPCError

_DEFAULT_ADDRESS = "localhost:7233"


class ServerUnavailable(RuntimeError):
    """The Temporal server cannot be reached or refuses; the message says what to do."""


async def connect(address: str | None, namespace: str | None) -> Client:
    """Return a client without plugins, so that payloads stay as the server has them.

    Arguments that are None come from Temporal's own configuration: the environment
    (``TEMPORAL_ADDRESS``, ``TEMPORAL_NAMESPACE``, ``TEMPORAL_API_KEY``, ...), its configuration
    file, or its defaults.

    Raises:
        ServerUnavailable: The configuration is invalid, or no server answers at the address.
    """
    try:
        settings = ClientConfig.load_client_connect_config()
    except (OSError, RuntimeError, ValueError) as error:
        raise ServerUnavailable(f"Temporal's client configuration: {error}") from error
    settings.setdefault("target_host", _DEFAULT_ADDRESS)
    if address is not None:
        settings["target_host"] = address
    if namespace is not None:
        settings["namespace"] = namespace
    try:
        return await Client.connect(**settings)
    except (RuntimeError, ValueError, RPCError) as error:
        raise ServerUnavailable(
            f"cannot connect to Temporal at {settings['target_host']}: {error}. Set the server "
            f"with --address or TEMPORAL_ADDRESS, and check that it is running and reachable from "
            f"here."
        ) from error


@contextmanager
def server_errors(*clients: Client) -> Iterator[None]:
    """Turn errors of the server into one clear error.

    Raises:
        ServerUnavailable: A request failed despite the client's own retries.
    """
    try:
        yield
    except RPCError as error:
        namespaces = ", ".join(client.namespace for client in clients)
        raise ServerUnavailable(
            f"Temporal at {clients[0].service_client.config.target_host}, namespace {namespaces}: "
            f"{error.status.name}: {error.message.rstrip('.')}. Check --namespace, and that the "
            f"credentials in the environment permit it."
        ) from error
