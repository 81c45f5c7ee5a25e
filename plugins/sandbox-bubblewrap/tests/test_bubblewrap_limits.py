"""What enforces a sandbox's limits, and the system calls that it denies."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from bubblewrap_scene import run_in_laboratory
from bubblewrap_worker import Refused, Worker

from sandbox_bubblewrap import BubblewrapSandboxClientOptions, limits, seccomp
from sandbox_bubblewrap.client import BubblewrapSandboxClient
from sandbox_bubblewrap.models import BubblewrapSandboxSessionState

pytest_plugins = ["bubblewrap_fixtures"]

pytestmark = pytest.mark.xdist_group("bubblewrap")

# Makes each call with arguments that no kernel accepts, and prints the errors by name.
_PROBE = """
import ctypes, json, os, sys
libc = ctypes.CDLL(None, use_errno=True)
said = {}
for name, number in json.loads(sys.argv[1]).items():
    ctypes.set_errno(0)
    pid = os.fork()
    if not pid:
        libc.syscall(number, -1, -1, -1, -1, -1, -1)
        os._exit(ctypes.get_errno())
    said[name] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
print(json.dumps(said))
"""
_EPERM, _ENOSYS = 1, 38


def _calls() -> dict[str, int]:
    column = {"x86_64": 0, "aarch64": 1}[os.uname().machine]
    calls = {
        name: number if isinstance(number, int) else number[column]
        for name, number in {**seccomp._DENIED, "chroot": seccomp._CHROOT}.items()
    }
    # With these arguments it would hang up the terminal of whoever runs the tests.
    return {name: n for name, n in calls.items() if n is not None and name != "vhangup"}


def _strict_worker(worker: Worker) -> dict[str, str]:
    opened = worker.ask("open")
    found = opened["limits"]
    worker.ask("delete", id=opened["id"])
    assert isinstance(found, dict)
    return found


class TestSystemCalls:
    def test_none_of_the_list_is_made_in_a_sandbox(self, worker: Worker) -> None:
        """Whatever its arguments are."""
        opened = worker.ask("open")
        command = ["python3", "-I", "-c", _PROBE, json.dumps(_calls())]
        said = json.loads(worker.ask("exec", id=opened["id"], command=command)["out"])

        assert set(said) == {*seccomp.DENIED} - {
            name for name, number in seccomp._DENIED.items() if number == (None, None)
        } - {"vhangup"}
        assert {_EPERM} == set(said.values())

    def test_root_can_make_most_of_them_in_the_laboratory(self, tmp_path: Path) -> None:
        """Those that are not have no code in this kernel, or would need an older one."""
        if os.geteuid() != 0:
            pytest.skip("the laboratory takes root")
        command = ["python3", "-I", "-c", _PROBE, json.dumps(_calls())]
        said = json.loads(run_in_laboratory(command, tmp_path).splitlines()[0])
        refused = {name for name, error in said.items() if error == _EPERM}
        absent = {name for name, error in said.items() if error == _ENOSYS}

        assert refused <= {"syslog", "kexec_load", "kexec_file_load"}
        assert len(said) - len(absent) > 40

    def test_what_programs_need_is_allowed(self, worker: Worker) -> None:
        """Threads, pipes, sockets, locks, memory files, timers, inotify."""
        script = """
import fcntl, mmap, multiprocessing, os, select, signal, socket, subprocess, tempfile, threading
threading.Thread(target=print).start()
multiprocessing.get_context("spawn").Lock()
socket.socketpair()[0].close()
server = socket.create_server(("127.0.0.1", 0))
socket.create_connection(server.getsockname())
socket.socket(socket.AF_INET6).close()
socket.if_nameindex()
subprocess.run(["true"], check=True)
memory = os.memfd_create("x")
os.ftruncate(memory, 4096)
mmap.mmap(memory, 4096)
with tempfile.TemporaryFile() as file:
    fcntl.flock(file, fcntl.LOCK_EX)
