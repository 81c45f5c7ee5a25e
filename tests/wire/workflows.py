"""The workflows that run under several data converters."""

from __future__ import annotations

import io
import json
from pathlib import Path

from agents.sandbox import Manifest
from agents.sandbox.entries import BaseEntry, Dir, File
from agents.sandbox.errors import SandboxError, WorkspaceReadNotFoundError
from agents.sandbox.session.sandbox_session import SandboxSession
from temporalio import workflow

from sandbox_core.workflow import temporal_sandbox_client

BINARY = bytes(range(256))
SCRIPT = "cat notes.txt; printf 'err\\377' >&2; exit 3"


@workflow.defn
class WholeSession:
    """Each kind of payload once: what it returns must not depend on the data converter."""

    @workflow.run
    async def run(self) -> dict[str, str]:
        client = temporal_sandbox_client("local")
        session = await client.create(
            manifest=Manifest(
                entries={
                    "notes.txt": File(content="gr\u00fc\u00dfe\n".encode()),
                    "logo.bin": File(content=BINARY),
                    "src": Dir(children={"empty": File(content=b"")}),
                }
            )
        )
        seen: dict[str, str] = {}
        try:
            await session.start()
            await self._look(session, seen)
            await session.stop()
            await session.shutdown()
        finally:
            await client.delete(session)
        return seen

    async def _look(self, session: SandboxSession, seen: dict[str, str]) -> None:
        seen["running"] = str(await session.running())
        result = await session.exec(SCRIPT)
        seen["exec"] = f"{result.stdout!r} {result.stderr!r} {result.exit_code}"
        seen["manifest file"] = (await session.read(Path("logo.bin"))).read().hex()
        await session.write(Path("out/copy.bin"), io.BytesIO(BINARY[::-1]))
        seen["written file"] = (await session.read(Path("out/copy.bin"))).read().hex()
        seen["empty file"] = (await session.read(Path("src/empty"))).read().hex()
        listing = await session.ls("out")
        seen["ls"] = " ".join(
            f"{Path(entry.path).name} {entry.kind.value} {entry.size} {entry.permissions}"
            for entry in listing
        )
        try:
            await session.read(Path("missing.txt"))
        except SandboxError as error:
            seen["error"] = type(error).__name__
            seen["error is the SDK's"] = str(type(error) is WorkspaceReadNotFoundError)
            seen["error code"] = error.code
            seen["error retryable"] = str(error.retryable)
            seen["error context"] = " ".join(sorted(error.context))
        seen["state"] = json.dumps(sorted(session.state.manifest.entries, key=str), default=str)


@workflow.defn
class LargeManifest:
    """A manifest of 50 files, a command, and a file."""

    @workflow.run
    async def run(self) -> int:
        files: dict[str | Path, BaseEntry] = {
            f"src/file_{n}.py": File(content=b"x = 1\n" * 100) for n in range(50)
        }
        client = temporal_sandbox_client("local")
        session = await client.create(manifest=Manifest(entries=files))
        try:
            await session.start()
            result = await session.exec("ls src | wc -l")
            await session.write(Path("logo.bin"), io.BytesIO(BINARY))
            await session.read(Path("logo.bin"))
        finally:
            await client.delete(session)
        return int(result.stdout)
