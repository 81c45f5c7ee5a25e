"""Publishes a workflow's commands while they run, to the workflow's stream."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from temporalio import workflow
from temporalio.contrib.workflow_streams import WorkflowStream

from sandbox_core.errors import InvalidRequest
from sandbox_core.wire import messages as m
from sandbox_core.wire.live_output import PUBLISH_SIGNAL, TOPIC, published_stream
from sandbox_core.wire.summaries import summarize
from sandbox_core.workflow.per_workflow import PerWorkflow

_ResponseT = TypeVar("_ResponseT", bound=m.WatchedResponse)
_RequestT = TypeVar("_RequestT", bound=m.SessionRequest)

DEFAULT_MAX_BYTES = 256 * 1024

# Temporal begins to warn at about these, and ends a workflow at five times as much.
_MOST_EVENTS = 10_000
_MOST_BYTES = 10 * 1024 * 1024


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
        for publisher, state in self._stream.get_state().publishers.items():
            of = published_stream(publisher)
            if of is not None and of[0] == operation_id:
                offsets[of[1]] = state.sequence
        return offsets


_feeds = PerWorkflow(_Feed)


def ensure_stream() -> None:
    """Make the stream of this workflow, unless it exists, so that others can subscribe to it."""
    _feeds.get()


class CommandPublisher:
    """Publishes the commands of one session, or nothing without `settings`."""

    def __init__(self, settings: LiveOutput | None, provider: str, session_id: str) -> None:
        self._settings = settings
        self._provider = provider
        self._session_id = session_id
        self._feed = None if settings is None else _feeds.get()
        # Of processes: what workers have published; and of the backend's own, which have no
        # offsets, what they have written.
        self._by_workers: dict[str, dict[str, int]] = {}
        self._written: dict[str, int] = {}

    async def run(
        self,
        request: m.CommandRequest,
        perform: Callable[[m.LiveRequest | None], Awaitable[_ResponseT]],
    ) -> _ResponseT:
        """Publish the command of `request`, which `perform` runs."""
        if self._feed is None:
            return await perform(None)
        operation_id = request.operation_id
        self._publish(
            m.LiveEvent(
                operation_id=operation_id,
                kind="started",
                command=summarize(request.summary()),
                provider=self._provider,
                session_id=self._session_id,
            )
        )
        try:
            response = await perform(self.live_request(operation_id))
        except asyncio.CancelledError:
            self.ended(operation_id, error="cancelled")
            raise
        except Exception as error:
            self.ended(operation_id, error=f"{type(error).__name__}: {error}")
            raise
        if isinstance(response, m.ExecResponse):
            if not response.published:
                self._output(operation_id, "stdout", response.stdout)
                self._output(operation_id, "stderr", response.stderr)
            self.ended(operation_id, exit_code=response.exit_code)
        return response

    def polled(self, operation_id: str, response: m.PtyResponse, since: int) -> None:
        """Publish the new output of a process, which begins at offset `since`."""
        if self._feed is None:
            return
        if response.offset is None:
            since = self._written.get(operation_id, 0)
            self._written[operation_id] = since + len(response.output)
        if not response.published:
            self._output(operation_id, "output", response.output, since, response.offset)
        self._by_workers[operation_id] = response.published
        if response.process_id is None:
            del self._by_workers[operation_id]
            self.ended(operation_id, exit_code=response.exit_code)

    def ended(
        self, operation_id: str, *, exit_code: int | None = None, error: str | None = None
    ) -> None:
        """Publish the end of a command."""
        self._publish(
            m.LiveEvent(operation_id=operation_id, kind="ended", exit_code=exit_code, error=error)
        )

    def terminated(self, operation_ids: Iterable[str]) -> None:
        """Publish the end of processes that were terminated."""
        for operation_id in operation_ids:
            self.ended(operation_id, error="terminated")

    def repeated(self, request: _RequestT) -> _RequestT:
        """Return a request to be made again, by a worker that goes on where the last one died."""
        if self._feed is None or not isinstance(request, m.WatchedRequest) or request.live is None:
            return request
        published = self._feed.published(request.live.operation_id)
        live = request.live.model_copy(update={"published": published})
        return request.model_copy(update={"live": live})

    def live_request(self, operation_id: str) -> m.LiveRequest | None:
        """Return what asks a worker to publish a command's output.

        None if nothing is published, or if the history is long.
        """
        if self._settings is None:
            return None
        info = workflow.info()
        if (
            info.get_current_history_length() >= _MOST_EVENTS
            or info.get_current_history_size() >= _MOST_BYTES
        ):
            return None
        return m.LiveRequest(
            operation_id=operation_id,
            max_bytes=self._settings.max_bytes,
            published=self._by_workers.get(operation_id, {}),
        )

    def _publish(self, event: m.LiveEvent) -> None:
        if self._feed is not None:
            self._feed.publish(event)

    def _output(
        self, operation_id: str, stream: str, data: bytes, offset: int = 0, end: int | None = None
    ) -> None:
        if data:
            self._publish(
                m.LiveEvent(
                    operation_id=operation_id,
                    kind="output",
                    stream=stream,
                    offset=offset,
                    next=offset + len(data) if end is None else end,
                    data=data,
                )
            )
