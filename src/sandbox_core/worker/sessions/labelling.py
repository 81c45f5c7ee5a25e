"""Verifies a provider's labels before anything relies on them.

If a `find` returned whatever labels it was asked for, other people's sandboxes would be deleted. If
it found nothing, the sandbox of a killed create would leak unnoticed.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from sandbox_core.providers import LabelledSandbox, SupportsLabels
from sandbox_core.worker.sessions import labels as names
from sandbox_core.worker.sessions.labels import has_all
from sandbox_core.worker.sessions.pool import Client

logger = logging.getLogger(__name__)

_TRIES = 4
_AGAIN_S = 1.0
"""How often, and at what interval, a new sandbox is looked for: a backend's list may lag."""


class NamedLabels(SupportsLabels[Client], Protocol):
    """A provider with labels."""

    name: str


async def find_labelled(
    provider: SupportsLabels[Client], client: Client, wanted: Mapping[str, str]
) -> list[LabelledSandbox]:
    """Return the sandboxes that have all the labels, even if the backend returns others too.

    A creation time without a time zone counts as unknown.

    Raises:
        Exception: The backend did not answer.
    """
    found = await provider.find(client, wanted)
    return [_with_known_time(provider, each) for each in found if has_all(each.labels, wanted)]


def _with_known_time(provider: SupportsLabels[Client], sandbox: LabelledSandbox) -> LabelledSandbox:
    if sandbox.created is None or sandbox.created.tzinfo is not None:
        return sandbox
    logger.warning(
        "%s reports the creation time of sandbox %s without a time zone: it counts as unknown",
        type(provider).__qualname__,
        sandbox.sandbox_id,
    )
    return replace(sandbox, created=None)


async def is_honest(provider: SupportsLabels[Client], client: Client) -> bool:
    """Return whether `find` returns nothing for labels that no sandbox can have.

    Raises:
        Exception: The backend did not answer.
    """
    nowhere = {names.NAMESPACE_ID: str(uuid.uuid4()), names.KEY: uuid.uuid4().hex}
    return not await find_labelled(provider, client, nowhere)


@dataclass(kw_only=True)
class Trust:
    """What one worker has learned about the labels of one provider."""

    honest: bool = False
    kept: bool = False
    """Whether a sandbox was found by the labels with which it was created."""

    lost: bool = False
    """Whether the labels proved unreliable, and are treated as absent."""

    async def check(self, provider: NamedLabels, client: Client) -> bool:
        """Return whether the provider's `find` can be relied on; it is tested once.

        Raises:
            Exception: The backend did not answer.
        """
        if not (self.honest or self.lost):
            self.honest = await is_honest(provider, client)
            if not self.honest:
                self._lose(
                    provider, "its find returns sandboxes with labels that no sandbox can have"
                )
        return self.honest

    async def verify(
        self, provider: NamedLabels, client: Client, labels: Mapping[str, str], sandbox_id: str
    ) -> None:
        """Check that a new sandbox is found by its `labels`, once on this worker."""
        if self.kept or self.lost:
            return
        for tried in range(_TRIES):
            await asyncio.sleep(_AGAIN_S if tried else 0)
            try:
                found = await find_labelled(provider, client, labels)
            except Exception as error:  # noqa: BLE001 - a plugin's; the next create verifies
                logger.info("the labels of a sandbox could not be verified yet: %s", error)
                return
            if sandbox_id in {sandbox.sandbox_id for sandbox in found}:
                self.kept = True
                return
        self._lose(provider, f"its find does not return sandbox {sandbox_id}, made with labels")

    def _lose(self, provider: NamedLabels, why: str) -> None:
        if not self.lost:
            logger.warning(
                "the labels of provider %r are ignored: %s. The sandbox of a killed create will "
                "not be found, neither by a retry nor by `sandbox-core reap`",
                provider.name,
                why,
            )
        self.lost, self.honest = True, False
