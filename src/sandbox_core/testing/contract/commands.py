"""Checks a session's `exec`."""

from __future__ import annotations

import asyncio
import hashlib
import time

from agents.sandbox.errors import ExecTimeoutError, SandboxError

from sandbox_core.testing.contract.model import PromiseBroken, check, expect, expect_equal
from sandbox_core.testing.contract.subject import ENVIRONMENT, Subject, gather

_LONG_S = 30
_SOON_S = 15


@check("session", cost="the model mistakes error messages for results")
async def streams_come_apart(subject: Subject) -> None:
    """stdout, stderr and the exit code are returned separately."""
    ran = await subject.sh("echo out; echo err >&2; exit 3")

    expect_equal((b"out\n", b"err\n", 3), (ran.stdout, ran.stderr, ran.exit_code), "the result")


@check("session", cost="a failed command looks successful")
async def exit_codes_are_the_commands(subject: Subject) -> None:
    """The exit code is the command's, from 0 to 255."""
    for code in (0, 1, 7, 127, 255):
        ran = await subject.sh(f"exit {code}")

        expect_equal(code, ran.exit_code, f"`exit {code}`")


@check("session", cost="images, archives and encrypted output are damaged")
async def binary_output_is_whole(subject: Subject) -> None:
    """Output may be any bytes."""
    every = bytes(range(256))
    octal = "".join(f"\\{byte:03o}" for byte in every)
    ran = await subject.sh(f"printf '{octal}'; printf '{octal}' >&2")

    expect_equal(every, ran.stdout, "stdout")
    expect_equal(every, ran.stderr, "stderr")


@check("session", cost="the end of a test run's output is missing")
async def large_output_is_whole(subject: Subject) -> None:
    """Five megabytes of output are returned completely."""
    ran = await subject.sh("head -c 5000000 /dev/zero | tr '\\0' x; echo; echo end >&2")
    digest = hashlib.sha256(b"x" * 5_000_000 + b"\n").hexdigest()

    expect_equal(5_000_001, len(ran.stdout), "bytes of stdout")
    expect_equal(digest, hashlib.sha256(ran.stdout).hexdigest(), "the SHA-256 of stdout")
    expect_equal(b"end\n", ran.stderr, "stderr")


@check("session", cost="output without a final newline gets one or is lost")
async def output_is_not_touched(subject: Subject) -> None:
    """Nothing is added to or stripped from the output."""
    for script, expected in (("printf ' a '", b" a "), ("true", b""), ("printf '\\n\\n'", b"\n\n")):
        ran = await subject.sh(script)

        expect_equal(expected, ran.stdout, f"stdout of {script}")


@check("session", cost="files with spaces or quotes in their names are unusable")
async def arguments_arrive_unchanged(subject: Subject) -> None:
    """Without a shell, arguments are passed unchanged."""
    arguments = ["a b", "it's", '"', "$HOME", "`id`", "*", "\\", "\n", "größe", "", "-n", ";", "%s"]
    session = await subject.session()
    ran = await subject.within(session.exec("printf", "<%s>", *arguments, shell=False))

    expect_equal("".join(f"<{a}>" for a in arguments), ran.stdout.decode(), "the arguments")


@check("session", cost="long model-written scripts and patches fail")
async def an_argument_may_be_long(subject: Subject) -> None:
    """An argument of 100,000 characters is passed completely."""
    session = await subject.session()
    text = "x" * 100_000
    ran = await subject.within(session.exec("printf", "%s", text, shell=False))

    expect_equal(len(text), len(ran.stdout), "bytes of the argument")


@check("session", cost="commands with `shell=[...]` fail")
async def a_shell_may_be_chosen(subject: Subject) -> None:
    """`shell` may be a list of words, to which the command is appended."""
    session = await subject.session()
    in_sh = session.exec("echo $((1 + 1))", shell=["sh", "-c"])  # noqa: S604 - in a sandbox
    ran = await subject.within(in_sh)

    expect_equal(b"2\n", ran.stdout, "stdout")


@check("session", cost="relative paths differ from those of read and write")
async def commands_run_in_the_workspace(subject: Subject) -> None:
    """The working directory is the workspace's root, as for `read` and `write`."""
    session = await subject.session()
    folder = await subject.folder()
    await subject.sh(f"echo here > {folder}/where")
    content = (await subject.within(session.read(folder / "where"))).read()

    expect_equal(b"here\n", content, "what `read` finds of what a command wrote")


@check("session", cost="commands miss the manifest's variables or see them altered")
async def the_environment_is_the_manifests(subject: Subject) -> None:
    """All variables of the manifest are set, whatever their names and values."""
    for name, value in ENVIRONMENT.items():
        ran = await subject.sh(f'printf "<%s>" "${{{name}-unset}}"')

        expect_equal(f"<{value}>", ran.stdout.decode(), f"variable {name}")


@check("session", cost="a command that reads stdin hangs until it times out")
async def stdin_is_closed(subject: Subject) -> None:
    """A command that reads stdin gets end of file at once."""
    ran = await subject.sh("cat; echo done", timeout=_SOON_S)

    expect_equal(b"done\n", ran.stdout, "stdout")


