"""An MCP server that runs inside the sandbox, on its files, and is called from the workflow.

Only a command with a terminal accepts input, so that is the server's stdin and stdout. It outlives
the worker that started it, and each request is written once.
"""

# /// script
# requires-python = ">=3.10"
# dependencies = ["mcp>=2,<3", "sandbox-core", "sandbox-local"]
# [tool.uv.sources]
# sandbox-core = { path = "..", editable = true }
# sandbox-local = { path = "../plugins/sandbox-local", editable = true }
# ///

import asyncio
import json
import sys
import uuid
from typing import Any

from agents.sandbox import Manifest
from agents.sandbox.entries import File
from agents.sandbox.session.pty_types import PtyExecUpdate
from temporalio import workflow
from temporalio.client import Client
from temporalio.envconfig import ClientConfig
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker

from sandbox_core.worker import SandboxPlugin
from sandbox_core.workflow import WorkflowSandboxSession, temporal_sandbox_client

SERVER = """\
from pathlib import Path

from mcp.server.mcpserver import MCPServer

server = MCPServer("notes")


@server.tool()
def add_note(text: str) -> str:
    '''Add a note, and return all of them.'''
    with Path("notes.txt").open("a") as notes:
        notes.write(text + "\\n")
    return Path("notes.txt").read_text()


server.run()
"""


class McpClient:
    """Calls an MCP server in a sandbox, with lines of JSON-RPC through a terminal."""

    def __init__(self, session: WorkflowSandboxSession) -> None:
        self._session = session
        self._process: int | None = None
        self._requests = 0
        self._unread = ""

    async def connect(self, command: str) -> None:
        """Start the server."""
        # A raw terminal neither echoes what is written to it nor changes it.
        command = f"stty raw -echo && echo ready && exec {command} 2>mcp.log"
        self._note(await self._session.pty_exec_start(command, tty=True, yield_time_s=0.25))
        while await self._line() != "ready":
            pass
        client = {"name": "sandbox-core-example", "version": "1"}
        about = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client}
        await self.request("initialize", about)
        await self._send({"jsonrpc": "2.0", "method": "notifications/initialized"})

    async def request(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """Return the result of a request, which is sent once.

        Raises:
            ApplicationError: The server answers with an error, or has ended.
            TimeoutError: It does not answer within a minute.
        """
        self._requests += 1
        number = self._requests
        await self._send({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        message = await asyncio.wait_for(self._answer(number), timeout=60)
        if "error" in message:
            raise ApplicationError(f"{method}: {message['error']}", non_retryable=True)
        result: dict[str, Any] = message["result"]
        return result

    async def _answer(self, number: int) -> dict[str, Any]:
        while True:
            message: dict[str, Any] = json.loads(await self._line())
            if message.get("id") == number:  # Rather than a notification.
                return message

    async def _send(self, message: dict[str, Any]) -> None:
        await self._write(json.dumps(message) + "\n")

    async def _line(self) -> str:
        while "\n" not in self._unread:
            await self._write("")
        line, _, self._unread = self._unread.partition("\n")
        return line.strip()

    async def _write(self, text: str) -> None:
        if self._process is None:
            raise ApplicationError("the MCP server has ended; see mcp.log", non_retryable=True)
        update = await self._session.pty_write_stdin(
            session_id=self._process, chars=text, yield_time_s=0.5
        )
        self._note(update)

    def _note(self, update: PtyExecUpdate) -> None:
        self._process = update.process_id
        self._unread += update.output.decode()


@workflow.defn
class TakeNotes:
    """Has a server in a sandbox take notes."""

    @workflow.run
    async def run(self, provider: str, python: str) -> list[str]:
        """Return the server's tools, and what they say."""
        client = temporal_sandbox_client(provider)
        manifest = Manifest(entries={"server.py": File(content=SERVER.encode())})
        session = await client.create(manifest=manifest)
        try:
            async with session:
                server = McpClient(session)
                await server.connect(f"{python} server.py")
                tools = (await server.request("tools/list", {}))["tools"]
                said = [f"{tool['name']}: {tool['description']}" for tool in tools]
                for text in ("buy milk", "sell eggs"):
                    call = {"name": "add_note", "arguments": {"text": text}}
                    result = await server.request("tools/call", call)
                    said.append(result["content"][0]["text"])
                return said
        finally:
            await client.delete(session)


async def main(provider: str, python: str) -> None:
    """Run a worker and the workflow, and print what the server says.

    Args:
        provider: The provider of the sandbox.
        python: The Python in the sandbox that has the `mcp` package; on this host, this one.
    """
    settings = ClientConfig.load_client_connect_config()
    settings.setdefault("target_host", "localhost:7233")
    client = await Client.connect(**settings, plugins=[SandboxPlugin()])
    async with Worker(client, task_queue="mcp-inside", workflows=[TakeNotes]):
        said = await client.execute_workflow(
            TakeNotes.run,
            args=[provider, python],
            id=f"mcp-inside-{uuid.uuid4().hex[:8]}",
            task_queue="mcp-inside",
        )
    print("\n".join(said))


if __name__ == "__main__":
    in_sandbox = sys.argv[2] if sys.argv[2:] else sys.executable
    asyncio.run(main(sys.argv[1] if sys.argv[1:] else "local", in_sandbox))
