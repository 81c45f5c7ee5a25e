"""Asks the helper in a sandbox through a relay: a process of the helper's that stays.

A backend's `exec` costs tens of milliseconds. A relay is started once, and carries requests and
answers over its stdin and stdout, many at once. ``helper/PROTOCOL.md`` describes it. Whatever goes
wrong with a relay, a request can be made again through `exec`: its key makes it the same.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass, field

from sandbox_core.providers import ProcessStream
from sandbox_core.worker.commands.install import Installed
from sandbox_core.worker.commands.protocol import (
    MAX_ANSWER_BYTES,
    Answer,
    Field,
    NotAnAnswer,
    frame,
    parse_message,
    parse_text,
    pieces,
)

logger = logging.getLogger(__name__)

VERB = "relay"
"""The helper's verb; an older helper does not know it."""

MOST = 128
"""How many requests are under way at most; a relay takes 256."""

FRESH_S = 0.1
"""How long ago a relay must have been heard to be sent a request without asking whether it lives.

A request that reaches a paused sandbox may be carried out when it goes on.
"""

PASSED_ON_S = 0.05
"""After what time a relay is asked whether it has passed an unanswered request on."""

PATIENCE_S = 3.0
"""How long a relay may take to say that it lives."""

ANSWER_S = 60.0
"""How much longer than the request's own time an answer may take, as the helper's client waits."""

IDLE_S = 30.0
"""How long a relay stays without a request."""

RETIRED_S = 90.0
"""How long a relay that gets no more requests may take to answer those that it has."""

_HELLO_BYTES = 64 * 1024
_PIECE_BYTES = 1024 * 1024
"""More than a relay sends of an answer at once."""


class Unheard(Exception):
    """A relay does not answer, and got no request."""


class Unsupported(Exception):
    """There is no relay in this sandbox, and there will be none."""


@dataclass
class _Asked:
    future: asyncio.Future[bytes | None]
    """The whole answer; empty if it was cut, or there was nothing to ask; None at the end."""

    is_request: bool
    answer: bytearray = field(default_factory=bytearray)


