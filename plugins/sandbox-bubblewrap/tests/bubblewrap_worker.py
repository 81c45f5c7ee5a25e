"""A worker process, as root or as an unprivileged user, that uses sandboxes as directed.

Run as a script, it reads one JSON request per line of stdin, and writes one answer per line of
stdout. If root starts it as an unprivileged user, it finds its Python in the usual place even if
only root can access the folders above: a mount namespace of its own hides them.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

USER_ID = 54321
"""An unprivileged user that owns nothing."""

SECRET = "token-of-the-worker"
"""In the environment of each worker."""

_ENTER = """\
set -e
mount --bind "$PREFIX" "$STAGE"
mount -t tmpfs -o mode=755 hidden "$HIDDEN"
mkdir -p "$PREFIX"
mount --move "$STAGE" "$PREFIX"
exec "$@"
"""


class Worker:
    """A worker's process."""

    def __init__(self, home: Path, *, as_root: bool) -> None:
        self.home, self.as_root = home, as_root
        command = [sys.executable, __file__]
        env = {
            "HOME": str(home),
            "PATH": os.environ["PATH"],
            "SANDBOX_BUBBLEWRAP_HOME": str(home / "store"),
            "TMPDIR": str(home),
            "WORKER_SECRET": SECRET,
        }
        if os.geteuid() == 0 and not as_root:
            os.chown(home, USER_ID, USER_ID)
            command, env = _as_user(command, env, home)
        self._process = subprocess.Popen(
            command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/"
        )

    def ask(self, op: str, **fields: object) -> Any:  # noqa: ANN401 - whatever the answer is
        """Return what a request is answered with.

        Raises:
            Refused: It failed.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"op": op, **fields}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise Refused(answer["error"])
        return answer["answer"]

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


class Refused(Exception):
    """What a worker's request failed with: class and message."""


def _as_user(
    command: Sequence[str], env: dict[str, str], home: Path
) -> tuple[list[str], dict[str, str]]:
    user = ["setpriv", f"--reuid={USER_ID}", f"--regid={USER_ID}", "--clear-groups", *command]
    closed = _closed_above(Path(sys.base_prefix))
    if closed is None:
        return user, env
    stage = home / "stage"
    stage.mkdir()
    env = {**env, "PREFIX": sys.base_prefix, "STAGE": str(stage), "HIDDEN": str(closed)}
    return ["unshare", "--mount", "sh", "-c", _ENTER, "sh", *user], env


def _closed_above(path: Path) -> Path | None:
    folders = [path, *path.parents]
    return next((folder for folder in reversed(folders) if not folder.stat().st_mode & 1), None)


# --- In the process -------------------------------------------------------------------------------


async def _serve() -> None:
    from agents.sandbox import Manifest

    from sandbox_bubblewrap import (
        BubblewrapSandboxClientOptions,
        BubblewrapSandboxSessionState,
        sandbox_client_provider,
    )

    provider = sandbox_client_provider()
    client = provider.create_client()
    sessions: dict[str, Any] = {}

    async def perform(request: dict[str, Any]) -> object:
        op = request["op"]
        if op == "open":
            session = await client.create(
                options=BubblewrapSandboxClientOptions(**request.get("options", {})),
                manifest=Manifest(environment=request.get("environment", {})),
            )
            await session.start()
            sandbox_id = provider.identity(session.state)
            sessions[sandbox_id] = session
            state = session.state
            assert isinstance(state, BubblewrapSandboxSessionState)
            return {"id": sandbox_id, "limits": state.limits}
        session = sessions[request["id"]]
        if op == "exec":
            result = await session.exec(
                *request["command"], shell=False, timeout=request.get("timeout", 60)
            )
            return {
                "code": result.exit_code,
                "out": result.stdout.decode(errors="replace"),
                "err": result.stderr.decode(errors="replace"),
            }
        if op == "read":
            return base64.b64encode((await session.read(Path(request["path"]))).read()).decode()
        if op == "write":
            content = io.BytesIO(base64.b64decode(request["data"]))
            return await session.write(Path(request["path"]), content)
        if op == "hydrate":
            return await session.hydrate_workspace(io.BytesIO(base64.b64decode(request["data"])))
        if op == "ls":
            return [entry.path for entry in await session.ls(request["path"])]
        if op == "rm":
            return await session.rm(request["path"], recursive=True)
        if op == "mkdir":
            return await session.mkdir(request["path"], parents=True)
        if op == "running":
            return await session.running()
        if op == "delete":
            return (await client.delete(sessions.pop(request["id"]))) and None
        raise ValueError(op)

    reader = asyncio.StreamReader(limit=64 * 1024 * 1024)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    while line := await reader.readline():
        answer: dict[str, object]
        try:
            answer = {"answer": await perform(json.loads(line))}
        except Exception as error:  # noqa: BLE001 - it is the answer
            answer = {"error": f"{type(error).__name__}: {error} {getattr(error, 'context', '')}"}
        print(json.dumps(answer), flush=True)  # noqa: T201 - the answer
    for session in sessions.values():
        await client.delete(session)


def new_home() -> Path:
    """Return a folder that other users can pass through, as a sandbox's user has to."""
    home = Path(tempfile.mkdtemp(prefix="bubblewrap-tests-", dir="/tmp"))
    home.chmod(0o711)
    return home


if __name__ == "__main__":
    asyncio.run(_serve())
