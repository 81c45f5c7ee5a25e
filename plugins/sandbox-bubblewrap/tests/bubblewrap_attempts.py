"""Attempts to escape from a sandbox, or to exceed its limits.

Each prints `MARK` if it succeeds, whoever runs it; the environment says where the host's things are
(see `bubblewrap_scene.scene`). An attempt without a reason in `uncontrolled` succeeds in the
laboratory, which proves that the check would notice.
"""

# ruff: noqa: E501 - a table, many of whose lines are scripts

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One attempt, as a shell or Python script."""

    name: str
    script: str
    python: bool = False
    options: Mapping[str, object] = field(default_factory=dict)
    """Of the sandbox, beside the defaults."""
    takes: str | None = None
    """A limit that has to hold for the whole sandbox: without it the attempt would be real."""
    uncontrolled: str | None = None
    """Why it is not run in the laboratory."""

    machine_may_lack_it: bool = False
    """Whether there are machines without what is attacked, or whose root may not do it either."""

    @property
    def command(self) -> list[str]:
        program = ["python3", "-I", "-c"] if self.python else ["sh", "-c"]
        return [*program, textwrap.dedent(self.script)]


def _sh(name: str, script: str, **fields: object) -> Attempt:
    return Attempt(name=name, script=script, **fields)  # type: ignore[arg-type]  # passed on


_C = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def told(result):
    if result != -1:
        print("ESCAPED")
    else:
        print(os.strerror(ctypes.get_errno()))
"""


def _py(name: str, script: str, **fields: object) -> Attempt:
    return Attempt(name=name, script=_C + textwrap.dedent(script), python=True, **fields)  # type: ignore[arg-type]  # passed on


_TOLD = "grep -q secret-of-the-host && echo ESCAPED"

FILES = (
    _sh("read the shadow file", "grep -q root: /etc/shadow && echo ESCAPED"),
    _sh("read the users of the host", "grep -q ^daemon: /etc/passwd && echo ESCAPED"),
    _sh("read a file of the host's /tmp", f'cat "$SECRET_FILE" | {_TOLD}'),
    _sh("list a folder of the host", 'ls "$HOST_FOLDER"/* && echo ESCAPED'),
    _sh("read logs and state of the host", "[ -e /var/log ] || [ -e /var/lib ] && echo ESCAPED"),
    _sh("read through a symbolic link", f'ln -s "$SECRET_FILE" link; cat link | {_TOLD}'),
    _sh("read through a hard link", f'ln "$SECRET_FILE" link && cat link | {_TOLD}'),
    _sh("read through process 1's root", f'cat "/proc/1/root$SECRET_FILE" | {_TOLD}'),
    _sh("climb above the root", f'cat "../../../../../..$SECRET_FILE" | {_TOLD}'),
    _sh("change a program", ": >> /usr/bin/env && echo ESCAPED"),
    _sh("add a program", ": > /usr/bin/added && echo ESCAPED"),
    _sh("change the configuration", ": > /etc/added && echo ESCAPED"),
    _sh("change the list of users", "echo x:0 >> /etc/passwd && echo ESCAPED"),
    _sh("make a folder in the root", "mkdir /added && echo ESCAPED"),
    _sh(
        "write anywhere but in the workspace, /tmp and /dev/shm",
        """
        find / \\( -path /proc -o -path /workspace -o -path /tmp -o -path /dev/shm -o -path /work \\
            -o -path '/dev/*' \\) -prune -o \\( -type d -o -type f \\) -writable -print 2>/dev/null |
            grep -q . && echo ESCAPED
        """,
    ),
    _sh(
        "inherit a descriptor",
        "ls -l /proc/self/fd | grep -v ' [0-3] ->' | grep -q -- '->' && echo ESCAPED",
    ),
    _sh(
        "find set-user-id programs that work",
        "grep -v nosuid /proc/self/mounts | grep -qv '^proc /proc ' && echo ESCAPED",
    ),
)

