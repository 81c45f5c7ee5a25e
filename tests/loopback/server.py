"""Shared by the loopback servers of vendors: a thread, a port, and the place of another host."""

from __future__ import annotations

import abc
import asyncio
import threading
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

import pytest
from aiohttp import web

from loopback.faults import FaultyServer, Handler
from loopback.machine import Machine, unavailable
from loopback.tls import issue, start_proxy

_Server = TypeVar("_Server", bound="LoopbackServer")


class LoopbackServer(FaultyServer):
    """A server in a thread and an event loop of its own while its context is entered."""

    def __init__(self, root: Path, *, host: str | None = None) -> None:
        """Make a server.

        Args:
            root: Where the machines have their files.
            host: The host whose place it takes, if the vendor's SDK cannot be pointed elsewhere.
        """
        if reason := unavailable():
            pytest.skip(reason)
        super().__init__()
        self.root = root.resolve()
        self.url = ""
        self.proxied: dict[str, str] = {}
        """The environment that leads an SDK here that asks for `host`."""

        self._host = host
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
        app = web.Application(client_max_size=2**30)
        self.add_faults(app)
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


def started(
    server: _Server, provider: str, monkeypatch: pytest.MonkeyPatch
) -> Generator[_Server, None, None]:
    """Yield a server that runs, to which the environment leads the one provider that is used."""
    monkeypatch.setenv("SANDBOX_CORE_PROVIDERS", provider)
    with server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server
