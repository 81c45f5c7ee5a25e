"""A base class for the clients of providers with labels."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeVar

_Client = TypeVar("_Client", bound="LabellingClient")


class LabellingClient:
    """A base for clients that put labels on their sandboxes.

    For example::

        class AcmeClient(LabellingClient, BaseSandboxClient[AcmeOptions]):
            async def create(self, *, snapshot=None, manifest=None, options):
                made = await api.create(labels=self._labels)

    A session's state must not contain the labels: another workflow may resume it.
    """

    _labels: Mapping[str, str] = MappingProxyType({})
    """The labels that every sandbox of this client must have from its creation on."""

    def labelled(self: _Client, labels: Mapping[str, str]) -> _Client:
        """Return a copy with the same connections that puts these labels on its sandboxes."""
        made = copy.copy(self)
        made._labels = {**self._labels, **labels}
        return made
