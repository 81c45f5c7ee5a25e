"""Connects commands to the Temporal server."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from temporalio.client import Client, Plugin
from temporalio.envconfig import ClientConfig, ClientConnectConfig
from temporalio.runtime import Runtime
from temporalio.service import RPCError, RPCStatusCode

DEFAULT_ADDRESS = "localhost:7233"


class ServerUnavailable(RuntimeError):
    """The Temporal server cannot be reached or refuses; the message says what to do."""


def connection_settings(
    address: str | None, namespace: str | None, profile: str | None = None
) -> ClientConnectConfig:
    """Return the arguments of `Client.connect`.

    Arguments that are None come from Temporal's own configuration: the environment
    (``TEMPORAL_ADDRESS``, ``TEMPORAL_NAMESPACE``, ``TEMPORAL_API_KEY``, ...), its configuration
    file, or its defaults. `profile` is the profile of that file, by default ``TEMPORAL_PROFILE``.

    Raises:
        ServerUnavailable: The configuration is invalid.
    """
    try:
        settings = ClientConfig.load_client_connect_config(profile)
    except (OSError, RuntimeError, ValueError) as error:
        raise ServerUnavailable(f"Temporal's client configuration: {error}") from error
    settings.setdefault("target_host", DEFAULT_ADDRESS)
    if address is not None:
        settings["target_host"] = address
    if namespace is not None:
        settings["namespace"] = namespace
    return settings


def address_source(address: str | None, host: str, environ: Mapping[str, str] = os.environ) -> str:
    """Return what says that the server is `host`; `address` is that of `connection_settings`."""
    if address is not None:
        return "--address"
    if environ.get("TEMPORAL_ADDRESS"):
        return "TEMPORAL_ADDRESS"
    return "default" if host == DEFAULT_ADDRESS else "Temporal's configuration file"


async def connect(
    address: str | None,
    namespace: str | None,
    *,
    profile: str | None = None,
    plugins: Sequence[Plugin] = (),
    runtime: Runtime | None = None,
) -> Client:
    """Return a client, by default without plugins: payloads then stay as the server has them.

    `address`, `namespace` and `profile` are those of `connection_settings`; `runtime` is the
    default one if it is None.

    Raises:
        ServerUnavailable: The configuration is invalid, or no server answers at the address.
    """
    settings = connection_settings(address, namespace, profile)
    try:
        return await Client.connect(**settings, plugins=plugins, runtime=runtime)
    except (RuntimeError, ValueError, RPCError) as error:
        raise ServerUnavailable(
            f"cannot connect to Temporal at {settings['target_host']}: {error}. Set the server "
            f"with --address or TEMPORAL_ADDRESS, and check that it is running and reachable from "
            f"here."
        ) from error


async def connect_with_storage(
    address: str | None,
    namespace: str | None,
    storage: str | None,
    *,
    runtime: Runtime | None = None,
) -> Client:
    """Return a client that reads what workers keep in `storage`, and sends them messages.

    `storage` is the workers' storage URL; None for ``SANDBOX_CORE_STORAGE``, or the default one.
    The other arguments are those of `connect`.

    Raises:
        ServerUnavailable: See `connect`.
        StorageError: `storage` is not a storage URL.
    """
    # It imports the worker, which commands without a storage do not need.
    from sandbox_core.worker import SandboxPlugin

    plugin = SandboxPlugin(storage=storage, register_activities=False)
    return await connect(address, namespace, plugins=[plugin], runtime=runtime)


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
        fix = (
            "Check that it is running and reachable from here."
            if error.status is RPCStatusCode.UNAVAILABLE
            else "Check --namespace, and that the credentials in the environment permit it."
        )
        raise ServerUnavailable(
            f"Temporal at {clients[0].service_client.config.target_host}, namespace {namespaces}: "
            f"{error.status.name}: {error.message.rstrip('.')}. {fix}"
        ) from error
