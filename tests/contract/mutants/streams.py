"""Broken providers: streams of processes, and a right one to put a fault into."""

from __future__ import annotations

from contract.mutants.one import Mutant, provider

_BEFORE = "        await client.api.list()\n\n\n@hookimpl"

_STREAMS = """\
        await client.api.list()

    async def open_stream(self, session, command, *, user):
        import asyncio
        import os

        from agents.sandbox.errors import ExecTransportError

        environment = await session.state.manifest.environment.resolve()
        root = session.state.manifest.root
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                cwd=root,
                env={"PATH": os.defpath, "HOME": root, **environment},
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            raise ExecTransportError(command=command, cause=error) from error
        return _Stream(process)


class _Stream:
    def __init__(self, process):
        self.process = process

    async def send(self, data):
        self.process.stdin.write(data)
        await self.process.stdin.drain()

    async def receive(self):
        return await self.process.stdout.read(65536)

    async def send_eof(self):
        self.process.stdin.close()

    async def aclose(self):
        self.process.stdin.close()


@hookimpl"""


def _streams(name: str, check: str, old: str, new: str) -> Mutant:
    assert 1 == _STREAMS.count(old)
    return provider(name, f"streams.{check}", _BEFORE, _STREAMS.replace(old, new))


RIGHT_STREAMS = provider("none", "", _BEFORE, _STREAMS)

STREAMS = (
    _streams(
        "text",
        "bytes_pass_unaltered",
        "return await self.process.stdout.read(65536)",
        'return (await self.process.stdout.read(65536)).replace(b"\\r\\n", b"\\n")',
    ),
    _streams(
        "whole lines only",
        "bytes_pass_unaltered",
        "return await self.process.stdout.read(65536)",
        "return await self.process.stdout.readline()",
    ),
    _streams(
        "output that is kept without limit",
        "unread_output_waits",
        "                stdout=asyncio.subprocess.PIPE,\n",
        "                stdout=asyncio.subprocess.PIPE,\n                limit=1 << 30,\n",
    ),
    _streams(
        "another environment",
        "the_process_is_that_of_exec",
        '"HOME": root, **environment',
        '"HOME": root',
    ),
    _streams(
        "another directory",
        "the_process_is_that_of_exec",
        "cwd=root",
        'cwd="/"',
    ),
    _streams(
        "an end of both",
        "stdin_ends",
        "    async def send_eof(self):\n        self.process.stdin.close()",
        "    async def send_eof(self):\n        self.process.kill()",
    ),
    _streams(
        "a stdin that stays open",
        "stdin_ends",
        "    async def aclose(self):\n        self.process.stdin.close()",
        "    async def aclose(self):\n        pass",
    ),
    _streams(
        "a stream without a process",
        "a_missing_program_ends_the_stream",
        "raise ExecTransportError(command=command, cause=error) from error",
        "await asyncio.sleep(3600)",
    ),
)
