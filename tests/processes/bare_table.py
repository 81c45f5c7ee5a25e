"""Commands to run with the backend's own call and under the helper.

``{word}`` is a word that no other process of the machine has in its command line.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Row:
    """One command, and where its outcome is known to be another one, with the reason."""

    words: tuple[str, ...]
    shell: bool | tuple[str, ...] = True
    differs: dict[str, str] | None = None


def sh(script: str, **differs: str) -> Row:
    return Row(words=(script,), differs=differs)


def direct(*words: str, **differs: str) -> Row:
    return Row(words=words, shell=False, differs=differs)


NOT_TEXT = "its own call replaces what is not text"
MARKED = "its own call puts a mark of its own into the environment, to end the command by it"

ROWS: dict[str, Row] = {
    # What agents do most of all.
    "nothing": sh("true"),
    "both streams": sh("echo out; echo err >&2"),
    "only stderr": sh("echo err >&2"),
    "several lines": sh("set -e\necho one\nif true; then\n  echo two\nfi\n"),
    "here-document": sh("cat <<'END'\n$HOME `x`\nEND"),
    "pipeline": sh("printf 'b\\na\\n' | sort | head -1"),
    "stops a server that is not there": sh("pkill -f '{word} --port 5173' || true; echo on"),
    "stops what it finds": sh("kill $(pgrep -f '{word}'); echo on"),
    "counts what it finds": sh("pgrep -fc '{word}'"),
    "greps the process list": sh("ps -eo args | grep -c '{wor[d]}'"),
    "kills by exact name": sh("pkill -x {word}; echo $?"),
    "starts a server": sh("sleep 0.2 >/dev/null 2>&1 & echo started"),
    "nohup": sh("nohup sleep 0.2 >/dev/null 2>&1 & echo started"),
    "setsid": sh("setsid sleep 0.2 >/dev/null 2>&1 & echo started"),
    "a daemon that keeps the streams": sh("(setsid sh -c 'sleep 0.3; echo late' &); echo early"),
    "in the background": sh("(sleep 0.2; echo late) & echo early"),
    "waits for the background": sh("sleep 0.1 & wait; echo done"),
    "a list of which the first is in the background": sh("true & pwd | wc -l"),
    # Signals and process groups.
    "kill 0": sh("echo a; kill 0; sleep 1; echo b"),
    "kill 0 at exit": sh("trap 'kill 0' EXIT; echo body"),
    "kill 0, ignored": sh("trap '' TERM; kill 0; echo on"),
    "kills its group": sh("echo a; kill -- -$$; sleep 1; echo b"),
    "kills its group by python": direct("python3", "-c", "import os; os.killpg(0, 15)"),
    "leads its session": sh(
        "read -r line </proc/$$/stat; set -- ${line##*) }; [ $3 = $4 ] && echo $?"
    ),
    "leads its group": sh("read -r line </proc/$$/stat; set -- ${line##*) }; [ $3 = $$ ]; echo $?"),
    "has no terminal": sh("read -r line </proc/$$/stat; set -- ${line##*) }; echo $5"),
    "handles a signal": sh("trap 'echo got' TERM; kill $$; echo after"),
    "SIGKILL": sh("kill -9 $$"),
    "SIGTERM": sh("echo out; kill -TERM $$"),
    "SIGINT": sh("kill -INT $$"),
    "SIGINT, no shell": direct(
        "python3", "-c", "import os, signal; signal.signal(2, 0); os.kill(os.getpid(), 2)"
    ),
    "SIGPIPE": sh("kill -PIPE $$"),
    "SIGPIPE in a pipeline": sh("(yes; echo $? >&2) | head -1"),
    "SIGHUP": sh("kill -HUP $$"),
    "SIGUSR1": sh("kill -USR1 $$"),
    "SIGALRM": sh("kill -ALRM $$"),
    "SIGSEGV": sh("ulimit -c 0; kill -SEGV $$"),
    "a child is killed": sh("sh -c 'kill -9 $$'; exit $?"),
    "signals that are ignored": direct("grep", "SigIgn", "/proc/self/status"),
    "signals that are blocked": direct("grep", "SigBlk", "/proc/self/status"),
    # Exit codes.
    "failure": sh("echo out; echo err >&2; exit 7"),
    "code 1": sh("false"),
    "code 126": sh("printf x > f; ./f"),
    "code 127": sh("no-such-program"),
    "code 128": sh("exit 128"),
    "code 137": sh("exit 137"),
    "code 255": sh("exit 255"),
    "syntax error": sh("("),
    "nothing at all": sh(""),
    "a space": sh(" "),
    "a comment": sh("# nothing"),
    "exec": sh("exec echo replaced"),
    # Without a shell.
    "true without a shell": direct("true"),
    "words without a shell": direct("printf", "%s|", "a b", "$HOME", "'", '"', "\n", "*", ""),
    "options without a shell": direct("printf", "%s|", "--", "-n", "=", "=a"),
    "a builtin that is a program too": direct("echo", "-e", "a\\nb"),
    "a builtin that is none": direct("cd", "/"),
    "exit is no program": direct("exit", "3"),
    "no such program": direct("no-such-program", "x"),
    "a folder is no program": direct("/"),
    "an empty program": direct(""),
    "a program that may not be executed": direct("/etc/passwd"),
    "a script without a first line": direct("./bare-script"),
    "a script with one": direct("./shebang-script", "x"),
    "a shell without a shell": direct("sh", "-c", "echo $0 $1", "zero", "one"),
    "a long word": direct("printf", "%s", "x" * 60_000),
    "many words": direct("printf", "%s", *("word" for _ in range(2_000))),
    "a shell of one's own": Row(words=("echo ${BASH_VERSION:+bash}",), shell=("bash", "-c")),
    "a login shell of one's own": Row(
        words=("shopt -q login_shell; echo $?",), shell=("bash", "-lc")
    ),
    "several words for a shell": Row(words=("printf", "%s|", "a b", "$HOME", "'", "*")),
    # What a command inherits.
    "environment": sh("env | sort", docker=MARKED),
    "environment, as the kernel has it": sh("tr '\\0' '\\n' </proc/self/environ | sort"),
    "environment without a shell": direct("env", docker=MARKED),
    "a variable with a name of the helper's": sh("echo $mode $timeout $root $key $verb $dir"),
    "a variable that is no name of a shell's": direct("printenv", "with.dot", "with-dash"),
    "HOME": sh("echo $HOME"),
    "PWD and OLDPWD": sh("echo $PWD $OLDPWD"),
    "SHLVL": Row(words=("echo $SHLVL",), shell=("bash", "-c")),
    "working directory": sh("pwd; pwd -P"),
    "working directory without a shell": direct("pwd"),
    "another directory": sh("cd /; pwd"),
    "descriptors": direct("ls", "/proc/self/fd"),
    "stdin is empty": sh("cat; read -r x; echo $?"),
    "stdin is /dev/null": sh("readlink /proc/self/fd/0"),
    "stdout is a pipe": sh("readlink /proc/self/fd/1 | cut -d: -f1"),
    "no terminal": sh("tty; for n in 0 1 2; do [ -t $n ]; echo $?; done"),
    "umask": sh("umask; touch made; stat -c %a made"),
    "limits": sh("cat /proc/self/limits"),
    "limits of the shell": sh("ulimit -a"),
    "nice value": sh("nice"),
    "readiness to be killed": sh("cat /proc/self/oom_score_adj"),
    "user": sh("id"),
    "capabilities": sh("grep -E 'Cap|NoNewPrivs|Seccomp' /proc/self/status"),
    "command line": sh("tr '\\0' ' ' </proc/$$/cmdline"),
    "name": sh("cat /proc/$$/comm"),
    "parent": sh(
        "cat /proc/$PPID/comm",
        local="the parent is the helper's keeper, not the worker",
        docker="the parent is the helper's keeper, not the engine's",
        daytona="the parent is the helper's keeper, not a shell",
    ),
    # Output.
    "no newline at the end": sh("printf abc"),
    "only newlines": sh("printf '\\n\\n\\n'"),
    "spaces": sh("printf '  a  \\n  b  \\n\\n  '"),
    "utf-8": sh("printf '\\303\\244\\342\\202\\254'"),
    "controls": sh("printf 'a\\tb\\r\\n\\033[0m'"),
    "bytes that are no text": sh(
        "printf '\\000\\001\\377\\376'; printf '\\200\\000' >&2", daytona=NOT_TEXT
    ),
    "many lines": sh("seq 1 20000"),
    "much at both streams": sh("seq 1 20000 >&2; seq 1 20000"),
    "what looks like an answer": sh("echo '0123456789abcdef exited code=3 out=raw:3'; echo end"),
    "closed stdout": sh("exec >&-; echo x"),
    "closed stderr": sh("exec 2>&-; ls /no-such-file; echo $?"),
    "closed stdin": sh("exec <&-; cat; echo $?"),
    "reopened stdout": sh("echo a; echo bcd >/dev/stdout; echo e"),
    "truncated stdout": sh("echo abcdef; : >/dev/stdout; echo x"),
    "stdout by its path": sh("echo a >/proc/self/fd/1"),
    "output after the end": sh("(sleep 0.2; echo late >&2) & echo early"),
}
