"""Wrong providers, of terminals: a right session with them, and one fault in it."""

from __future__ import annotations

from contract.mutants.one import Mutant, session

TERMINALS_METHODS = """\
    _processes = {}

    def supports_pty(self):
        return True

    async def pty_exec_start(
        self, *command, shell=True, user=None, tty=False, yield_time_s=None, **_
    ):
        import asyncio, os, pty

        argv = self._prepare_exec_command(*command, shell=shell, user=user)
        ours, theirs = pty.openpty() if tty else os.pipe()
        os.set_blocking(ours, False)
        process = await asyncio.create_subprocess_exec(
            *argv,
            cwd=self.state.manifest.root,
            stdin=theirs if tty else asyncio.subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        number = max(self._processes, default=0) + 1
        self._processes[number] = (process, ours, tty)
        return await self._polled(number, yield_time_s)

    async def pty_write_stdin(self, *, session_id, chars, yield_time_s=None, **_):
        import os
        from agents.sandbox.errors import PtySessionNotFoundError

        if session_id not in self._processes:
            raise PtySessionNotFoundError(session_id=session_id)
        if chars:
            os.write(self._processes[session_id][1], chars.encode())
        return await self._polled(session_id, yield_time_s)

    async def pty_terminate_all(self):
        import os, signal

        for process, ours, _ in self._processes.values():
            os.killpg(process.pid, signal.SIGKILL)
            os.close(ours)
        self._processes.clear()

    async def _polled(self, number, seconds):
        import asyncio, os
        from agents.sandbox.session.pty_types import PtyExecUpdate

        process, ours, tty = self._processes[number]
        try:
            await asyncio.wait_for(process.wait(), seconds or 1)
        except asyncio.TimeoutError:
            pass
        output = b""
        try:
            while piece := os.read(ours, 65536):
                output += piece
        except OSError:
            pass  # There is no more now, or the terminal is closed.
        ended = process.returncode is not None
        if ended:
            del self._processes[number]
            os.close(ours)
        return PtyExecUpdate(
            process_id=None if ended else number,
            output=output,
            exit_code=process.returncode,
            original_token_count=None,
        )
"""


def _terminals(name: str, check: str, old: str, new: str) -> Mutant:
    assert 1 == TERMINALS_METHODS.count(old), old
    return session(name, f"terminals.{check}", TERMINALS_METHODS.replace(old, new))


TERMINALS = (
    _terminals(
        "output from the beginning",
        "output_is_delivered_once",
        "        ended = ",
        "        self._all = output = getattr(self, '_all', b'') + output\n        ended = ",
    ),
    _terminals(
        "no exit code of what ends at once",
        "a_short_process_ends_with_its_first_output",
        "exit_code=process.returncode,",
        "exit_code=None,",
    ),
    _terminals(
        "pipes for a terminal",
        "a_terminal_can_be_written_to",
        "pty.openpty() if tty else os.pipe()",
        "os.pipe()",
    ),
    _terminals(
        "a terminal that stays",
        "a_terminal_ends_with_its_process",
        "ended = process.returncode is not None",
        "ended = process.returncode is not None and not tty",
    ),
    _terminals(
        "silence of an unknown process",
        "an_unknown_process_is_said",
        "            raise PtySessionNotFoundError(session_id=session_id)",
        "            from agents.sandbox.session.pty_types import PtyExecUpdate\n"
        "            return PtyExecUpdate(session_id, b'', None, None)",
    ),
    _terminals(
        "ends no process",
        "terminating_ends_all_processes",
        "            os.killpg(process.pid, signal.SIGKILL)\n",
        "",
    ),
)
