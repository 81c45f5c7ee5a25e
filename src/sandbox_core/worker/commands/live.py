"""Publishes what a command writes while it runs, to the stream of the workflow that waits for it.

Each stream of the command is read from the helper by offset. A piece carries its offset and is
published under an id of the command's own with the offset behind it as its sequence: the workflow
drops what it already has. A later attempt goes on at the offset that the workflow tells it.
Publishing never fails a command.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress

from agents.sandbox.errors import SandboxError
from temporalio import activity
from temporalio.contrib.workflow_streams import PublishEntry, PublishInput
from temporalio.service import RPCError, RPCStatusCode

from sandbox_core.wire import messages as m
from sandbox_core.wire.limits import LONG_HISTORY_BYTES, LONG_HISTORY_EVENTS
from sandbox_core.wire.live_output import PUBLISH_SIGNAL, TOPIC, publisher_id
from sandbox_core.worker.attempts import uncancellable
from sandbox_core.worker.commands.helper import Helper
from sandbox_core.worker.commands.output import partial_character
from sandbox_core.worker.commands.protocol import Answer, Field, NotAnAnswer
from sandbox_core.worker.secrets import current_secrets

logger = logging.getLogger(__name__)

FIRST_S = 0.25
"""How long a command runs before anything is published, and the shortest time between pieces."""

_SHARE = 0.01
"""The time between pieces, as a share of how long the command has been running."""

_PIECE_BYTES = 64 * 1024
"""The most bytes of output in one signal. JSON and base64 may triple them."""

_CALL_S = 1.0
"""The shortest time between pieces where each read is a call of the backend, in seconds."""

LAST_S = 5.0
"""How long publishing may go on after the command's end."""

_BETWEEN_S = 1.0
_BETWEEN_SHARE = 0.05
"""As `FIRST_S` and `_SHARE`, between two polls of a process: about 90 pieces in ten minutes, 120 in
an hour, since the last one."""

_FAILED_READS = 5
"""After how many in a row a process is not published until its next poll."""

_TEMPORARY = (
    RPCStatusCode.UNAVAILABLE,
    RPCStatusCode.DEADLINE_EXCEEDED,
    RPCStatusCode.RESOURCE_EXHAUSTED,
    RPCStatusCode.ABORTED,
    RPCStatusCode.UNKNOWN,
    RPCStatusCode.INTERNAL,
)

STREAMS: Mapping[str, str] = {"stdout": "out", "stderr": "err"}
"""The streams of a command with two, and what the helper calls them."""

BOTH = "output"
"""The stream of a process whose stdout and stderr are one."""


class Publication:
    """The publication of one command, during one operation.

    Attributes:
        published: By stream, the offset before which all is published, by this or an earlier
            operation. If any of it is, the rest follows when the operation ends.
        whole: Whether all is to be published at the end, because the response does not have it.
        goes_on: Whether the command goes on after the operation.
        unfinished: The publishers that can go on as well: they have published all that was written.
    """

    def __init__(self, published: Mapping[str, int]) -> None:
        self.published = dict(published)
        self.whole = False
        self.goes_on = False
        self.unfinished: list[Publisher] = []


@asynccontextmanager
async def publishing(
    helper: Helper,
    request: m.OutputRequest,
    which: Field,
    streams: Sequence[str],
    *,
    since: int = 0,
    before: int | None = None,
) -> AsyncIterator[Publication]:
    """Publish a command's output while the context lasts, if `request` asks for that.

    Args:
        helper: The helper that runs the command.
        request: The request that waits for it.
        which: The helper's field that identifies the command.
        streams: The names of its streams: `STREAMS`, or `BOTH`.
        since: The offset from which on the request waits for output.
        before: Up to where this worker has published the output between two polls, if it has.
    """
    asked = request.live
    if asked is None or not activity.in_activity() or activity.info().workflow_id is None:
        yield Publication({})
        return
    if before:
        before = max(before, asked.published.get(BOTH, 0))
        asked = asked.model_copy(update={"published": {**asked.published, BOTH: before}})
    publication = Publication(asked.published)
    publishers = [Publisher(helper, publication, asked, which, stream, since) for stream in streams]
    tasks = [asyncio.create_task(each.run()) for each in publishers]
    try:
        yield publication
    except BaseException:
        publication.whole = True  # There is no response.
        raise
    finally:
        await uncancellable(_finished(publishers, tasks))
    publication.unfinished = [each for each in publishers if each.has_caught_up]