@check("session", cost="a misspelled program looks like a broken backend and is retried")
async def a_missing_program_is_said(subject: Subject) -> None:
    """A missing program raises a `SandboxError` or returns a non-zero exit code."""
    session = await subject.session()
    through_shell = await subject.sh("no-such-program-anywhere --help")
    expect_equal(127, through_shell.exit_code, "the exit code that the shell reports")
    try:
        ran = await subject.within(session.exec("no-such-program-anywhere", shell=False))
    except SandboxError:
        return
    expect(ran.exit_code != 0, "a program that does not exist came back with exit code 0")


@check("session", cost="a hanging command blocks the agent forever")
async def a_timeout_is_kept(subject: Subject) -> None:
    """A command that exceeds its timeout promptly raises `ExecTimeoutError`; the next one runs."""
    begun = time.monotonic()
    try:
        await subject.sh(f"sleep {_LONG_S}", timeout=1)
    except ExecTimeoutError:
        took = time.monotonic() - begun
    else:
        raise PromiseBroken(f"`sleep {_LONG_S}` with timeout=1 came back as if it had ended")

    expect(took < _SOON_S, f"ExecTimeoutError after {took:.1f} s with timeout=1")
    expect_equal(b"next\n", (await subject.sh("echo next")).stdout, "the next command")


@check("session", cost="cancelling an agent's command makes its sandbox unusable")
async def a_cancelled_call_leaves_the_session_usable(subject: Subject) -> None:
    """A call can be cancelled; the session remains usable."""
    session = await subject.session()
    folder = await subject.folder()
    command = f"echo > {folder}/started; sleep {_LONG_S}"
    running = asyncio.ensure_future(session.exec(command))
    await subject.sh(f"until [ -e {folder}/started ]; do sleep 0.1; done", timeout=_LONG_S)
    running.cancel()
    await asyncio.wait({running}, timeout=_SOON_S)

    expect(running.done(), f"the call was still going on {_SOON_S} s after it was cancelled")
    expect_equal(b"next\n", (await subject.sh("echo next")).stdout, "the next command")


@check("session", cost="a crashed command looks successful")
async def a_signal_is_not_success(subject: Subject) -> None:
    """A command killed by a signal has a non-zero exit code."""
    ran = await subject.sh("kill -9 $$")

    expect(ran.exit_code != 0, "a command that was killed came back with exit code 0")


@check("session", cost="parallel tool calls mix up results or wait for each other")
async def commands_run_at_once(subject: Subject) -> None:
    """Eight concurrent commands run in parallel, and each gets its own result."""
    session = await subject.session()
    folder = await subject.folder()
    # Each command waits for all the others.
    script = (
        f"echo > {folder}/at-$0; "
        f'while [ "$(ls {folder} | grep -c at-)" -lt 8 ]; do sleep 0.1; done; echo "$0"; exit "$0"'
    )
    results = await subject.within(
        gather(
            *(session.exec("sh", "-c", script, str(n), shell=False, timeout=30) for n in range(8))
        )
    )

    for number, ran in enumerate(results):
        expect_equal((f"{number}\n".encode(), number), (ran.stdout, ran.exit_code), "a result")


@check("session", cost="an agent's servers are gone; commands run at most once")
async def background_processes_outlive_their_call(subject: Subject) -> None:
    """Background processes of a command keep running after the call returns."""
    folder = await subject.folder()
    background = f"while [ ! -e {folder}/go ]; do sleep 0.1; done; echo went > {folder}/went"
    await subject.sh(f"nohup sh -c '{background}' >/dev/null 2>&1 </dev/null &", timeout=_SOON_S)
    await subject.sh(f"echo > {folder}/go")
    ran = await subject.sh(
        f"n=0; until [ -s {folder}/went ]; do "
        "n=$((n + 1)); [ $n -lt 100 ] || exit 1; sleep 0.1; done"
    )

    expect_equal(0, ran.exit_code, "whether the process was still there after its call")


@check("session", cost="temporary files are gone; commands run at most once")
async def tmp_stays_between_calls(subject: Subject) -> None:
    """Calls share one /tmp."""
    name = f"/tmp/{(await subject.folder()).name}"  # noqa: S108 - a folder of the sandbox
    await subject.sh(f"echo kept > {name}")
    ran = await subject.sh(f"cat {name}; rm -f {name}")

    expect_equal(b"kept\n", ran.stdout, "what a later call finds in /tmp")


@check("session", cost="a command runs with rights that nobody granted")
async def an_unknown_user_is_refused(subject: Subject) -> None:
    """A command for an unknown user does not run."""
    session = await subject.session()
    try:
        ran = await subject.within(session.exec("id", user="no-such-user", timeout=_SOON_S))
    except (SandboxError, NotImplementedError):
        return
    expect(ran.exit_code != 0, f"user='no-such-user' ran as somebody: {ran.stdout!r}")


@check("session", cost="one session's slow command stops the heartbeats of all others")
async def the_event_loop_stays_free(subject: Subject) -> None:
    """The event loop is not blocked while a command runs."""
    await subject.session()  # Keep importing and connecting out of the measurement.
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + 0.05
            await asyncio.sleep(0.05)
            longest = max(longest, loop.time() - due)

    watching = asyncio.ensure_future(watch())
    try:
        await subject.sh("sleep 3; head -c 1000000 /dev/zero", timeout=_LONG_S)
    finally:
        watching.cancel()
    expect(longest < 1.5, f"the event loop stood still for {longest:.1f} s of a 3 s command")
