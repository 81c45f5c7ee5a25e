"""Shared by the loopback servers of vendors: a thread, a port, and faults at the HTTP level."""

from __future__ import annotations

import abc
import asyncio
import re
import threading
from collections.abc import Awaitable, Callable, Generator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pytest
from aiohttp import web

from loopback.machine import Machine, unavailable
from loopback.tls import issue, start_proxy

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_Server = TypeVar("_Server", bound="LoopbackServer")

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


class LoopbackServer(abc.ABC):
    """A server in a thread and an event loop of its own while its context is entered."""

    def __init__(self, root: Path, *, host: str | None = None) -> None:
        """Make a server.

        Args:
            root: Where the machines have their files.
            host: The host whose place it takes, if the vendor's SDK cannot be pointed elsewhere.
        """
        if reason := unavailable():
            pytest.skip(reason)
        self.root = root.resolve()
        self.url = ""
        self.proxied: dict[str, str] = {}
        """The environment that leads an SDK here that asks for `host`."""

        self._host = host
        self.requests: list[str] = []
        self.faults: list[Fault] = []
        self.fault_headers: Mapping[str, str] = {}
        self.answering = threading.Event()
        """Cleared, it holds back the answers to creates that have made a sandbox."""

        self.answering.set()
        self._thread: threading.Thread | None = None
        self._stop_serving: Callable[[], object] | None = None

    @abc.abstractmethod
    def routes(self) -> Mapping[str, Handler]:
        """Return the handlers by method and path, such as `GET /sandboxes/{id}`."""

    @property
    @abc.abstractmethod
    def machines(self) -> Mapping[str, Machine]:
        """The machines of the sandboxes that exist, by the sandbox's id."""

    @property
    @abc.abstractmethod
    def environment(self) -> Mapping[str, str]:
        """The environment that points the vendor's SDK at this server."""

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

    async def until_answering(self) -> None:
        """Return when creates are answered."""
        await asyncio.to_thread(self.answering.wait)

    def __enter__(self):  # type: ignore[no-untyped-def]  # typing.Self is of Python 3.11.
        ready: Future[int] = Future()
        self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{ready.result()}"
        return self

    def __exit__(self, *_: object) -> None:
        assert self._stop_serving is not None
        assert self._thread is not None
        self.answering.set()
        self._stop_serving()
        self._thread.join()

    def _run(self, ready: Future[int]) -> None:
        try:
            asyncio.run(self._serve(ready))
        finally:
            ready.cancel()  # Does nothing, unless serving failed before it was ready.

    async def _serve(self, ready: Future[int]) -> None:
        loop, stopping = asyncio.get_running_loop(), asyncio.Event()
        self._stop_serving = lambda: loop.call_soon_threadsafe(stopping.set)
        app = web.Application(middlewares=[self._with_faults], client_max_size=2**30)
        app.on_response_prepare.append(_reset)
        for route, handler in self.routes().items():
            method, path = route.split()
            app.router.add_route(method, path, handler)
        runner, proxy = web.AppRunner(app, shutdown_timeout=1), None
        try:
            await runner.setup()
            context = None
            if self._host is not None:
                context, trusted = issue(self.root, self._host)
                self.proxied["SSL_CERT_FILE"] = str(trusted)
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            port = runner.addresses[0][1]
            if context is not None:
                await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
                proxy = await start_proxy(runner.addresses[1][1])
                address = proxy.sockets[0].getsockname()
                self.proxied["HTTPS_PROXY"] = f"http://127.0.0.1:{address[1]}"
            ready.set_result(port)
            await stopping.wait()
            if proxy is not None:
                proxy.close()
            await site.stop()
        finally:
            for machine in tuple(self.machines.values()):
                await machine.remove()
            await runner.cleanup()

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


def started(
    server: _Server, provider: str, monkeypatch: pytest.MonkeyPatch
) -> Generator[_Server, None, None]:
    """Yield a server that runs, to which the environment leads the one provider that is used."""
    monkeypatch.setenv("SANDBOX_CORE_PROVIDERS", provider)
    with server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server
