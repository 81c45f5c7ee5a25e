"""How much may travel between a workflow and a worker, known to whichever half asks.

The worker's plugin tells its workflows and activities through an interceptor; where there is none,
the limit is what Temporal itself takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass

MAX_PAYLOAD_BYTES = 2 * 1024 * 1024 - 64 * 1024
"""The most that is sent in one payload. The server refuses 2 MiB (``limit.blobSize.error``), the
SDK then retries for ever, and encoding and encryption add some."""

DEFAULT_MAX_FILE_BYTES = 1024**3
"""Default of ``SandboxPlugin(max_file_bytes=...)``: 1 GiB."""

DEFAULT_MAX_OUTPUT_BYTES = 1024**2
"""Default of ``SandboxPlugin(max_output_bytes=...)``: 1 MiB for stdout, and for stderr."""

# stdout and stderr are in one payload, and a character takes up to twice its size in common text.
_OUTPUT_BYTES_INLINE = MAX_PAYLOAD_BYTES // 4


def _never() -> None:
    return None


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Sizes in bytes, and why they are what they are.

    Attributes:
        payload: The most in one request, answer or file.
        output: The most of a command's stdout, and of its stderr; the middle of more is cut out.
        stored: What is at least this large needs the store; None if there is no store.
        reason: Who sets `payload`, the end of a sentence.
        outage: Returns why the store cannot be used, if it has been so for too long.
        requests: Numbers the requests of one workflow run, so that a refusal can be recorded.
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
    """Return the limits of the workflow or activity that asks."""
    return _current.get()


def set_limits(limits: Limits) -> None:
    """Set the limits for the rest of this task and what it starts."""
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
