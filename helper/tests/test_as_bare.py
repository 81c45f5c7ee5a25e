"""A command under the helper and its result equal those of a plain call, even if it cannot run."""

from __future__ import annotations

import pytest
from driver import Fields, Helper
from scene import (
    EMULATOR,
    ENVIRONMENT,
    Ask,
    bare,
    is_emulated,
    shell,
)

pytest_plugins = ["helper_fixtures"]


AS_BARE = {
    "nothing": "true",
    "both streams": "echo out; echo err >&2",
    "a code": "exit 7",
    "the largest code": "exit 255",
    "killed": "kill -9 $$",
    "terminated": "echo out; kill -TERM $$",
    "interrupted": "kill -INT $$",
    "a broken pipe": "kill -PIPE $$",
    "a crash": "ulimit -c 0; kill -SEGV $$",
    "a realtime signal": "kill -40 $$",
    "binary": "printf '\\000\\001\\377\\376\\r\\n'; printf '\\200' >&2",
    "text": "printf 'h\\303\\244\\342\\202\\254\\t\\n'",
    "overlong and surrogates": "printf '\\300\\200\\355\\240\\200\\302\\205'",
    "no newline": "printf abc",
    "only newlines": "printf '\\n\\n\\n'",
    "stdin": "cat; ls -l /proc/self/fd/0 | sed 's/.*->//'",
    "descriptors": "ls /proc/self/fd",
    "environment": "env | sort",
    "the whole environment": "tr '\\0' '\\n' </proc/self/environ | sort",
    "working directory": "pwd; echo $PWD $OLDPWD",
    "umask": "umask",
    "limits": "ulimit -a; ulimit -H -a",
    "signals": "grep Sig[IB] /proc/self/status",
    "session": "set -- $(cat /proc/$$/stat); [ $1 = $5 ] && [ $1 = $6 ] && echo leader $7",
    "niceness": "nice; cat /proc/self/oom_score_adj",
    "privileges": "grep -E 'NoNewPrivs|Cap|Groups|Seccomp' /proc/self/status",
    "background": "(sleep 0.2; echo late) & echo early",
    "a session of its own": "setsid sh -c 'sleep 0.2; echo late' & echo early",
    "reopened output": "echo a; echo b >/dev/stdout; echo c",
    "kill 0": "trap 'echo body; exit 3' TERM; kill 0",
    "kill 0 on exit": "trap 'kill 0' EXIT; echo body",
    "kill its group": "echo body; kill -- -$$",
    "pkill nobody": "pkill -f 'no-such-[p]attern --port 5173'; echo $?",
    "pgrep itself": "pgrep -f 'unmistakable-[w]ord' | wc -l",
    "a missing program": "no-such-program",
    "a syntax error": "(",
    "wait": "sleep 0.1 & wait; echo $?",
    "many lines": "seq 1 20000",
    "a stopped child": "sh -c 'kill -STOP $$' & until grep -q stopped /proc/$!/status; do :; done; "
    "kill -CONT $!; wait; echo $?",
    "dumpable": "stat -c %u /proc/self/environ; cat /proc/self/timerslack_ns",
    "not a sub-reaper": "(sleep 0.1 & echo) ; sleep 0.2; ps -o stat= --ppid $$ | grep -c Z",
}


