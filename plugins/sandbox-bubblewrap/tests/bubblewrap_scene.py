"""Host resources that a sandbox must not reach, and a laboratory in which each attempt succeeds.

The same scene is set up on the host, whose sandboxes are attacked, and in the laboratory. There an
attempt runs as root with all capabilities, in its own namespaces and on a copy of the file system.
If an attempt did not succeed there, its failure in a sandbox would prove nothing.

Run as a script, this is the first process of the laboratory.
"""

from __future__ import annotations

import ctypes
import json
import os
import secrets
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

MARK = "ESCAPED"
"""What an attempt prints when it has succeeded."""

SECRET = "secret-of-the-host"

_IPC_CREAT, _IPC_RMID = 0o1000, 0
_LAB_S = 60

# A copy of the file system in memory, whose changes nobody sees.
_LAB = """\
set -e
mount -t tmpfs -o size=64m lab "$1"
cd "$1"
mkdir upper work root
mount -t overlay overlay -o lowerdir=/,upperdir=upper,workdir=work root
mount -t proc proc root/proc
mount --rbind /dev root/dev
mount --rbind /sys root/sys
mount -t tmpfs -o size=64m shm root/dev/shm
ip link set lo up 2>/dev/null || ifconfig lo up 2>/dev/null || true
shift
# Not chroot: who is in one may make no user namespace.
mkdir root/lab-old
cd root
pivot_root . lab-old
exec "$@"
"""


@contextmanager
def scene(directory: Path) -> Iterator[dict[str, str]]:
    """Set up what is to be attacked, and yield the environment that says where it is."""
    with ExitStack() as stack:
        secret = directory / "secret"
        secret.write_text(SECRET, encoding="utf-8")
        secret.chmod(0o644)
        name = f"bubblewrap-tests-{secrets.token_hex(4)}"
        shm = Path("/dev/shm", name)
        shm.write_text(SECRET, encoding="utf-8")
        stack.callback(shm.unlink)
        key, segment = _shared_memory()
        stack.callback(ctypes.CDLL(None).shmctl, segment, _IPC_RMID, None)
        victim = subprocess.Popen(["sleep", "600"], env={"VICTIM": SECRET})
        stack.callback(victim.wait)
        stack.callback(victim.kill)
        tcp = stack.enter_context(socket.create_server(("0.0.0.0", 0)))
        path = stack.enter_context(socket.socket(socket.AF_UNIX))
        path.bind(str(directory / "socket"))
        (directory / "socket").chmod(0o666)
        abstract = stack.enter_context(socket.socket(socket.AF_UNIX))
        abstract.bind(f"\0{name}")
        for listener in (tcp, path, abstract):
            listener.listen()
            threading.Thread(target=_tell, args=[listener], daemon=True).start()
        yield {
            "SECRET_FILE": str(secret),
            "HOST_FOLDER": str(directory),
            "VICTIM_PID": str(victim.pid),
            "TCP_PORT": str(tcp.getsockname()[1]),
            "TCP_ADDRESSES": " ".join(["127.0.0.1", *_addresses()]),
            "SOCKET_PATH": str(directory / "socket"),
            "ABSTRACT_NAME": name,
            "SHM_NAME": name,
            "SHM_KEY": str(key),
        }


def run_in_laboratory(script: Sequence[str], directory: Path) -> str:
    """Return the output of an attempt where nothing holds it; it takes root."""
    lab = directory / "lab"
    lab.mkdir(exist_ok=True)
    done = subprocess.run(
        [
            *("unshare", "--mount", "--pid", "--fork", "--ipc", "--uts", "--net"),
            *("--propagation", "private", "--kill-child"),
            *("sh", "-c", _LAB, "sh", str(lab), sys.executable, __file__, str(directory), *script),
        ],
        capture_output=True,
        check=False,
        env={"PATH": os.environ["PATH"], "WORKER_SECRET": "token-of-the-worker"},
        text=True,
        timeout=_LAB_S,
    )
    return done.stdout + done.stderr


def _shared_memory() -> tuple[int, int]:
    libc = ctypes.CDLL(None)
    libc.shmat.restype = ctypes.c_void_p
    key = secrets.randbelow(2**30) + 1
    segment = libc.shmget(key, 4096, _IPC_CREAT | 0o666)
    address = libc.shmat(segment, None, 0)
    ctypes.memmove(address, SECRET.encode(), len(SECRET))
    libc.shmdt(ctypes.c_void_p(address))
    return key, segment


def _addresses() -> list[str]:
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(socket.gethostname(), None, 2)}
    except OSError:
        return []
    return sorted(found)


def _tell(listener: socket.socket) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            connection.sendall(SECRET.encode())


def _main() -> None:
    directory, script = Path(sys.argv[1]), sys.argv[2:]
    # Something that an attempt could inherit.
    os.dup2(os.open(directory / "secret", os.O_RDONLY | os.O_CREAT), 9)
    with scene(directory) as env:
        done = subprocess.run(
            script, env={**os.environ, **env}, cwd="/tmp", check=False, pass_fds=[9]
        )
    print(json.dumps({"code": done.returncode}))  # noqa: T201 - the result


if __name__ == "__main__":
    _main()
