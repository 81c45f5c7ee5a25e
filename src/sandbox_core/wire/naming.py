"""The activity-name scheme and the rules for provider names.

Both are recorded in workflow histories: they never change.
"""

from __future__ import annotations

import re

from temporalio.exceptions import ApplicationError

from sandbox_core.errors import InvalidProviderName

NOT_REGISTERED = "NotFoundError"
"""The error type of Temporal's SDK for an unknown activity type, which Temporal retries forever.

A vendor's exception class may have the same name; see `is_not_registered`.
"""

_PROVIDER_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_INFIX = "-sandbox_"


def check_provider_name(name: str) -> str:
    """Return `name` unchanged if it is a valid provider name.

    Raises:
        InvalidProviderName: It is not. Names are part of activity types in histories, so they are
            rejected, never normalised.
    """
    if not isinstance(name, str) or not _PROVIDER_NAME.fullmatch(name):
        raise InvalidProviderName(
            f"{name!r} is not a provider name: use lower-case letters and digits in words joined "
            f"by single hyphens, starting with a letter, for example 'daytona' or 'unix-local'."
        )
    return name


def activity_name(provider: str, operation: str) -> str:
    """Return the activity type of `operation` at `provider`: ``daytona-sandbox_exec``."""
    return f"{provider}{_INFIX}{operation}"


def split_activity_name(name: str) -> tuple[str, str] | None:
    """Return the provider and the operation of an activity type, or None if it is not ours."""
    provider, infix, operation = name.partition(_INFIX)
    if not infix or not operation or not _PROVIDER_NAME.fullmatch(provider):
        return None
    return provider, operation


def is_not_registered(error: ApplicationError) -> bool:
    """Return whether a worker does not know the activity type."""
    return (
        error.type == NOT_REGISTERED
        and not error.details
        and "is not registered on this worker" in error.message
    )


def worker_queue(task_queue: str, host: str, index: int) -> str:
    """Return the name of one worker's own queue: ``agents@host-7#0``."""
    return f"{task_queue}@{host}#{index}"


def split_worker_queue(queue: str) -> tuple[str, str, int]:
    """Return the task queue, host and index that a worker's own queue is named after."""
    task_queue, _, rest = queue.rpartition("@")
    host, _, index = rest.rpartition("#")
    return task_queue, host, int(index)


def ping_queue(queue: str) -> str:
    """Return the queue on which a worker answers pings: ``agents@host-7#0/ping``.

    When its own queue is full, a busy worker no longer polls it.
    """
    return f"{queue}/ping"


def host_of(queue: str) -> str:
    """Return the host that a worker's own queue is named after."""
    return split_worker_queue(queue)[1]


def offered_providers(activity_names: str) -> list[str]:
    """Return the sorted provider names in a text that lists activity types."""
    found = (split_activity_name(word.strip(",.")) for word in activity_names.split())
    return sorted({pair[0] for pair in found if pair is not None})
