"""Builds the seccomp filter for bubblewrap: a BPF program that denies system calls in a sandbox.

Ordinary calls are allowed. Calls that reach rarely used parts of the kernel, other processes or new
namespaces are denied. The list follows those of Docker and Flatpak.
"""

from __future__ import annotations

import platform
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from errno import EAFNOSUPPORT, ENOSYS, EPERM
from typing import Final

_LD, _JEQ, _JGE, _JSET, _RET = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000

_UNKNOWN: Final = 468
"""The first number unused by Linux when the list was made; x32's calls are above it too."""

_NEW_NAMESPACES: Final = 0x7E020080
"""Every CLONE_NEW* flag: cgroup, ipc, net, ns, pid, time, user and uts."""

_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C

_SOCKETS: Final = {1: None, 2: None, 10: None, 16: (0,)}
"""The allowed socket families and their protocols: unix, inet, inet6, netlink (route)."""

# name: (x86-64, arm64), or one number for both: the calls since Linux 5.1.
_DENIED: Final[dict[str, tuple[int | None, int | None] | int]] = {
    "_sysctl": (156, None),
    "acct": (163, 89),
    "add_key": (248, 217),
    "adjtimex": (159, 171),
    "bpf": (321, 280),
    "clock_adjtime": (305, 266),
    "clock_settime": (227, 112),
    "create_module": (174, None),
    "delete_module": (176, 106),
    "fanotify_init": (300, 262),
    "finit_module": (313, 273),
    "fsconfig": 431,
    "fsmount": 432,
    "fsopen": 430,
    "fspick": 433,
    "get_kernel_syms": (177, None),
    "init_module": (175, 105),
    "io_uring_enter": 426,
    "io_uring_register": 427,
    "io_uring_setup": 425,
    "ioperm": (173, None),
    "iopl": (172, None),
    "kcmp": (312, 272),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "lookup_dcookie": (212, 18),
    "modify_ldt": (154, None),
    "mount": (165, 40),
    "mount_setattr": 442,
    "move_mount": 429,
    "name_to_handle_at": (303, 264),
    "nfsservctl": (180, 42),
    "open_by_handle_at": (304, 265),
    "open_tree": 428,
    "open_tree_attr": 467,
    "perf_event_open": (298, 241),
    "pidfd_getfd": 438,
    "pivot_root": (155, 41),
    "process_madvise": 440,
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "query_module": (178, None),
    "quotactl": (179, 60),
    "quotactl_fd": 443,
    "reboot": (169, 142),
    "request_key": (249, 218),
    "setdomainname": (171, 162),
    "sethostname": (170, 161),
    "setns": (308, 268),
    "settimeofday": (164, 170),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "syslog": (103, 116),
    "umount2": (166, 39),
    "uselib": (134, None),
    "userfaultfd": (323, 282),
    "ustat": (136, None),
    "vhangup": (153, 58),
}
_CHROOT = (161, 51)
_UNSHARE = (272, 97)
_CLONE = (56, 220)
_CLONE3 = 435
_IOCTL = (16, 29)
_SOCKET = (41, 198)
_SOCKETPAIR = (53, 199)
_PRLIMIT = (302, 261)

_ARCHITECTURES: Final = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}

DENIED: Final = frozenset({*_DENIED, "chroot"})
"""The names of the calls that fail regardless of their arguments."""


class UnsupportedArchitecture(Exception):
    """There is no list of system calls for this machine."""


@dataclass(frozen=True)
class _Instruction:
    code: int
    value: int
    yes: int = 0
    no: int = 0

    def packed(self) -> bytes:
        return struct.pack("=HBBI", self.code, self.yes, self.no, self.value & 0xFFFFFFFF)


def program(machine: str | None = None) -> bytes:
    """Return the filter for a machine as named by `platform.machine`, by default this one.

    Raises:
        UnsupportedArchitecture: There is no filter for it.
    """
    machine = machine or platform.machine()
    if machine not in _ARCHITECTURES:
        raise UnsupportedArchitecture(
            f"no system call filter is known for {machine!r}, only for {', '.join(_ARCHITECTURES)}"
        )
    column, architecture = _ARCHITECTURES[machine]

    def number(call: tuple[int | None, int | None] | int) -> int | None:
        return call if isinstance(call, int) else call[column]

    code = [
        _Instruction(_LD, _ARCHITECTURE),
        _Instruction(_JEQ, architecture, yes=1),
        _Instruction(_RET, _KILL),
        _Instruction(_LD, _NUMBER),
        _Instruction(_JGE, _UNKNOWN, no=1),
        _Instruction(_RET, _ERRNO | ENOSYS),
    ]
    for call in (*_DENIED.values(), _CHROOT):
        denied = number(call)
        if denied is not None:
            code += _when(denied, [_Instruction(_RET, _ERRNO | EPERM)])
    # With ENOSYS, a library falls back to `clone`, whose flags the filter can read.
    code += _when(_CLONE3, [_Instruction(_RET, _ERRNO | ENOSYS)])
    for call in (_CLONE, _UNSHARE):
        code += _when(
            number(call),
            [
                _Instruction(_LD, _ARGUMENTS),
                _Instruction(_JSET, _NEW_NAMESPACES, no=1),
                _Instruction(_RET, _ERRNO | EPERM),
                _Instruction(_RET, _ALLOW),
            ],
        )
    # Input injected into a terminal is executed by the next process that reads from it.
    code += _when(number(_IOCTL), _unless_low_word(_ARGUMENTS + 8, (_TIOCSTI, _TIOCLINUX)))
    # Process 1 runs as the commands' user, but they must not change its limits.
    code += _when(
        number(_PRLIMIT),
        [
            _Instruction(_LD, _ARGUMENTS),
            _Instruction(_JEQ, 0, yes=1),
            _Instruction(_RET, _ERRNO | EPERM),
            _Instruction(_RET, _ALLOW),
        ],
    )
    for call in (_SOCKET, _SOCKETPAIR):
        code += _when(number(call), _allowed_sockets())
    code.append(_Instruction(_RET, _ALLOW))
    return b"".join(instruction.packed() for instruction in code)


def _when(number: int | None, body: list[_Instruction]) -> list[_Instruction]:
    """Execute `body`, which returns, for one call. The accumulator holds the call's number."""
    assert number is not None
    return [_Instruction(_JEQ, number, no=len(body)), *body]


def _unless_low_word(offset: int, values: Iterable[int]) -> list[_Instruction]:
    body = [_Instruction(_LD, offset)]
    for value in values:
        body += [_Instruction(_JEQ, value, no=1), _Instruction(_RET, _ERRNO | EPERM)]
    return [*body, _Instruction(_RET, _ALLOW)]


def _allowed_sockets() -> list[_Instruction]:
    body = [_Instruction(_LD, _ARGUMENTS)]
    for family, protocols in _SOCKETS.items():
        if protocols is None:
            body += [_Instruction(_JEQ, family, no=1), _Instruction(_RET, _ALLOW)]
            continue
        inner = [_Instruction(_LD, _ARGUMENTS + 16)]
        for protocol in protocols:
            inner += [_Instruction(_JEQ, protocol, no=1), _Instruction(_RET, _ALLOW)]
        inner.append(_Instruction(_RET, _ERRNO | EAFNOSUPPORT))
        body += [_Instruction(_JEQ, family, no=len(inner)), *inner]
    return [*body, _Instruction(_RET, _ERRNO | EAFNOSUPPORT)]
