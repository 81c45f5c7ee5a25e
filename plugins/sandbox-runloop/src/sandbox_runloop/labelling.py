"""Runloop's SDK, with labels in the metadata of every devbox that it creates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runloop_api_client.sdk import AsyncDevbox, AsyncRunloopSDK
    from runloop_api_client.sdk.async_ import AsyncDevboxOps


class LabellingSDK:
    """Replaces an `AsyncRunloopSDK`, whose connections it shares."""

    def __init__(self, sdk: AsyncRunloopSDK | LabellingSDK, labels: Mapping[str, str]) -> None:
        self._sdk = sdk
        self.devbox: _Devboxes = _Devboxes(sdk.devbox, labels)

    def __getattr__(self, name: str) -> object:
        return getattr(self._sdk, name)


class _Devboxes:
    def __init__(self, devboxes: AsyncDevboxOps | _Devboxes, labels: Mapping[str, str]) -> None:
        self._devboxes, self._labels = devboxes, dict(labels)

    def __getattr__(self, name: str) -> object:
        return getattr(self._devboxes, name)

    async def create(
        self, *, metadata: dict[str, str] | None = None, **rest: object
    ) -> AsyncDevbox:
        labelled = {**(metadata or {}), **self._labels}
        return await self._devboxes.create(metadata=labelled, **rest)  # type: ignore[arg-type]  # passed on as it came

    async def create_from_snapshot(
        self, snapshot_id: str, *, metadata: dict[str, str] | None = None, **rest: object
    ) -> AsyncDevbox:
        labelled = {**(metadata or {}), **self._labels}
        return await self._devboxes.create_from_snapshot(
            snapshot_id,
            metadata=labelled,
            **rest,  # type: ignore[arg-type]  # passed on as it came
        )
