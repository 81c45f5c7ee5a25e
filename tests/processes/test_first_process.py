"""A worker that is process 1 of its container reaps the orphans that it inherits."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from processes.conftest import box_of
from support import installed_provider

_UNSHARE = ("unshare", "--pid", "--fork", "--mount-proc")


def _possible() -> bool:
    return subprocess.run([*_UNSHARE, "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not _possible(), reason="no PID namespace may be made here")
def test_no_zombie_stays() -> None:
    """Neither of a command, nor of what it has left behind, nor of the helper."""
    ran = subprocess.run(
        [*_UNSHARE, sys.executable, __file__],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )

    assert ("1 [] []", 0) == (ran.stdout.strip(), ran.returncode), ran.stderr


def _zombies() -> list[str]:
    stats = (path.read_text() for path in Path("/proc").glob("[0-9]*/stat"))
    return [stat.split()[1] for stat in stats if stat.rpartition(")")[2].split()[0] == "Z"]


async def _main() -> None:
    provider = installed_provider("local")
    async with box_of(provider, provider.create_client()) as box:
        for _ in range(5):
            await box.exec("true; sleep 0.05 >/dev/null 2>&1 & setsid sleep 0.05 & true")
        await box.text("sleep 0.3")
        meanwhile = _zombies()
    print(os.getpid(), meanwhile, _zombies())  # noqa: T201 - the result


if __name__ == "__main__":
    asyncio.run(_main())