async def _finished(publishers: Sequence[Publisher], tasks: Sequence[asyncio.Task[None]]) -> None:
    for each in publishers:
        each.ending.set()
    _, late = await asyncio.wait(tasks, timeout=LAST_S)
    for task in late:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            logger.debug("the output of a command is not published: %r", result)


class Publisher:
    """Publishes one stream of a command."""

    def __init__(
        self,
        helper: Helper,
        publication: Publication,
        asked: m.LiveRequest,
        which: Field,
        stream: str,
        since: int,
    ) -> None:
        self.ending = asyncio.Event()
        self.has_caught_up = False
        """Whether it ended because the operation did, and has published all that was written."""
        self._pauses = (FIRST_S, _SHARE)
        self._helper = helper
        self._publication = publication
        self._asked = asked
        self._which = which
        self._stream = stream
        self._offset = asked.published.get(stream, since)
        """Before it, all is published."""
        self._held = b""
        """What was read from there on."""
        self._secrets = current_secrets()
        self._began = _now()
        info = activity.info()
        self._workflow = activity.client().get_workflow_handle(
            info.workflow_id or "", run_id=info.workflow_run_id
        )

    @property
    def offset(self) -> int:
        """Before it, all is published."""
        return self._offset

    def learn(self, secrets: Iterable[bytes]) -> None:
        """Redact these as well."""
        self._secrets.values.update(secrets)

    async def run(self) -> None:
        """Publish until the end of the stream, or of the operation."""
        await self._pause()
        while self._offset < self._asked.max_bytes:
            last = self.ending.is_set()
            if last and not (self._publication.published or self._publication.whole):
                return  # It is all in the response.
            answer = await self._read()
            if answer is None and not self.ending.is_set():
                await self._pause()
                continue
            if answer is not None and answer.word == "chunk":
                if not self._is_of_stream(answer):
                    return  # The helper is of an earlier version.
                await self._take(answer)
            if answer is not None and answer.number("end"):
                await self._publish_output(len(self._held))
                return
            if last and (answer is None or self._offset_read >= answer.number("total")):
                if not self._publication.goes_on:
                    await self._publish_output(len(self._held))
                self.has_caught_up = answer is not None
                return
            if not self.ending.is_set():
                await self._pause()

    async def go_on(self) -> None:
        """Publish between two polls, where that takes no call of the backend for each read.

        Raises:
            RPCError: The workflow is closed, or Temporal refuses.
        """
        self.ending.clear()
        self._pauses, self._began = (_BETWEEN_S, _BETWEEN_SHARE), _now()
        failed = 0
        while self._offset < self._asked.max_bytes and self._helper.read_s:
            await self._pause()
            if self.ending.is_set():
                return
            answer = await self._read()
            if answer is None or answer.word != "chunk":
                failed += 1
                if failed == _FAILED_READS:
                    return
                continue
            failed, has_ended = 0, bool(answer.number("end"))
            if answer.fields.get("data") or has_ended:
                if not await self._has_room():
                    return
                await self._take(answer)
            if has_ended and self._offset_read >= answer.number("total"):
                await self._publish_output(len(self._held))
                return

    async def finish(self) -> None:
        """Publish the rest of a process that has ended between two polls.

        Raises:
            RPCError: The workflow is closed, or Temporal refuses.
        """
        self.ending.set()
        self._publication.goes_on, self._publication.whole = False, True
        await self.run()

    async def _has_room(self) -> bool:
        """Return whether the history of the workflow, which does not decide itself, has room."""
        info = (await self._workflow.describe()).raw_description.workflow_execution_info
        return (
            info.history_length < LONG_HISTORY_EVENTS
            and info.history_size_bytes < LONG_HISTORY_BYTES
        )

    @property
    def _offset_read(self) -> int:
        return self._offset + len(self._held)

    async def _pause(self) -> None:
        shortest, share = self._pauses
        pause = max(shortest, (_now() - self._began) * share, 0 if self._helper.read_s else _CALL_S)
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self.ending.wait(), pause)

    async def _read(self) -> Answer | None:
        """Return the helper's answer; None if there is none."""
        wait = 0.0 if self.ending.is_set() else self._helper.read_s
        fields: list[Field] = [
            self._which,
            ("from", self._offset_read),
            ("max", _PIECE_BYTES - len(self._held)),
            ("wait", round(wait * 1000)),
            ("until", "data"),
            ("stream", STREAMS.get(self._stream, "out")),
        ]
        asking = asyncio.ensure_future(self._helper.ask("read", fields))
        if wait:
            ending = asyncio.ensure_future(self.ending.wait())
            try:
                await asyncio.wait({asking, ending}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                ending.cancel()
                if not asking.done():
                    asking.cancel()
        try:
            return await asking
        except (asyncio.CancelledError, NotAnAnswer, SandboxError):
            return None  # The operation itself meets these errors too.

    def _is_of_stream(self, answer: Answer) -> bool:
        return (answer.text("stream") == "err") == (self._stream == "stderr")

    async def _take(self, answer: Answer) -> None:
        """Publish what can be."""
        at = answer.number("at")
        if at > self._offset_read:
            await self._publish_output(len(self._held))
            await self._publish([self._dropped(at)], at)
        self._held += answer.fields.get("data", b"")
        undecided = max(self._secrets.held_back(self._held), partial_character(self._held))
        if undecided >= _PIECE_BYTES // 2:
            undecided = 0
        await self._publish_output(len(self._held) - undecided)

    async def _publish_output(self, size: int) -> None:
        size = min(size, self._asked.max_bytes - self._offset)
        if size <= 0:
            return
        end = self._offset + size
        events: list[m.LiveEvent] = [
            m.CommandOutput(
                operation_id=self._asked.operation_id,
                stream=self._stream,
                offset=self._offset,
                next=end,
                data=self._secrets.redact_output(self._held[:size]),
            )
        ]
        if end >= self._asked.max_bytes:
            events.append(self._dropped(None, offset=end))
        await self._publish(events, end)
        self._held = self._held[size:]

    def _dropped(self, end: int | None, offset: int | None = None) -> m.OutputDropped:
        return m.OutputDropped(
            operation_id=self._asked.operation_id,
            stream=self._stream,
            offset=self._offset if offset is None else offset,
            next=end,
        )

    async def _publish(self, events: Sequence[m.LiveEvent], end: int) -> None:
        """Publish events, after which all before `end` is published.

        Raises:
            RPCError: The workflow is closed, or Temporal refuses.
        """
        converter = activity.client().data_converter.payload_converter
        payloads = converter.to_payloads([event.dump() for event in events])
        entries = [base64.b64encode(each.SerializeToString()).decode("ascii") for each in payloads]
        signal = PublishInput(
            items=[PublishEntry(topic=TOPIC, data=entry) for entry in entries],
            publisher_id=publisher_id(self._asked.operation_id, self._stream),
            sequence=end,
        )
        # Where it is unknown what came of it, it is sent again as it was.
        while not await self._sent(signal):
            await self._pause()
        self._offset = self._publication.published[self._stream] = end

    async def _sent(self, signal: PublishInput) -> bool:
        try:
            await self._workflow.signal(PUBLISH_SIGNAL, signal)
        except RPCError as error:
            if error.status not in _TEMPORARY or self.ending.is_set():
                raise
            return False
        return True


def _now() -> float:
    return asyncio.get_running_loop().time()
