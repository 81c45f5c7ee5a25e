"""What the durability of a command costs: plain `session.exec` and `processes.run`, in turn.

Both run the same command in the same session of the real local backend, without Temporal. The sides
take turns, so that whatever else the machine does meets both. The processes are those that the
kernel counts, threads of Python's included; the least of all rounds, because it counts the whole
machine's.

    python benchmarks/exec.py --rounds 200 --shell dash bash busybox
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from agents.sandbox import Manifest
from agents.sandbox.manifest import Environment
from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxClient
from agents.sandbox.session.sandbox_session import SandboxSession
from agents.sandbox.types import ExecResult

from sandbox_core.wire import messages as m
from sandbox_core.worker.commands import processes

CASES = {
    "true": ("true", 0),
    "100 KB of output": ("head -c 100000 /dev/zero", 100_000),
}


@dataclass
class Side:
    """One way to run a command, how long each run of it took, and what it started at least."""

    run: Callable[[], Awaitable[ExecResult]]
    seconds: list[float] = field(default_factory=list)
    started: int = sys.maxsize

    async def measure(self, size: int) -> None:
        """Run the command once, and check that it worked."""
        started = processes_started()
        begin = time.perf_counter()
        result = await self.run()
        self.seconds.append(time.perf_counter() - begin)
        self.started = min(self.started, processes_started() - started)
        assert (size, b"", 0) == (len(result.stdout), result.stderr, result.exit_code), result

    @property
    def ms(self) -> float:
        """The median."""
        return median(self.seconds) * 1000


def processes_started() -> int:
    """Return how many processes and threads the machine has started since it booted."""
    lines = Path("/proc/stat").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("processes "))


async def measure(session: SandboxSession, case: str, rounds: int) -> tuple[Side, Side]:
    """Run the command of a case `rounds` times on each side."""
    command, size = CASES[case]

    def plain() -> Awaitable[ExecResult]:
        return session.exec(command)

    def durable() -> Awaitable[ExecResult]:
        ref = m.SessionRef(session_id=str(session.state.session_id), epoch=1)
        request = m.ExecRequest(session=ref, operation_id=uuid.uuid4().hex, command=(command,))
        return processes.run(session, request)

    sides = Side(plain), Side(durable)
    for side in sides:
        await side.run()
    for _ in range(rounds):
        for side in sides:
            await side.measure(size)
    return sides


@contextmanager
def path_with(shell: str) -> Iterator[str]:
    """Make a PATH on which `shell` is called sh, with its own applets if it is busybox."""
    program = shutil.which(shell)
    if program is None:
        raise SystemExit(f"there is no {shell} on the PATH")
    with tempfile.TemporaryDirectory(prefix="exec-benchmark-") as folder:
        names = ["sh"]
        if shell == "busybox":
            names += ["cat", "head", "ls", "mkdir", "rm", "setsid", "sleep", "tail", "wc"]
        for name in names:
            (Path(folder) / name).symlink_to(program)
        yield f"{folder}:{os.environ['PATH']}"


async def measure_shell(shell: str, rounds: int) -> None:
    """Print a line for each case."""
    with path_with(shell) as path:
        client = UnixLocalSandboxClient(inherit_host_environment=False)
        manifest = Manifest(environment=Environment(value={"PATH": path}))
        session = await client.create(manifest=manifest)
        try:
            await session.start()
            for case in CASES:
                plain, durable = await measure(session, case, rounds)
                print(
                    f"{shell:9}{case:18}{plain.ms:10.2f}{durable.ms:10.2f}"
                    f"{durable.ms - plain.ms:10.2f}{durable.ms / plain.ms:8.2f}"
                    f"{plain.started:10}{durable.started:10}"
                )
        finally:
            await processes.forget(session)
            await client.delete(session)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=200, help="runs of each command a side")
    parser.add_argument("--shell", nargs="+", default=["dash"], help="which shells to call sh")
    arguments = parser.parse_args()
    python = ".".join(map(str, sys.version_info[:3]))
    print(f"Python {python}, medians of {arguments.rounds} runs in ms, processes started by one\n")
    print(
        f"{'sh':9}{'command':18}{'plain':>10}{'durable':>10}{'more':>10}{'ratio':>8}"
        f"{'started':>10}{'durable':>10}"
    )
    for shell in arguments.shell:
        asyncio.run(measure_shell(shell, arguments.rounds))


if __name__ == "__main__":
    main()
