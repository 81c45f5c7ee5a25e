"""Size limits between workflows and workers.

The worker's plugin sets them for workflows and activities through an interceptor; without it,
Temporal's own limits apply.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass

MAX_PAYLOAD_BYTES = 2 * 1024 * 1024 - 64 * 1024
"""The maximum size of a payload. The server refuses 2 MiB (``limit.blobSize.error``), which the SDK
retries forever; encoding and encryption need some room."""

THRESHOLD_BYTES = 128 * 1024
"""From this size on, activities' arguments and results are stored, if a store was configured: a
session has many of them, and a history is limited."""

INLINE_BYTES = MAX_PAYLOAD_BYTES // 2
"""From this size on, all other payloads are stored, and without a configured store all payloads.
Half of Temporal's limit, as a request may have two. Clients without the store can read the rest."""

DEFAULT_MAX_FILE_BYTES = 1024**3
"""Default of ``SandboxPlugin(max_file_bytes=...)``: 1 GiB."""

DEFAULT_MAX_OUTPUT_BYTES = 1024**2
"""Default of ``SandboxPlugin(max_output_bytes=...)``: 1 MiB for stdout, and for stderr."""

LONG_HISTORY_EVENTS = 10_000
LONG_HISTORY_BYTES = 10 * 1024 * 1024
"""The sizes of a history at which nothing more is added that can be left out. Temporal begins to
warn at about these, and ends a workflow at five times as much."""

# stdout and stderr share one payload, and JSON escapes can double the size of ordinary text.
_OUTPUT_BYTES_INLINE = MAX_PAYLOAD_BYTES // 4


def _never() -> None:
    return None


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits in bytes.

    Attributes:
        payload: The maximum size of a request, response or file.
        output: The maximum size of a command's stdout, and of its stderr.
        stored: The size from which payloads need the store; None without a store.
        reason: What sets `payload`, the end of a sentence.
        outage: Returns why the store is unusable, once it has been so for too long.
        requests: Numbers the requests of a workflow run, so that refusals can be recorded.
    """

    payload: int = MAX_PAYLOAD_BYTES
    output: int = _OUTPUT_BYTES_INLINE
    stored: int | None = None
    reason: str = "that Temporal takes in one payload"
    outage: Callable[[], str | None] = _never
    requests: Iterator[int] | None = None


_INLINE = Limits()
_current: ContextVar[Limits] = ContextVar("sandbox_core_limits", default=_INLINE)


def current_limits() -> Limits:
    """Return the limits of the current workflow or activity."""
    return _current.get()


def set_limits(limits: Limits) -> None:
    """Set the limits for the current task and the tasks it starts."""
    _current.set(limits)


def limits_with(
    *,
    max_file_bytes: int,
    max_output_bytes: int,
    stored: int | None,
    outage: Callable[[], str | None] = _never,
) -> Limits:
    """Return the limits of a worker; `stored` is the size from which the store is used, if any."""
    by_plugin = "that SandboxPlugin(max_file_bytes=...) allows"
    if stored is not None:
        return Limits(
            payload=max_file_bytes,
            output=max_output_bytes,
            stored=stored,
            reason=by_plugin,
            outage=outage,
        )
    return Limits(
        payload=min(max_file_bytes, MAX_PAYLOAD_BYTES),
        output=min(max_output_bytes, _OUTPUT_BYTES_INLINE),
        reason=by_plugin if max_file_bytes < MAX_PAYLOAD_BYTES else Limits.reason,
    )
