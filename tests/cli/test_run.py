"""`sandbox-core run`, run as an operator runs it."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest
from cli.command import run_sandbox, running_sandbox
from faults.harness import running
from support import until


def run(tmp_path: Path, *arguments: str) -> tuple[int, str, str]:
    result = run_sandbox("run", *arguments, TMPDIR=str(tmp_path))
    return result.returncode, result.stdout, result.stderr


def sandboxes(folder: Path) -> list[Path]:
    return list(folder.glob("sandbox-local-*"))


def test_passes_on_the_output_and_deletes_the_sandbox(tmp_path: Path) -> None:
    code, out, err = run(tmp_path, "local", "--", "sh", "-c", "echo $PWD; echo oh >&2; exit 3")

    assert (3, "oh") == (code, err.splitlines()[-1])
    assert Path(out.strip()).is_relative_to(tmp_path)
    assert [] == sandboxes(tmp_path)


def test_a_timeout_ends_the_command(tmp_path: Path) -> None:
    code, out, err = run(tmp_path, "local", "--timeout", "1s", "--", "sleep", "1000")

    assert (124, "") == (code, out)
    assert err.endswith("error: it was ended after 0:00:01, its --timeout\n")
    assert [] == sandboxes(tmp_path)


def test_a_provider_that_is_not_installed_is_one_error(tmp_path: Path) -> None:
    code, out, err = run(tmp_path, "moon", "--", "true")

    assert (125, "") == (code, out)
    assert "provider 'moon' is not installed here." in err


def test_a_program_that_is_missing_is_one_error(tmp_path: Path) -> None:
    code, out, err = run(tmp_path, "local", "--", "no-such-program")

    assert (125, "") == (code, out)
    assert "error: 'no-such-program' could not be run: " in err.splitlines()[-1]
    assert [] == sandboxes(tmp_path)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
async def test_an_interrupt_leaves_nothing(tmp_path: Path, signum: signal.Signals) -> None:
    command = ("sh", "-c", "echo $$ > pid; sleep 1000")

    def pids() -> list[str]:
        found = tmp_path.glob("sandbox-local-*/pid")
        return [text for path in found if (text := path.read_text()).endswith("\n")]

    async def started() -> bool:
        return bool(await asyncio.to_thread(pids))

    with running_sandbox("run", "local", "--", *command, TMPDIR=str(tmp_path)) as started_run:
        process, _, errors = started_run
        await until(started, within_s=60)
        (pid,) = pids()
        process.send_signal(signum)
        code = await asyncio.to_thread(process.wait)
        errors.seek(0)
        assert 128 + signum == code, errors.read()

    assert [] == sandboxes(tmp_path)
    assert not running(int(pid))
