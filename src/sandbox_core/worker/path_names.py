"""Refuses paths that a backend's API would change."""

from __future__ import annotations

from collections.abc import Iterator

from sandbox_core.errors import InvalidRequest
from sandbox_core.providers.registry import Provider
from sandbox_core.wire.messages import ApplyPatchRequest, Message

_PATHS = ("path", "source", "destination", "left", "right")


def check_paths(provider: Provider, request: Message) -> None:
    """Check that the paths of `request` are valid text, if they go to another host.

    The APIs of hosted backends transfer text. Some replace what is not: two names become one.

    Raises:
        InvalidRequest: A path is not.
    """
    if provider.host_bound:  # Its session knows what it can transfer.
        return
    for path in _paths_of(request):
        if any("\ud800" <= character <= "\udfff" for character in path):
            raise InvalidRequest(
                f"{path!r} is not valid UTF-8, which the API of provider {provider.name!r} cannot "
                f"transfer. Use such files with exec, where the shell can match the name, as in "
                f"`mv caf? renamed`."
            )


def _paths_of(request: Message) -> Iterator[str]:
    changes = request.operations if isinstance(request, ApplyPatchRequest) else ()
    for each in (request, *changes):
        for name in _PATHS:
            path = getattr(each, name, None)
            if isinstance(path, str):
                yield path