PROCESSES = (
    _sh("see processes of the host", '[ -d "/proc/$VICTIM_PID" ] && echo ESCAPED'),
    _sh("kill a process of the host", 'kill -9 "$VICTIM_PID" && echo ESCAPED'),
    _sh(
        "read the environment of process 1",
        "[ -n \"$(tr '\\0' x < /proc/1/environ)\" ] && echo ESCAPED",
    ),
    _sh(
        "find the worker's secrets in environments",
        "cat /proc/[0-9]*/environ | grep -aq token-of-the-worker && echo ESCAPED",
    ),
    _sh(
        "find the host's secrets in environments",
        "cat /proc/[0-9]*/environ | grep -aq VICTIM= && echo ESCAPED",
    ),
    _sh("see the descriptors of process 1", "ls /proc/1/fd/ | grep -q . && echo ESCAPED"),
    _sh("see the memory map of process 1", "grep -q . /proc/1/maps && echo ESCAPED"),
    _py("write to the memory of process 1", 'os.open("/proc/1/mem", os.O_RDWR); print("ESCAPED")'),
    _py("trace a process", "told(libc.ptrace(0, 0, 0, 0))"),
    _py(
        "read another process's memory by system call",
        """
        class Vector(ctypes.Structure):
            _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]
        buffer = ctypes.create_string_buffer(8)
        vector = Vector(ctypes.addressof(buffer), 8)
        told(libc.process_vm_readv(os.getpid(), ctypes.byref(vector), 1, ctypes.byref(vector), 1, 0))
        """,
    ),
    _py(
        "change the limits of process 1",
        """
        limit = (ctypes.c_uint64 * 2)(1024, 1024)
        told(libc.prlimit64(1, 7, ctypes.byref(limit), None))
        """,
    ),
    _sh(
        "kill process 1",
        "kill -9 1; kill -STOP 1; kill -INT 1; sleep 0.2",
        uncontrolled="no process 1 is killed from inside of its namespace; that a sandbox whose "
        "process 1 is killed from outside is noticed, is tested",
    ),
    _sh(
        "kill everything",
        "kill -9 -1",
        uncontrolled="it would kill the laboratory's own; noticed as the one before",
    ),
    _sh("see what runs process 1", "head -c 4 /proc/1/exe && echo ESCAPED"),
    _sh("take a higher priority", "nice -n -30 sh -c '[ $(nice) -lt 0 ]' && echo ESCAPED"),
    _sh("raise a limit", "ulimit -c 0; ulimit -c 100 && echo ESCAPED", machine_may_lack_it=True),
)

