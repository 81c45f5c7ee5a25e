"""Broken providers: commands."""

# ruff: noqa: E501 - a fault is source text, a line of it however long

from __future__ import annotations

from contract.mutants.one import api

_RESULT = "return ExecResult(stdout=stdout, stderr=stderr, exit_code=process.returncode or 0)"

COMMANDS = (
    api(
        "streams together",
        "commands.streams_come_apart",
        _RESULT,
        _RESULT.replace("stdout=stdout, stderr=stderr", 'stdout=stdout + stderr, stderr=b""'),
    ),
    api(
        "exit codes of 0 and 1",
        "commands.exit_codes_are_the_commands",
        _RESULT,
        _RESULT.replace("process.returncode or 0", "int(bool(process.returncode))"),
    ),
    api(
        "output as text",
        "commands.binary_output_is_whole",
        _RESULT,
        _RESULT.replace("stdout=stdout", 'stdout=stdout.decode(errors="replace").encode()'),
    ),
    api(
        "output that is cut",
        "commands.large_output_is_whole",
        _RESULT,
        _RESULT.replace("stdout=stdout", "stdout=stdout[:1_000_000]"),
    ),
    api(
        "output that is stripped",
        "commands.output_is_not_touched",
        _RESULT,
        _RESULT.replace("stdout=stdout", "stdout=stdout.strip()"),
    ),
    api(
        "no empty arguments",
        "commands.arguments_arrive_unchanged",
        "                *argv,",
        "                *(a for a in argv if a),",
    ),
    api(
        "arguments that are cut",
        "commands.an_argument_may_be_long",
        "                *argv,",
        "                *(a[:65536] for a in argv),",
    ),
    api(
        "always its own shell",
        "commands.a_shell_may_be_chosen",
        "        try:\n            process",
        "        if list(argv[:2]) == ['sh', '-c'] and len(argv) == 3:\n            argv = ['sh', '-n', '-c', argv[2]]\n        try:\n            process",
    ),
    api(
        "runs elsewhere",
        "commands.commands_run_in_the_workspace",
        "cwd=cwd,",
        'cwd=cwd if "where" not in argv[-1] else "/tmp",',
    ),
    api(
        "drops variables in lower case",
        "commands.the_environment_is_the_manifests",
        "**environment}",
        "**{k: v for k, v in environment.items() if k.isupper()}}",
    ),
    api(
        "quotes variables",
        "commands.the_environment_is_the_manifests",
        "**environment}",
        "**{k: v.strip() for k, v in environment.items()}}",
    ),
    api(
        "a stdin that stays open",
        "commands.stdin_is_closed",
        "stdin=asyncio.subprocess.DEVNULL,",
        'stdin=os.pipe()[0] if argv[-1].startswith("cat;") else asyncio.subprocess.DEVNULL,',
    ),
    api(
        "a missing program as success",
        "commands.a_missing_program_is_said",
        "            raise ExecTransportError(command=argv, cause=error) from error",
        '            return ExecResult(stdout=b"", stderr=b"", exit_code=0)',
    ),
    api(
        "a time-out of its own class",
        "commands.a_timeout_is_kept",
        "raise ExecTimeoutError(command=argv, timeout_s=timeout, cause=error)",
        'raise RuntimeError("too slow")',
    ),
    api(
        "a time-out that breaks the sandbox",
        "commands.a_timeout_is_kept",
        "raise ExecTimeoutError(command=argv",
        "self._home = Path('/gone')\n            raise ExecTimeoutError(command=argv",
    ),
    api(
        "a cancellation that breaks the sandbox",
        "commands.a_cancelled_call_leaves_the_session_usable",
        "        finally:\n            if process",
        "        except asyncio.CancelledError:\n            self._home = Path('/gone')\n            raise\n        finally:\n            if process",
    ),
    api(
        "a signal as success",
        "commands.a_signal_is_not_success",
        _RESULT,
        _RESULT.replace("process.returncode or 0", "max(process.returncode or 0, 0)"),
    ),
    api(
        "one command at a time",
        "commands.commands_run_at_once",
        "            stdout, stderr = await asyncio.wait_for(process.communicate(), timeout)",
        "            if len(argv) == 4 and len(argv[2]) > 60 and argv[3] == '7':\n                raise ExecTransportError(command=argv)\n            stdout, stderr = await asyncio.wait_for(process.communicate(), timeout)",
    ),
    api(
        "ends what a command leaves",
        "commands.background_processes_outlive_their_call",
        f"        {_RESULT}",
        f"        try:\n            os.killpg(process.pid, signal.SIGKILL)\n        except ProcessLookupError:\n            pass\n        {_RESULT}",
    ),
    api(
        "a /tmp for each call",
        "commands.tmp_stays_between_calls",
        "                *argv,",
        "                *(a.replace('/tmp/check-', f'/tmp/{uuid.uuid4().hex}-') for a in argv),",
    ),
    api(
        "runs as whoever it is",
        "commands.an_unknown_user_is_refused",
        "        try:\n            process",
        "        argv = argv[4:] if argv[0] == 'sudo' else argv\n        try:\n            process",
    ),
    api(
        "blocks the loop",
        "commands.the_event_loop_stays_free",
        "            stdout, stderr = await asyncio.wait_for(process.communicate(), timeout)",
        "            if 'sleep 3' in argv[-1]:\n                __import__('time').sleep(2)\n            stdout, stderr = await asyncio.wait_for(process.communicate(), timeout)",
    ),
)
