"""Faults at the HTTP level that a loopback server answers with."""

from __future__ import annotations

import abc
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_RESET = web.RequestKey("reset", bool)


@dataclass(kw_only=True)
class Fault:
    """An answer other than the server's own, to requests of one kind."""

    method: str
    path: str
    """Both are regular expressions for the whole."""

    status: int | None
    """The status of the answer, or None if the connection is reset after the request was done."""

    headers: Mapping[str, str] = field(default_factory=dict)
    body: object = None
    times: int = 1

    def is_of(self, request: web.Request) -> bool:
        return (
            self.times > 0
            and re.fullmatch(self.method, request.method) is not None
            and re.fullmatch(self.path, request.path) is not None
        )


class FaultyServer(abc.ABC):
    """A server that answers as it is told to, once it has added the faults to its application."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.faults: list[Fault] = []
        self.fault_headers: Mapping[str, str] = {}

    @property
    @abc.abstractmethod
    def machines(self) -> Mapping[str, object]:
        """The sandboxes that exist, by id."""

    def refuse(self, request: web.Request) -> web.StreamResponse | None:
        """Return the answer to a request without the right credentials."""
        return None

    def fail(
        self,
        request: str,
        status: int | None,
        *,
        headers: Mapping[str, str] | None = None,
        body: object = None,
        times: int = 1,
    ) -> Fault:
        """Answer the next requests of a kind, `GET /sandboxes/.*`, otherwise; None resets them."""
        method, path = request.split()
        made = Fault(
            method=method,
            path=path,
            status=status,
            headers=self.fault_headers if headers is None else headers,
            body={"code": status, "message": "a fault"} if body is None else body,
            times=times,
        )
        self.faults.append(made)
        return made

    def add_faults(self, app: web.Application) -> None:
        """Have an application answer with the faults."""
        app.middlewares.append(self._with_faults)
        app.on_response_prepare.append(_reset)

    @web.middleware
    async def _with_faults(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.path}")
        if refusal := self.refuse(request):
            return refusal
        fault = next((fault for fault in self.faults if fault.is_of(request)), None)
        if fault is None:
            return await handler(request)
        fault.times -= 1
        if fault.status is not None:
            return web.json_response(fault.body, status=fault.status, headers=fault.headers)
        request[_RESET] = True
        return await handler(request)


async def _reset(request: web.Request, _: web.StreamResponse) -> None:
    """Reset the connection when the answer begins: the request has been done by then."""
    if _RESET in request:
        assert request.transport is not None
        request.transport.abort()