class Relay:
    """One running relay."""

    def __init__(self, stream: ProcessStream, context: str) -> None:
        self.context = context
        """The id of what commands inherit, by which requests refer to it."""

        self.usable = True
        """Whether it takes requests."""

        self.ended = False
        """Whether it has ended."""

        self._loop = asyncio.get_running_loop()
        self._stream = stream
        self._asked: dict[int, _Asked] = {}
        self._last = 0
        self._answered = 0
        """The last of the requests that were answered: those before it have been passed on."""

        self._heard = self._used = self._loop.time()
        self._unheard: asyncio.Future[bytes | None] | None = None
        self._sending = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._reading = asyncio.create_task(self._read())
        self._timer = self._loop.call_later(IDLE_S, self._end_if_idle)

    @classmethod
    async def start(
        cls, open_stream: Callable[[tuple[str, ...]], Awaitable[ProcessStream]], where: Installed
    ) -> Relay:
        """Start a relay.

        Raises:
            Unsupported: The helper there is too old.
            NotAnAnswer: It did not start.
        """
        context, mark = secrets.token_hex(8), secrets.token_hex(8)
        own: list[Field] = [("dir", where.state), ("mark", mark), ("id", context)]
        stream = await open_stream((where.program, VERB, *pieces(own)))
        try:
            said = b""
            while f"{mark} end\n".encode() not in said:
                piece = await stream.receive()
                said += piece
                if not piece or len(said) > _HELLO_BYTES:
                    raise NotAnAnswer("the relay did not start")
            answer = parse_text(said, mark)
            if answer.word == "error":
                raise Unsupported(answer.text("text"))
            if answer.word != "done":
                raise NotAnAnswer(answer.text("text"))
        except BaseException:
            await stream.aclose()
            raise
        return cls(stream, context)

    @property
    def is_full(self) -> bool:
        """Whether it has as many requests as it may; their numbers have 32 bits."""
        return len(self._asked) >= MOST or self._last >= 2**32 - MOST

    async def ask(self, verb: str, fields: Iterable[Field], wait_s: float) -> Answer:
        """Make one request.

        Raises:
            Unheard: Nothing was asked.
            NotAnAnswer: It has not answered; the request may have been carried out.
        """
        if self._loop.time() - self._heard > FRESH_S and not await self._is_heard():
            if not any(asked.is_request for asked in self._asked.values()):
                await self.aclose()
            raise Unheard
        if not self.usable:
            raise Unheard
        self._used = self._loop.time()
        asked = self._send(frame(verb, fields), is_request=True)
        number = self._last
        await asyncio.wait({asked}, timeout=PASSED_ON_S)
        if not (asked.done() or number < self._answered or await self._is_heard() or asked.done()):
            await self.retire()  # It must not pass the request on later, when nobody waits for it.
            raise NotAnAnswer("the relay does not answer")
        if not asked.done():
            await asyncio.wait({asked}, timeout=wait_s + ANSWER_S)
        answer = asked.result() if asked.done() else None
        if not answer:
            raise NotAnAnswer("the relay gave no answer")
        return parse_message(answer)

    async def _is_heard(self) -> bool:
        """Return whether it answers now, and so has read all that it was sent before."""
        if self._unheard is not None and not self._unheard.done():
            return False
        pong = self._send(bytes(4), is_request=False)
        await asyncio.wait({pong}, timeout=PATIENCE_S)
        if not pong.done():
            self._unheard = pong
            return False
        return pong.result() is not None

    def _send(self, request: bytes, *, is_request: bool) -> asyncio.Future[bytes | None]:
        asked = _Asked(self._loop.create_future(), is_request)
        if self.usable:
            self._last += 1
            self._asked[self._last] = asked
            # A task, as a cancelled caller must not cut the request.
            self._in_background(self._write(self._last.to_bytes(4, "big") + request))
        else:
            asked.future.set_result(None)
        return asked.future

    def _in_background(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _write(self, data: bytes) -> None:
        async with self._sending:
            try:
                await self._stream.send(data)
            except Exception as error:  # noqa: BLE001 - a provider's; the request is made again
                logger.debug("a relay takes no more requests: %r", error)
                self._end()

    async def _read(self) -> None:
        came = bytearray()
        try:
            while piece := await self._stream.receive():
                self._heard = self._loop.time()
                came += piece
                self._take(came)
                if not self.usable and not self._asked:
                    break
        except Exception as error:  # noqa: BLE001 - a provider's; the requests are made again
            logger.debug("a relay has ended: %r", error)
        finally:
            self._end()

    def _take(self, came: bytearray) -> None:
        """Take the pieces of answers that are there as a whole."""
        while len(came) >= 8:
            number, end = int.from_bytes(came[:4], "big"), 8 + int.from_bytes(came[4:8], "big")
            asked = self._asked.get(number)
            if asked is None or end > _PIECE_BYTES:
                raise NotAnAnswer("what comes is not of a relay")
            if len(came) < end:
                return
            asked.answer += memoryview(came)[8:end]
            del came[:end]
            size = int.from_bytes(asked.answer[:4], "big")
            if size > MAX_ANSWER_BYTES:
                raise NotAnAnswer(f"an answer of {size:,} bytes")
            self._answered = max(self._answered, number)
            whole = len(asked.answer) == 4 + size and size > 0
            if whole or end == 8:
                del self._asked[number]
                if not asked.future.done():
                    answer = bytes(memoryview(asked.answer)[4:]) if whole else b""
                    asked.future.set_result(answer)

    def _end_if_idle(self) -> None:
        idle = self._loop.time() - self._used
        busy = any(asked.is_request for asked in self._asked.values())
        if self.usable and (busy or idle < IDLE_S):
            left = IDLE_S if busy else IDLE_S - idle
            self._timer = self._loop.call_later(left, self._end_if_idle)
        else:
            self._end()

    async def retire(self) -> None:
        """Take no more requests; what was passed on is answered, the rest never carried out."""
        if not self.usable:
            return
        self.usable = False
        self._timer.cancel()
        self._timer = self._loop.call_later(RETIRED_S, self._end)
        try:
            await self._stream.send_eof()
        except Exception as error:  # noqa: BLE001 - a provider's
            logger.debug("a relay cannot be retired: %r", error)
            self._end()

    def _end(self) -> None:
        """End it, and every wait for an answer."""
        if self.ended:
            return
        self.ended, self.usable = True, False
        self._timer.cancel()
        for asked in self._asked.values():
            if not asked.future.done():
                asked.future.set_result(None)
        self._asked.clear()
        for task in {self._reading, *self._tasks} - {asyncio.current_task()}:
            task.cancel()
        self._in_background(self._close())

    async def _close(self) -> None:
        try:
            await self._stream.aclose()
        except Exception as error:  # noqa: BLE001 - a provider's
            logger.debug("a relay cannot be closed: %r", error)

    async def aclose(self) -> None:
        """End it, and wait until it is closed."""
        self._end()
        await asyncio.gather(self._reading, *self._tasks, return_exceptions=True)
