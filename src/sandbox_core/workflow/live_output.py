"""Publishes a workflow's commands while they run, to the workflow's stream."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from temporalio import workflow
from temporalio.contrib.workflow_streams import WorkflowStream

from sandbox_core.errors import InvalidRequest
from sandbox_core.wire import messages as m
from sandbox_core.wire.limits import LONG_HISTORY_BYTES, LONG_HISTORY_EVENTS
from sandbox_core.wire.live_output import PUBLISH_SIGNAL, TOPIC, published_stream
from sandbox_core.wire.summaries import summarize
from sandbox_core.workflow.convert import expect
from sandbox_core.workflow.per_workflow import PerWorkflow

_ResponseT = TypeVar("_ResponseT", bound=m.OutputResponse)
_RequestT = TypeVar("_RequestT", bound=m.SessionRequest)

DEFAULT_MAX_BYTES = 256 * 1024

# A command may be silent for as long as it likes.
_EVER = timedelta(days=3650)


@dataclass(frozen=True, kw_only=True)
class LiveOutput:
    """Asks for the publication of what commands write while they run; see `sandbox_core.live`.

    The events go to the workflow's `WorkflowStream`, which is made if there is none.

    Args:
        max_bytes: How much of each stream of a command is published, 1 or more. All of it enters
            the workflow's history, whose limit is 50 MB.

    Raises:
        InvalidRequest: `max_bytes` is something else.
    """

    max_bytes: int = DEFAULT_MAX_BYTES

    def __post_init__(self) -> None:
        # Temporal would retry the workflow task forever, if a request could not be made of it.
        given = self.max_bytes
        if not isinstance(given, int) or isinstance(given, bool) or given < 1:
            raise InvalidRequest(
                f"max_bytes of LiveOutput must be a number of bytes, 1 or more, not {given!r}."
            )


def checked(live_output: LiveOutput | None) -> LiveOutput | None:
    """Return `live_output`; the workflow's stream exists then, so that others can subscribe to it.

    Raises:
        InvalidRequest: It is something else; see `refuse`.
    """
    if live_output is not None:
        expect(live_output, (LiveOutput,), "live_output is a LiveOutput")
        if workflow.in_workflow():
            _feeds.get()
    return live_output


class _Feed:
    """The stream of the calling workflow."""

    def __init__(self) -> None:
        handler = workflow.get_signal_handler(PUBLISH_SIGNAL)
        own = getattr(handler, "__self__", None)
        # Temporal allows one in a workflow, made in a method of this name.
        stream = own if isinstance(own, WorkflowStream) else WorkflowStream()
        self._topic = stream.topic(TOPIC)
        self._stream = stream

    def publish(self, event: m.LiveEvent) -> None:
        self._topic.publish(event.dump())

    def published(self, operation_id: str) -> dict[str, int]:
        """Return, by stream, up to which offset workers have published a command's output."""
        offsets = {}
        for publisher, state in self._stream.get_state(publisher_ttl=_EVER).publishers.items():
            of = published_stream(publisher)
            if of is not None and of[0] == operation_id:
                offsets[of[1]] = state.sequence
        return offsets


_feeds = PerWorkflow(_Feed)


class LiveCommand:
    """The publication of one command: its start, what workers do not publish, and its end."""

    def __init__(self, live_output: LiveOutput, operation_id: str) -> None:
        self._max_bytes = live_output.max_bytes
        self._operation_id = operation_id
        self._feed = _feeds.get()
        # Of a process: what workers have published of it; whether they may have published more
        # since; and of one of the backend's own, which has no offsets, what it has written.
        self._by_workers: dict[str, int] = {}
        self._goes_on = False
        self._written = 0

    async def run(
        self,
        request: m.CommandRequest,
        provider: str,
        perform: Callable[[m.LiveRequest | None], Awaitable[_ResponseT]],
    ) -> _ResponseT:
        """Publish the command of `request`, which `perform` runs."""
        self._feed.publish(
            m.CommandStarted(
                operation_id=self._operation_id,
                command=summarize(request.summary()),
                provider=provider,
                session_id=request.session.session_id,
            )
        )
        try:
            response = await perform(self.request())
        except asyncio.CancelledError:
            self.ended(error="cancelled")
            raise
        except Exception as error:
            self.ended(error=f"{type(error).__name__}: {error}")
            raise
        if isinstance(response, m.ExecResponse):
            if not response.published:
                self._output("stdout", response.stdout)
                self._output("stderr", response.stderr)
            self.ended(exit_code=response.exit_code)
        return response

    def polled(self, response: m.PtyResponse, since: int) -> None:
        """Publish the new output of the process, which begins at offset `since`."""
        if response.offset is None:
            since, self._written = self._written, self._written + len(response.output)
        if not response.published:
            self._rest(response, since)
        self._by_workers = response.published
        self._goes_on = response.process_id is not None
        if response.process_id is None:
            self.ended(exit_code=response.exit_code)

    def _rest(self, response: m.PtyResponse, since: int) -> None:
        """Publish the output that follows what was published since the last poll."""
        data, end = response.output, response.offset
        at = self._feed.published(self._operation_id).get("output", 0) if self._goes_on else 0
        if end is None or at <= since:
            self._output("output", data, since, end)
        elif at < end and len(data) == end - since:
            self._output("output", data[at - since :], at, end)
        elif at < end:  # What was redacted or truncated cannot be split.
            self._feed.publish(
                m.OutputDropped(
                    operation_id=self._operation_id, stream="output", offset=at, next=end
                )
            )

    def ended(self, *, exit_code: int | None = None, error: str | None = None) -> None:
        """Publish the end of the command."""
        self._feed.publish(
            m.CommandEnded(operation_id=self._operation_id, exit_code=exit_code, error=error)
        )

    def request(self) -> m.LiveRequest | None:
        """Return what asks a worker to publish the output; None if the history is long."""
        info = workflow.info()
        if (
            info.get_current_history_length() >= LONG_HISTORY_EVENTS
            or info.get_current_history_size() >= LONG_HISTORY_BYTES
        ):
            return None
        return m.LiveRequest(
            operation_id=self._operation_id, max_bytes=self._max_bytes, published=self._by_workers
        )

    def _output(self, stream: str, data: bytes, offset: int = 0, end: int | None = None) -> None:
        if data:
            self._feed.publish(
                m.CommandOutput(
                    operation_id=self._operation_id,
                    stream=stream,
                    offset=offset,
                    next=offset + len(data) if end is None else end,
                    data=data,
                )
            )


def repeated(request: _RequestT) -> _RequestT:
    """Return a request to be made again, by a worker that goes on where the last one died."""
    if not isinstance(request, m.OutputRequest) or request.live is None:
        return request
    published = _feeds.get().published(request.live.operation_id)
    live = request.live.model_copy(update={"published": published})
    return request.model_copy(update={"live": live})