KERNEL = (
    _sh("change a kernel setting", "echo 1 > /proc/sys/net/ipv4/ip_forward && echo ESCAPED"),
    _py(
        "change where cores go",
        'os.open("/proc/sys/kernel/core_pattern", os.O_WRONLY); print("ESCAPED")',
    ),
    _py(
        "reach the magic keys",
        'os.open("/proc/sysrq-trigger", os.O_WRONLY); print("ESCAPED")',
        machine_may_lack_it=True,
    ),
    _sh("see /sys", "[ -e /sys/kernel ] && echo ESCAPED"),
    _sh("see control groups", "[ -e /sys/fs/cgroup ] && echo ESCAPED"),
    _py("read the kernel's log", "told(libc.klogctl(10, None, 0))"),
    _sh("become root", '[ "$(id -u)" = 0 ] && echo ESCAPED'),
    _py("become root by system call", 'os.setuid(0); print("ESCAPED")'),
    _py("join a group", 'os.setgroups([0]); print("ESCAPED")'),
    _sh(
        "have a capability", "grep Cap[EPB] /proc/self/status | grep -q '[1-9a-f]$' && echo ESCAPED"
    ),
    _sh("mount a file system", "mkdir -p /tmp/m && mount -t tmpfs x /tmp/m && echo ESCAPED"),
    _py(
        "mount by system call",
        'os.makedirs("/tmp/m2", exist_ok=True); told(libc.mount(b"x", b"/tmp/m2", b"tmpfs", 0, None))',
    ),
    _py("remount the system for writing", 'told(libc.mount(None, b"/", None, 32 | 4096, None))'),
    _py("bind a folder over the system", 'told(libc.mount(b"/tmp", b"/usr", None, 4096, None))'),
    _py("unmount what protects", 'told(libc.umount2(b"/dev/shm", 2))'),
    _sh("make a user namespace", "unshare --user true && echo ESCAPED"),
    _sh(
        "make a user namespace to mount in",
        "unshare --user --map-root-user --mount mount -t tmpfs x /mnt && echo ESCAPED",
    ),
    _sh("make a network namespace", "unshare --net true && echo ESCAPED"),
    _py(
        "make a namespace by clone",
        """
        pid = libc.syscall({"x86_64": 56, "aarch64": 220}[os.uname().machine], 0x10000000 | 17, 0, 0, 0, 0)
        if pid == 0:
            os._exit(0)
        told(pid)
        """,
    ),
    _py(
        "make a namespace by clone3",
        "told(0 if libc.syscall(435, None, 0) == -1 and ctypes.get_errno() != 38 else -1)",
    ),
    _py("enter a namespace", 'told(libc.setns(os.open("/proc/self/ns/uts", os.O_RDONLY), 0))'),
    _sh("enter process 1's namespaces", "nsenter --target 1 --mount --net true && echo ESCAPED"),
    _py("change the root", 'os.chroot("/tmp"); print("ESCAPED")'),
    _sh(
        "change the host name",
        'hostname pwned && echo ESCAPED || python3 -c \'import socket; socket.sethostname("x"); print("ESCAPED")\'',
    ),
    _sh("make a block device", "mknod /tmp/device b 254 0 && echo ESCAPED"),
    _sh("make a memory device", "mknod /tmp/device2 c 1 1 && echo ESCAPED"),
    _sh(
        "find devices",
        "ls /dev | grep -Eq '^(mem|kmsg|kvm|fuse|port|loop|sd|vd|nvme|hd|rtc|hwrng|input|net)' && echo ESCAPED",
    ),
    _py(
        "make a key",
        'told(libc.syscall({"x86_64": 248, "aarch64": 217}[os.uname().machine], b"user", b"k", b"v", 1, -3))',
    ),
    _py(
        "use a keyring",
        'told(libc.syscall({"x86_64": 250, "aarch64": 219}[os.uname().machine], 0, -3, 1))',
    ),
    _py(
        "open a file by its handle",
        """
        handle = ctypes.create_string_buffer(136)
        ctypes.memmove(handle, (128).to_bytes(4, "little"), 4)
        told(libc.name_to_handle_at(-100, b"/dev/shm", handle, ctypes.byref(ctypes.c_int()), 0))
        """,
    ),
    _py(
        "push input into a terminal",
        'libc.ioctl(0, 0x5412, b"x"); told(-1 if ctypes.get_errno() == 1 else 0)',
    ),
)

NETWORK = (
    _py(
        "connect to the host's ports",
        """
        import socket
        for address in os.environ["TCP_ADDRESSES"].split():
            try:
                with socket.create_connection((address, int(os.environ["TCP_PORT"])), 2) as found:
                    print("ESCAPED" if b"secret" in found.recv(100) else "")
            except OSError as error:
                print(error)
        """,
    ),
    _py(
        "connect to an abstract socket",
        """
        import socket
        found = socket.socket(socket.AF_UNIX)
        found.connect("\\0" + os.environ["ABSTRACT_NAME"])
        print("ESCAPED" if b"secret" in found.recv(100) else "")
        """,
    ),
    _py(
        "connect to a socket file",
        """
        import socket
        found = socket.socket(socket.AF_UNIX)
        found.connect(os.environ["SOCKET_PATH"])
        print("ESCAPED" if b"secret" in found.recv(100) else "")
        """,
    ),
    _py(
        "send raw packets",
        'import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3); print("ESCAPED")',
    ),
    _py(
        "send raw internet packets",
        'import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1); print("ESCAPED")',
    ),
    _py(
        "reach the hypervisor",
        "import socket; socket.socket(40, socket.SOCK_STREAM); print('ESCAPED')",
        machine_may_lack_it=True,
    ),
    _py(
        "use the kernel's ciphers",
        "import socket; socket.socket(38, socket.SOCK_SEQPACKET); print('ESCAPED')",
        machine_may_lack_it=True,
    ),
    _py(
        "reach netlink beyond routes",
        "import socket; socket.socket(16, socket.SOCK_RAW, 15); print('ESCAPED')",
    ),
    _sh("read shared memory files", f'cat "/dev/shm/$SHM_NAME" | {_TOLD}'),
    _py(
        "attach shared memory",
        """
        libc.shmat.restype = ctypes.c_void_p
        segment = libc.shmget(int(os.environ["SHM_KEY"]), 0, 0)
        if segment >= 0:
            print("ESCAPED" if b"secret" in ctypes.string_at(libc.shmat(segment, None, 0), 20) else "")
        """,
    ),
)