class TestAsBare:
    """A command cannot tell, and its result does not."""

    @pytest.mark.parametrize("script", AS_BARE.values(), ids=AS_BARE)
    def test_it_is_the_same(self, helper: Helper, ask: Ask, script: str) -> None:
        if EMULATOR and "-40" in script:
            pytest.skip("qemu has other realtime signals")
        plain = bare(script, helper.folder.parent)

        answer = ask("run", shell(script))

        code = -int(answer["signal"]) if "signal" in answer else int(answer["code"])
        assert (plain.returncode, plain.stdout, plain.stderr) == (
            code,
            answer["out"],
            answer["err"],
        )

    @pytest.mark.parametrize("script", ["exit 7", "kill -9 $$", "kill -TERM $$", "kill -40 $$"])
    def test_a_client_that_mimics_exits_as_the_command_did(
        self, helper: Helper, script: str
    ) -> None:
        done, _ = helper.exec_raw("run", shell(script, mimic=1))

        assert bare(script, helper.folder.parent).returncode == done.returncode

    @is_emulated
    def test_the_helpers_processes_show_only_a_neutral_name(self, helper: Helper) -> None:
        answer = helper.exec(
            "run",
            shell(
                "tr '\\0' ' ' </proc/$PPID/cmdline; cat /proc/$PPID/comm; cat /proc/$PPID/environ"
            ),
            env={**ENVIRONMENT, "SECRET": "sesame"},
        )

        assert b"sbxsbx" == answer["out"].translate(None, b" \0\n")

    @is_emulated
    def test_signals_to_its_parent_are_ignored(self, ask: Ask) -> None:
        script = (
            "for s in $(seq 1 64); do case $s in 9|19) ;; *) kill -$s $PPID;; esac; done; echo on"
        )

        answer = ask("run", shell(script))

        assert (b"exited", b"on\n") == (answer["word"], answer["out"])

    def test_a_command_that_outlives_its_client_goes_on(self, helper: Helper) -> None:
        first = helper.ask("run", shell("sleep 0.3; echo done", key="slow", wait=10))
        again = helper.ask("run", shell("echo another", key="slow"))

        assert (b"running", b"done\n") == (first["word"], again["out"])


class TestNotRun:
    """What cannot be started has not run, and its key is as new."""

    @pytest.mark.parametrize(
        ("arg", "cwd", "why", "errno"),
        [
            (["no-such-program"], "/", b"missing", b"2"),
            (["/no/such/program"], "/", b"missing", b"2"),
            ([""], "/", b"missing", b"2"),
            (["/etc/passwd"], "/", b"denied", b"13"),
            (["/etc"], "/", b"denied", b"13"),
            (["true"], "/no/such/folder", b"nocwd", b"2"),
            (["./garbage"], None, b"exec", b"8"),
            (["true", "x" * 200_000], "/", b"exec", b"7"),
        ],
    )
    @pytest.mark.parametrize("verb", ["run", "start"])
    def test_it_says_why(
        self, helper: Helper, verb: str, arg: list[str], cwd: str | None, why: bytes, errno: bytes
    ) -> None:
        garbage = helper.folder.parent / "garbage"
        garbage.write_bytes(b"\x00garbage")
        garbage.chmod(0o755)
        fields: Fields = {"key": "k", "arg": arg, "cwd": cwd or str(garbage.parent)}

        answer = helper.ask(verb, fields)

        assert {"word": b"notrun", "why": why, "errno": errno} == answer
        assert b"exited" == helper.ask("run", shell("true", key="k"))["word"]

    def test_a_context_that_is_unknown_is_asked_for(self, helper: Helper) -> None:
        request = shell("echo $X; pwd; umask", context="c1")

        unknown = helper.ask("run", request)
        helper.exec("context", {"id": "c1"}, env={"X": "of the context"}, cwd="/usr")
        known = helper.ask("run", request)
        other = helper.ask("run", shell("echo $X; pwd", context="c1", cwd="/", env="X=own"))

        assert b"unknown-context" == unknown["word"]
        assert b"of the context\n/usr\n0022\n" == known["out"]
        assert b"own\n/\n" == other["out"]

    def test_only_so_many_contexts_are_kept(self, helper: Helper) -> None:
        for n in range(70):
            helper.ask("context", {"id": f"c{n}", "cwd": "/"})
            helper.ask("run", shell("true", context="c0"))

        assert b"64" == helper.ask("ping")["contexts"]
        assert b"exited" == helper.ask("run", shell("true", context="c0"))["word"]
        assert b"unknown-context" == helper.ask("run", shell("true", context="c1"))["word"]
