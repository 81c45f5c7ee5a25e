"""Shared by the helper's tests: its binary, commands for it, and the processes of both."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from driver import Fields

BINARIES = Path(__file__).parents[2] / "src/sandbox_core/worker/commands/helper"
ENVIRONMENT = {"PATH": os.environ["PATH"], "HOME": "/root", "GREETING": "hello", "a.b-c": "kept"}

Ask = Callable[[str, Fields], dict[str, bytes]]


def shell(script: str, **fields: bytes | str | int | list[str]) -> Fields:
    return {"key": uuid.uuid4().hex, "arg": ["sh", "-c", script], "wait": 20_000, **fields}


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it has not come about"
        time.sleep(0.01)


def line_of(path: Path) -> str:
    until(lambda: path.exists() and path.read_text().endswith("\n"))
    return path.read_text().strip()


MACHINE = os.environ.get("SANDBOX_HELPER_MACHINE", os.uname().machine)
"""The other architecture's binary is tested under qemu, if this names it."""

EMULATOR: list[str] = [] if os.uname().machine == MACHINE else [f"qemu-{MACHINE}-static"]


needs_reaping = pytest.mark.skipif(
    bool(EMULATOR), reason="qemu does not pass PR_SET_CHILD_SUBREAPER on: orphans are not found"
)
is_emulated = pytest.mark.skipif(
    bool(EMULATOR), reason="qemu itself is seen: its name, its memory, its signals"
)


def ignored_signals() -> int:
    status = Path("/proc/self/status").read_text()
    ignored = int(status.partition("SigIgn:")[2].split()[0], 16)
    # Python ignores these itself, and resets them for its children.
    return ignored & ~sum(1 << (n - 1) for n in (signal.SIGPIPE, signal.SIGXFSZ))


def bare(script: str, cwd: Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["sh", "-c", script],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        start_new_session=True,
        env=ENVIRONMENT,
        cwd=cwd,
        check=False,
    )


def children(pid: int) -> list[int]:
    return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def resident_set(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def disk(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.iterdir())


TREE = (
    "sleep 61 & echo $! >> {0}; (sleep 62 & echo $! >> {0}); "
    "setsid sh -c 'echo $$ >> {0}; exec sleep 63' >/dev/null 2>&1 & "
    "nohup sh -c 'echo $$ >> {0}; exec sleep 64' >/dev/null 2>&1 <&- & "
    "(setsid sh -c '(setsid sleep 65 & echo $! >> {0}) & wait' >/dev/null 2>&1 &) ; "
    "sleep 0.2; echo $$ >> {0}; echo ready > {1}; {2}"
)


LOOKS_S = 1.0
"""A keeper has noted by then who has come to it early on."""
