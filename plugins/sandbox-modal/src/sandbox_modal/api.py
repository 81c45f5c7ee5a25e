"""Wraps the part of Modal's SDK that is used here, with errors that say whether to retry."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import modal
from modal.exception import (
    AuthError,
    InvalidError,
    NotFoundError,
    PermissionDeniedError,
    ResourceExhaustedError,
)

from sandbox_core.errors import AtCapacity

_STATUSES: Final[Mapping[type[Exception], int]] = {
    AuthError: 401,
    InvalidError: 400,
    NotFoundError: 404,
    PermissionDeniedError: 403,
}


class RefusedByModal(Exception):
    """Modal's error, with the HTTP status that corresponds to its gRPC status."""

    def __init__(self, error: Exception, status: int) -> None:
        super().__init__(f"Modal: {error}")
        self.status = status


@contextmanager
def refusals() -> Iterator[None]:
    """Translate Modal's errors into ones that say whether to retry.

    Raises:
        RefusedByModal: A retry would get the same answer.
    """
    try:
        yield
    except tuple(_STATUSES) as error:
        status = next(code for kind, code in _STATUSES.items() if isinstance(error, kind))
        raise RefusedByModal(error, status) from error


class Modal:
    """A connection to Modal, which is opened when it is first used.

    Args:
        token_id: The id of a Modal token.
        token_secret: The secret of that token.
    """

    def __init__(self, token_id: str, token_secret: str) -> None:
        self._token = (token_id, token_secret)
        self._client: modal.Client | None = None
        self._connecting = asyncio.Lock()

    async def client(self) -> modal.Client:
        """Return Modal's client.

        Raises:
            Exception: Modal cannot be reached.
        """
        async with self._connecting:
            if self._client is None:
                self._client = await modal.Client.from_credentials.aio(*self._token)
            return self._client

    async def create(self, app_name: str, **settings: Any) -> modal.Sandbox:  # noqa: ANN401 - Modal's
        """Create a sandbox in an app, which is created if it does not exist.

        Raises:
            AtCapacity: The account's limit on sandboxes is reached.
            RefusedByModal: Modal did not create it.
        """
        client = await self.client()
        with refusals():
            try:
                app = await modal.App.lookup.aio(app_name, create_if_missing=True, client=client)
                return await modal.Sandbox.create.aio(app=app, client=client, **settings)
            except ResourceExhaustedError as error:
                # Modal's SDK has already waited as long as Modal told it to.
                raise AtCapacity(
                    f"provider 'modal' has no room for another sandbox: {error}"
                ) from error

    async def running(self, sandbox_id: str) -> modal.Sandbox | None:
        """Return the sandbox if it is running; None if it has ended or never existed.

        Raises:
            Exception: Modal did not say.
        """
        client = await self.client()
        with refusals():
            try:
                sandbox = await modal.Sandbox.from_id.aio(sandbox_id, client=client)
            except NotFoundError:
                return None
        return sandbox if sandbox.returncode is None else None

    async def terminate(self, sandbox_id: str) -> None:
        """End a sandbox, if it is running.

        Raises:
            Exception: Modal did not end it.
        """
        sandbox = await self.running(sandbox_id)
        if sandbox is not None:
            with refusals():
                await sandbox.terminate.aio(wait=True)

    async def find(self, tags: Mapping[str, str]) -> AsyncIterator[tuple[str, Mapping[str, str]]]:
        """Yield the id and the tags of each running sandbox that has all of `tags`.

        Raises:
            Exception: Modal did not say.
        """
        client = await self.client()
        with refusals():
            async for sandbox in modal.Sandbox.list.aio(tags=dict(tags), client=client):
                try:
                    yield sandbox.object_id, await sandbox.get_tags.aio()
                except NotFoundError:
                    continue  # It ended meanwhile.

    async def set_tags(self, sandbox_id: str, tags: Mapping[str, str]) -> None:
        """Set tags of a running sandbox; the others stay.

        Raises:
            RefusedByModal: The sandbox is not running.
        """
        client = await self.client()
        with refusals():
            sandbox = await modal.Sandbox.from_id.aio(sandbox_id, client=client)
            await sandbox.set_tags.aio({**await sandbox.get_tags.aio(), **tags})

    async def check(self) -> None:
        """Check that Modal answers and accepts the token.

        Raises:
            Exception: It does not.
        """
        client = await self.client()
        with refusals():
            await client.hello.aio()  # type: ignore[no-untyped-call]