select.epoll()
signal.setitimer(signal.ITIMER_REAL, 10)
os.getrandom(4)
print("fine")
"""
        opened = worker.ask("open")
        result = worker.ask("exec", id=opened["id"], command=["python3", "-I", "-c", script])

        assert ("", "fine") == (result["err"], result["out"].strip())

    def test_another_machine_has_its_own_list(self) -> None:
        """One without a list is an error, not a sandbox without a filter."""
        assert seccomp.program("x86_64") != seccomp.program("aarch64")
        with pytest.raises(seccomp.UnsupportedArchitecture, match="'riscv64'"):
            seccomp.program("riscv64")


class TestLimits:
    async def test_the_state_says_what_holds_them(self, client: BubblewrapSandboxClient) -> None:
        options = BubblewrapSandboxClientOptions(cpus=0.5, cpu_seconds=60)
        session = await client.create(options=options)
        state = session.state
        assert isinstance(state, BubblewrapSandboxSessionState)
        kept_by = state.limits

        assert {"memory", "processes", "cpus", "cpu_seconds", "file_size", "open_files"} == set(
            kept_by
        )
        assert set(kept_by.values()) <= {"cgroup v1", "cgroup v2", "prlimit", "nothing"}
        assert "prlimit" == kept_by["file_size"]

    async def test_none_is_no_limit(self, client: BubblewrapSandboxClient) -> None:
        options = BubblewrapSandboxClientOptions(memory_mb=None, processes=None, file_size_mb=None)
        session = await client.create(options=options)
        state = session.state
        assert isinstance(state, BubblewrapSandboxSessionState)
        await session.start()
        shown = (await session.exec("ulimit -f; ulimit -d")).stdout.decode()

        assert {"open_files"} == set(state.limits)
        assert ["unlimited", "unlimited"] == shown.split()

    def test_a_worker_without_control_groups_limits_each_process(self, worker: Worker) -> None:
        """And refuses what is `strict`, with what to do; nothing is left of it."""
        found = _strict_worker(worker)
        if "prlimit" not in (found["memory"], found["processes"]):
            pytest.skip("this worker may make control groups")

        before = set((worker.home / "store").iterdir())
        with pytest.raises(Refused, match=r"LimitNotKept.*SANDBOX_BUBBLEWRAP_CGROUP"):
            worker.ask("open", options={"strict": True})
        assert before == set((worker.home / "store").iterdir())

    def test_cpus_are_shared_out(self, worker: Worker) -> None:
        """A quarter of one for as many processes as there are."""
        opened = worker.ask("open", options={"cpus": 0.25})
        if "cgroup" not in opened["limits"]["cpus"]:
            pytest.skip("this worker may make no control groups")
        script = """
import os, time
children = []
for _ in range(4):
    pid = os.fork()
    if not pid:
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            pass
        os._exit(0)
    children.append(pid)
print(sum(sum(os.wait4(pid, 0)[2][:2]) for pid in children))
"""
        result = worker.ask("exec", id=opened["id"], command=["python3", "-c", script])

        assert float(result["out"]) < 0.25 * 1.5 * 2

    def test_the_memory_of_a_sandbox_that_took_too_much_is_free_again(self, worker: Worker) -> None:
        """The command is killed or told, and the sandbox goes on."""
        opened = worker.ask("open", options={"memory_mb": 200})
        took = worker.ask(
            "exec", id=opened["id"], command=["python3", "-c", "x = b'x' * 2**29; print(len(x))"]
        )
        fits = worker.ask(
            "exec", id=opened["id"], command=["python3", "-c", "x = b'x' * 2**26; print(len(x))"]
        )

        assert ("", str(2**26)) == (took["out"], fits["out"].strip())


class TestControlGroups:
    """Where they would be made, by files as the kernel shows them."""

    def test_a_group_of_version_2_is_made_beside_the_workers(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """In a delegated folder that the variable names; the kernel's files are not there."""
        (tmp_path / "cgroup.subtree_control").write_text("memory pids\n")
        monkeypatch.setenv(limits.VARIABLE, str(tmp_path))

        assert (tmp_path, 2) == limits._parents("memory")[0]
        assert (tmp_path, 2) not in limits._parents("cpu")

    def test_a_group_that_cannot_be_written_is_none(self, tmp_path: Path) -> None:
        """And is not left."""
        group = tmp_path / "group"
        monkey = {"missing/memory.max": "1"}

        assert not limits._make(group, monkey)
        assert not group.exists()