RESOURCES = (
    _py(
        "start too many processes",
        """
        import signal, time
        started = []
        try:
            for _ in range(150):
                pid = os.fork()
                if not pid:
                    time.sleep(30)
                    os._exit(0)
                started.append(pid)
            print("ESCAPED")
        except OSError as error:
            print(len(started), error)
        finally:
            for pid in started:
                os.kill(pid, signal.SIGKILL)
        """,
        options={"processes": 64},
        takes="processes",
    ),
    _py(
        "start too many threads",
        """
        import threading
        release = threading.Event()
        try:
            for _ in range(150):
                threading.Thread(target=release.wait, daemon=True).start()
            print("ESCAPED")
        except RuntimeError as error:
            print(error)
        sys.stdout.flush()
        os._exit(0)
        """,
        options={"processes": 64},
        takes="processes",
    ),
    _py(
        "take too much memory",
        """
        taken = []
        for _ in range(40):
            taken.append(bytearray(10 * 1024 * 1024))
            taken[-1][::4096] = b"x" * 2560
        print("ESCAPED")
        """,
        options={"memory_mb": 200},
        takes="memory",
    ),
    _py(
        "take too much memory by several processes",
        """
        children = []
        for _ in range(4):
            reading, writing = os.pipe()
            pid = os.fork()
            if not pid:
                taken = bytearray(100 * 1024 * 1024)
                taken[::4096] = b"x" * 25600
                os.write(writing, b"x")
                import time
                time.sleep(30)
            os.close(writing)
            children.append((pid, reading))
        took = [pid for pid, reading in children if os.read(reading, 1) == b"x"]
        # The kernel may end one after it has taken its memory, to make room for another.
        holding = [pid for pid in took if os.waitpid(pid, os.WNOHANG)[0] == 0]
        for pid in holding:
            os.kill(pid, 9)
        print("ESCAPED" if len(holding) == 4 else holding)
        """,
        options={"memory_mb": 200},
        takes="memory of all",
    ),
    _sh(
        "fill /dev/shm",
        "for n in 1 2 3 4 5; do head -c 8M /dev/zero > /dev/shm/fill$n || break; done; "
        "[ $(cat /dev/shm/fill* | wc -c) -gt 17000000 ] && echo ESCAPED",
        options={"shm_mb": 16},
    ),
    _sh(
        "write too large a file",
        "head -c 20M /dev/zero > large; [ $(wc -c < large) -gt 17000000 ] && echo ESCAPED",
        options={"file_size_mb": 16},
    ),
    _sh(
        "make too large a file without writing it",
        "truncate -s 20M sparse && echo ESCAPED",
        options={"file_size_mb": 16},
    ),
    _py(
        "compute for too long",
        """
        import time
        while time.process_time() < 2.5:
            pass
        print("ESCAPED")
        """,
        options={"cpu_seconds": 1},
    ),
    _py(
        "open too many files",
        'opened = [os.open("/", os.O_RDONLY) for _ in range(200)]; print("ESCAPED")',
        options={"open_files": 64},
    ),
    _sh("leave a core", "ulimit -Hc | grep -q unlimited && echo ESCAPED"),
)

ATTEMPTS = (*FILES, *PROCESSES, *KERNEL, *NETWORK, *RESOURCES)
