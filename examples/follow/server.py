"""A page that follows the commands of a workflow, with the standard library as its web server."""

# /// script
# requires-python = ">=3.10"
# dependencies = ["sandbox-core"]
# [tool.uv.sources]
# sandbox-core = { path = "../..", editable = true }
# ///

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing, suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from temporalio.client import Client
from temporalio.envconfig import ClientConfig
from temporalio.service import RPCError

from sandbox_core.live import follow
from sandbox_core.worker import SandboxPlugin

PAGE = Path(__file__).with_name("page.html").read_bytes()


async def serve(client: Client, *, host: str = "127.0.0.1", port: int = 8000) -> asyncio.Server:
    """Return a running server of the page, for the workflows of the client's namespace."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A browser that goes away is no error, nor is one that sends too much.
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            request, *headers = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
            fields = dict(line.lower().split(": ", 1) for line in headers if ": " in line)
            url = urlsplit(request.split(" ")[1])
            if url.path == "/":
                _head(writer, "200 OK", "text/html; charset=utf-8")
                writer.write(PAGE)
            elif url.path == "/events":
                workflow_id = parse_qs(url.query).get("workflow", [""])[0]
                seen = int(fields.get("last-event-id", "0"))
                sending = asyncio.ensure_future(_events(client, workflow_id, writer, seen=seen))
                gone = asyncio.ensure_future(reader.read())  # A browser sends nothing more.
                await asyncio.wait({sending, gone}, return_when=asyncio.FIRST_COMPLETED)
                for task in (sending, gone):
                    task.cancel()
                await asyncio.gather(sending, gone, return_exceptions=True)
            else:
                _head(writer, "404 Not Found", "text/plain")
            await writer.drain()
        writer.close()

    return await asyncio.start_server(answer, host, port)


def _head(writer: asyncio.StreamWriter, status: str, content_type: str) -> None:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nConnection: close\r\n\r\n"
    writer.write(head.encode())


async def _events(
    client: Client, workflow_id: str, writer: asyncio.StreamWriter, *, seen: int
) -> None:
    """Send what happens in a workflow, without the first `seen` events."""
    number = 0
    async with aclosing(follow(client, workflow_id)) as events:
        try:
            async for event in events:
                number += 1
                if number == 1:
                    _head(writer, "200 OK", "text/event-stream")
                if number > seen:
                    writer.write(f"id: {number}\ndata: {json.dumps(event.dump())}\n\n".encode())
                    await writer.drain()  # Raises an error if the browser has gone.
        except RPCError as error:
            if number == 0:
                _head(writer, "404 Not Found", "text/plain")
                writer.write(error.message.encode())
            return
    if number == 0:
        _head(writer, "200 OK", "text/event-stream")
    writer.write(b"event: end\ndata:\n\n")


async def main() -> None:
    """Serve until Ctrl-C."""
    settings = ClientConfig.load_client_connect_config()
    settings.setdefault("target_host", "localhost:7233")
    plugin = SandboxPlugin(register_activities=False)  # It reads the workers' storage.
    server = await serve(await Client.connect(**settings, plugins=[plugin]))
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main())
