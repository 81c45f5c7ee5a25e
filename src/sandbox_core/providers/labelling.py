"""What the clients of providers with labels have in common."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeVar

_Client = TypeVar("_Client", bound="LabellingClient")


class LabellingClient:
    """A base of a client that can be had with labels.

    For example::

        class AcmeClient(LabellingClient, BaseSandboxClient[AcmeOptions]):
            async def create(self, *, snapshot=None, manifest=None, options):
                made = await api.create(labels=self._labels)

    A session's state must not hold them: another workflow may resume it.
    """

    _labels: Mapping[str, str] = MappingProxyType({})
    """What every sandbox has to have that this client makes, from the moment it exists."""

    def labelled(self: _Client, labels: Mapping[str, str]) -> _Client:
        """Return a client of the same connections that labels what it makes; this one stays."""
        made = copy.copy(self)
        made._labels = {**self._labels, **labels}
        return made
