"""Measures the cost of durable commands: plain `session.exec` and the helper, alternately.

Both run the same command in the same session of the real local backend, without Temporal: over the
helper's socket, as on a worker's own host, and through the session's `exec`, as elsewhere. They
alternate, so that other work of the machine affects all of them.

    python benchmarks/exec.py --rounds 200
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from statistics import median

from agents.sandbox.sandboxes.unix_local import (
    UnixLocalSandboxClient,
    UnixLocalSandboxClientOptions,
)
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.types import ExecResult

from sandbox_core.providers import LoadedProvider, client_provider, discover, load
from sandbox_core.providers.registry import Provider
from sandbox_core.wire import messages as m
from sandbox_core.worker.commands import closing, run

CASES = {
    "true": ("true", 0),
    "100 KB of output": ("head -c 100000 /dev/zero", 100_000),
}


def through_exec() -> Provider:
    """Return a provider of the SDK's local backend of which nothing is known but its sessions."""
    return client_provider(
        "through-exec",
        lambda: UnixLocalSandboxClient(inherit_host_environment=False),
        UnixLocalSandboxClientOptions,
    )


@dataclass
class Side:
    """One way to run a command, and how long each run of it took, in all and of this process."""

    run: Callable[[], Awaitable[ExecResult]]
    seconds: list[float] = field(default_factory=list)
    own: list[float] = field(default_factory=list)

    async def measure(self, size: int) -> None:
        """Run the command once, and check that it worked."""
        begin, own = time.perf_counter(), time.process_time()
        result = await self.run()
        self.seconds.append(time.perf_counter() - begin)
        self.own.append(time.process_time() - own)
        assert (size, b"", 0) == (len(result.stdout), result.stderr, result.exit_code), vars(result)


def under_helper(provider: Provider, session: SandboxSession, command: str) -> Side:
    """Return the side that runs a command under the helper."""

    async def durable() -> ExecResult:
        ref = m.SessionRef(session_id=str(session.state.session_id), epoch=1)
        request = m.ExecRequest(session=ref, operation_id=uuid.uuid4().hex, command=(command,))
        return (await run.run(provider, session, request)).result

    return Side(durable)


async def measure(rounds: int) -> dict[str, dict[str, Side]]:
    """Run the commands of all cases `rounds` times on each side."""
    (local,) = load([candidate for candidate in discover() if candidate.name == "local"])
    assert isinstance(local, LoadedProvider)
    exec_only = through_exec()
    measured: dict[str, dict[str, Side]] = {}
    async with AsyncExitStack() as stack:
        sessions: list[SandboxSession] = []
        for provider in (local.provider, exec_only):
            client = provider.create_client()
            session = await client.create(options=UnixLocalSandboxClientOptions())
            stack.push_async_callback(client.delete, session)
            stack.push_async_callback(closing.forget, provider, session)
            await session.start()
            sessions.append(session)
        for case, (command, size) in CASES.items():
            sides = measured[case] = {
                "plain": Side(lambda command=command: sessions[0].exec(command)),  # type: ignore[misc]  # bound
                "by socket": under_helper(local.provider, sessions[0], command),
                "through exec": under_helper(exec_only, sessions[1], command),
            }
            for side in sides.values():
                await side.run()
            for _ in range(rounds):
                for side in sides.values():
                    await side.measure(size)
    return measured


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=200, help="runs of each command a side")
    arguments = parser.parse_args()
    python = ".".join(map(str, sys.version_info[:3]))
    print(f"Python {python}, medians of {arguments.rounds} runs in ms\n")
    print(f"{'command':18}{'side':14}{'wall':>8}{'ratio':>8}{'own CPU':>10}")
    for case, sides in asyncio.run(measure(arguments.rounds)).items():
        floor = median(sides["plain"].seconds)
        for name, side in sides.items():
            wall = median(side.seconds)
            print(
                f"{case:18}{name:14}{wall * 1000:8.2f}{wall / floor:8.2f}"
                f"{median(side.own) * 1000:10.2f}"
            )


if __name__ == "__main__":
    main()
