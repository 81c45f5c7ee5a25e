"""A workflow whose commands write a variable of the worker's environment to every output."""

from __future__ import annotations

from pathlib import Path

from agents.sandbox import Manifest
from agents.sandbox.errors import SandboxError
from agents.sandbox.manifest import Environment
from agents.sandbox.session.sandbox_session import SandboxSession
from temporalio import workflow
from workflows.sessions import new_session

from sandbox_core.workflow import WorkerEnv

_SPLIT = """\
printf %.9s "$TOKEN"
until [ -e go ]; do sleep 0.05; done
printf %s "${TOKEN#?????????}"
"""
# More than the 1,000 bytes that the test's worker keeps, of which the first and the last half end
# and begin within the secret.
_LONG = """\
fill() { head -c "$1" /dev/zero | tr '\\0' "$2"; }
fill 490 x; printf %s "$TOKEN"; fill 2000 y; printf %s "$TOKEN"; fill 490 z
"""


@workflow.defn
class ShowsSecret:
    """Shows it, waits to be told that it has another worker, and shows it in every other way."""

    def __init__(self) -> None:
        self._shown = False
        self._told = False

    @workflow.run
    async def run(self, provider: str, variable: str) -> dict[str, str]:
        environment = Environment(value={"TOKEN": WorkerEnv(name=variable)})
        async with new_session(provider, Manifest(environment=environment)) as session:
            seen = {"at first": await _output(session, "env")}
            self._shown = True
            await workflow.wait_condition(lambda: self._told)
            seen["on another worker"] = await _output(session, "env")
            seen["on stderr"] = await _output(session, 'echo "$TOKEN" >&2')
            seen["in an error"] = await _error(session)
            seen["across the cut"] = await _output(session, _LONG)
            if session.supports_pty():
                seen["split over two polls"] = await _split(session)
        return seen

    @workflow.update
    async def shown(self) -> None:
        """Return when a worker has shown it."""
        await workflow.wait_condition(lambda: self._shown)

    @workflow.signal
    def go_on(self) -> None:
        """Show it in every other way."""
        self._told = True


async def _output(session: SandboxSession, command: str) -> str:
    ran = await session.exec(command)
    return (ran.stdout + ran.stderr).decode()


async def _error(session: SandboxSession) -> str:
    await session.exec('ln -s "/outside/$TOKEN" link')
    try:
        await session.read(Path("link"))
    except SandboxError as error:
        return f"{error} {error.context} {vars(error)}"
    raise AssertionError("a link out of the workspace was followed")


async def _split(session: SandboxSession) -> str:
    started = await session.pty_exec_start(_SPLIT, yield_time_s=1)
    await session.exec("touch go")
    assert started.process_id is not None
    ended = await session.pty_write_stdin(session_id=started.process_id, chars="", yield_time_s=10)
    return (started.output + b"|" + ended.output).decode()
