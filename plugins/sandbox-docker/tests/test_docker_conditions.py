"""Commands in containers that lack a resource, or are paused for a while."""

from __future__ import annotations

import asyncio

import pytest
from agents.sandbox.errors import ExecTransportError
from docker_boxes import MS_NOEXEC, Contained
from processes.driving import command, seen

from sandbox_core.errors import OutcomeUnknown

pytest_plugins = ["docker_boxes", "docker_fixtures"]

pytestmark = [pytest.mark.extended, pytest.mark.xdist_group("docker")]

BASES = ("/tmp", "/var/tmp", "/dev/shm", "/run")

RAN = (b"out\n", b"", 3)


class TestFolders:
    """Where a sandbox has no folder for the helper, commands are the engine's own calls."""

    async def test_none_that_executes(self, box: Contained) -> None:
        for base in BASES:
            box.mount(base, MS_NOEXEC, "mode=1777")

        assert RAN == seen(await box.exec("echo out; exit 3"))
        assert "no directory that allows executables" == box.why_plain()

    async def test_none_that_is_writable(self, box: Contained) -> None:
        box.make_read_only("/dev/shm", "/")

        assert RAN == seen(await box.exec("echo out; exit 3"))
        assert "no writable directory" == box.why_plain()

    async def test_one_on_a_read_only_root(self, box: Contained) -> None:
        box.mount("/run", data="mode=755")
        box.make_read_only("/dev/shm", "/")

        result = await box.exec("echo out; touch /x || exit 3")

        assert (b"out\n", 3) == (result.stdout, result.exit_code)
        assert box.why_plain() is None


class TestFullDisk:
    """Nothing of it lasts: what fills the disk can be removed, and then all is as before."""

    async def test_before_the_upload(self, box: Contained) -> None:
        box.small("size=256k")
        await box.text("cat /dev/zero > /tmp/filler")

        assert RAN == seen(await box.exec("echo out; exit 3"))
        assert "no room in any writable directory" == box.why_plain()
        await box.exec("rm /tmp/filler")
        assert await box.held()

    async def test_in_the_middle_of_the_upload(self, box: Contained) -> None:
        box.small("size=256k")
        await box.text("head -c 200000 /dev/zero > /tmp/filler")

        assert RAN == seen(await box.exec("echo out; exit 3"))
        assert "there is no room for it in /tmp/.sandbox-helper-0" == box.why_plain()
        assert "" == await box.text("ls /tmp/.sandbox-helper-0")
        await box.exec("rm /tmp/filler")
        assert await box.held()

    async def test_in_one_folder_only(self, box: Contained) -> None:
        box.mount("/tmp", data="size=256k,mode=1777")
        await box.text("head -c 200000 /dev/zero > /tmp/filler")

        assert RAN == seen(await box.exec("echo out; exit 3"))
        assert box.why_plain() is None
        assert "1\n" == await box.text("ls /var/tmp/.sandbox-helper-0 | wc -l")

    async def test_between_upload_and_command(self, box: Contained) -> None:
        box.small("size=256k")
        await box.helper()
        await box.text("cat /dev/zero > /tmp/filler")
        run = command("echo run >> /dev/shm/runs; seq 1 50000; exit 3")
        box.mount("/dev/shm")

        first, again = await box.run(run), await box.run(run)

        assert seen(first) == seen(again)
        assert (288_894, 3) == (len(first.stdout), first.exit_code)
        assert "run\n" == await box.text("cat /dev/shm/runs")
        await box.exec("rm /tmp/filler")
        assert seen(first) == seen(await box.run(run))
        assert await box.held()

    async def test_while_output_is_kept(self, box: Contained) -> None:
        box.small("size=512k")
        run = command("head -c 300000 /dev/zero | tr '\\0' x; cat /dev/zero > /tmp/filler; exit 3")

        first, again = await box.run(run), await box.run(run)

        assert seen(first) == seen(again)
        assert (300_000, 3) == (len(first.stdout), first.exit_code)
        await box.exec("rm /tmp/filler")
        assert seen(first) == seen(await box.run(run))

    async def test_without_a_number_for_another_file(self, box: Contained) -> None:
        """Not even the helper's folder can be made."""
        box.small("size=1m,nr_inodes=20")
        await box.helper()
        await box.text("for n in $(seq 1 30); do : > /tmp/f$n; done")

        assert RAN == seen(await box.exec("echo out; exit 3"))
        assert "No space left on device" == box.why_plain()
        await box.exec("rm /tmp/f*")
        assert await box.held()

    async def test_without_one_once_it_runs(self, box: Contained) -> None:
        box.small("size=1m,nr_inodes=20")
        await box.exec("true")
        await box.text("for n in $(seq 1 30); do : > /tmp/f$n; done")

        assert RAN == seen(await box.exec("echo out; exit 3"))
        assert box.why_plain() is None
        await box.exec("rm /tmp/f*")
        assert await box.held()


class TestLimits:
    async def test_of_processes(self, box: Contained) -> None:
        run = command("echo out; exit 3")
        await box.exec("true")
        box.limit_processes(5)
        with pytest.raises(ExecTransportError, match="did not run: no process") as failed:
            await box.run(run)

        box.limit_processes(100)

        # The engine may fail before the helper runs; then nobody may start this command any more.
        again = run if failed.value.retryable else command("echo out; exit 3")
        assert RAN == seen(await box.run(again))

    async def test_of_memory(self, box: Contained) -> None:
        """The kernel ends the command, and not the helper."""
        await box.exec("true")
        resident = (await box.ask("ping")).number("pid")
        box.container.update(mem_limit="64m", memswap_limit="64m")

        result = await box.exec("exec python3 -c 'x = bytearray(200_000_000)'")

        assert (b"", b"", 137) == seen(result)
        assert RAN == seen(await box.exec("echo out; exit 3"))
        assert resident == (await box.ask("ping")).number("pid")


class TestStandstill:
    """The engine stops a container in the middle of a command."""

    async def test_paused(self, box: Contained) -> None:
        run = command("echo run >> runs; until [ -e go ]; do sleep 0.05; done; echo out; exit 3")
        asked = asyncio.create_task(box.run(run))
        await box.line("runs")
        await box.exec("true")  # It follows the first, which has been passed on, then.
        box.container.pause()

        with pytest.raises(ExecTransportError):
            await box.exec("echo another >> runs")
        assert not asked.done()
        box.container.unpause()
        await box.text("touch go")

        assert RAN == seen(await asked)
        assert "run\n" == await box.text("cat runs")

    @pytest.mark.parametrize("how", ["restart", "stop"])
    async def test_ended_and_started_again(self, box: Contained, how: str) -> None:
        run = command("echo run >> runs; sleep 60")
        asked = asyncio.create_task(box.run(run))
        await box.line("runs")

        await asyncio.to_thread(getattr(box.container, how), timeout=0)

        with pytest.raises((ExecTransportError, OutcomeUnknown)) as failed:
            await asked
        if isinstance(failed.value, ExecTransportError):
            # It is about the command, and not about what was asked of the sandbox for it.
            assert ("sh", "-lc", "echo run >> runs; sleep 60") == failed.value.command
        if how == "stop":
            with pytest.raises(ExecTransportError):
                await box.exec("echo another >> runs")
            await asyncio.to_thread(box.container.start)
        with pytest.raises(OutcomeUnknown, match="was started"):
            await box.run(run)
        assert RAN == seen(await box.exec("echo out; exit 3"))
        assert "run\n" == await box.text("cat runs")
