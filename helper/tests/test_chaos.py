"""Residents and keepers are killed at random while commands run."""

from __future__ import annotations

import os
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from driver import Fields, Helper, NoAnswer

SECONDS = 60 * float(os.environ.get("SANDBOX_CHAOS_MINUTES", "0.05"))
BINARY = (
    Path(__file__).parents[2]
    / f"src/sandbox_core/worker/commands/helper/sandbox-helper-{os.uname().machine}-linux"
)


@pytest.mark.timeout(SECONDS + 60)
def test_every_command_runs_once_or_its_end_is_unknown(tmp_path: Path) -> None:
    helper = Helper(BINARY, tmp_path / "state")
    helper.exec("boot")
    end = time.monotonic() + SECONDS

    def run(worker: int) -> list[bytes]:
        """Run one command after the other; return what was told of each."""
        told: list[bytes] = []
        while time.monotonic() < end:
            key = f"w{worker}-{len(told)}"
            script = f"echo run >> {tmp_path}/{key}; sleep 0.02; echo {key}; exit 3"
            fields: Fields = {
                "key": key,
                "arg": ["sh", "-c", script],
                "env": [f"PATH={os.environ['PATH']}"],
                "wait": 9000,
            }
            words = [ask(helper, fields, by_socket=worker % 2 == 0) for _ in range(2)]
            assert words[0] == words[1], key
            ran = tmp_path / key
            count = len(ran.read_text().splitlines()) if ran.exists() else 0
            assert count in ({1} if words[0] == f"exited 3 {key}\n".encode() else {0, 1})
            assert words[0] == b"lost" or count == 1
            told.append(words[0])
        return told

    with ThreadPoolExecutor(4) as pool:
        runs = [pool.submit(run, worker) for worker in range(4)]
        kills = 0
        while time.monotonic() < end:
            time.sleep(random.uniform(0.05, 0.4))
            kills += kill_one(helper)
        told = [word for one in runs for word in one.result()]

    helper.exec("stop")
    assert kills
    assert any(word.startswith(b"exited") for word in told)


def ask(helper: Helper, fields: Fields, *, by_socket: bool) -> bytes:
    for _ in range(50):
        try:
            answer = helper.ask("run", fields) if by_socket else helper.exec("run", fields)
        except (NoAnswer, OSError):
            by_socket = False  # Only a client makes a new resident.
            continue
        if answer["word"] not in (b"busy", b"unavailable"):
            return b" ".join(answer[n] for n in ("word", "code", "out") if n in answer)
    return b"nothing"


def kill_one(helper: Helper) -> int:
    """Kill the resident, or one of its keepers."""
    try:
        pid = int(helper.ask("ping")["pid"])
        keepers = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if keepers and random.random() < 0.3:
            pid = int(random.choice(keepers))
        os.kill(pid, signal.SIGKILL)
    except (NoAnswer, OSError):
        return 0
    return 1
