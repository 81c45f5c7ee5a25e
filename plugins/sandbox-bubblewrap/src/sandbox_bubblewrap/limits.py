"""Enforces the limits of a sandbox with control groups or, where none can be made, with rlimits.

Each sandbox gets its own control group: below the worker's in each hierarchy of version 1, and next
to the worker's in version 2, where a group with processes must not have groups with limits.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sandbox_bubblewrap.models import MIB, BubblewrapSandboxClientOptions

VARIABLE: Final = "SANDBOX_BUBBLEWRAP_CGROUP"
"""The environment variable with a delegated version 2 group, the parent of sandboxes' groups."""

_PREFIX: Final = "sandbox-bubblewrap-"
_MOUNTS: Final = Path("/proc/self/mountinfo")
_PERIOD_US: Final = 100_000


class LimitNotKept(Exception):
    """A limit cannot be enforced for the whole of a sandbox with `strict` options."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits of a sandbox that is about to start."""

    groups: tuple[Path, ...] = ()
    """The control groups that its first process must enter."""
    of_processes: Mapping[str, int] = field(default_factory=dict)
    """The rlimits of each process: names of the `resource` module, and values."""
    kept_by: Mapping[str, str] = field(default_factory=dict)
    """What enforces each limit, for the session's state."""

    def enter(self, pid: int) -> None:
        """Put a process into the control groups."""
        for group in self.groups:
            (group / "cgroup.procs").write_text(str(pid), encoding="ascii")


def prepare(sandbox_id: str, options: BubblewrapSandboxClientOptions) -> Limits:
    """Make the control groups of a sandbox, as far as possible.

    Raises:
        LimitNotKept: The options are `strict`, and a group cannot be made.
    """
    groups: list[Path] = []
    kept_by: dict[str, str] = {}
    wanted = _wanted(options)
    for controller, values in wanted.items():
        for parent, version in _parents(controller):
            group = parent / f"{_PREFIX}{sandbox_id}"
            if _make(group, values[version]):
                groups.append(group)
                kept_by[_LIMITS[controller]] = f"cgroup v{version}"
                break
    of_processes = {"RLIMIT_CORE": 0, "RLIMIT_NOFILE": options.open_files}
    kept_by["open_files"] = "prlimit"
    for name, resource, value in (
        ("file_size", "RLIMIT_FSIZE", options.file_size_mb and options.file_size_mb * MIB),
        ("cpu_seconds", "RLIMIT_CPU", options.cpu_seconds),
        ("memory", "RLIMIT_DATA", options.memory_mb and options.memory_mb * MIB),
        ("processes", "RLIMIT_NPROC", options.processes),
    ):
        if value is not None and name not in kept_by:
            of_processes[resource] = value
            kept_by[name] = "prlimit"
    if options.cpus is not None:
        kept_by.setdefault("cpus", "nothing")
    if options.strict:
        _check_strict(kept_by, sandbox_id)
    return Limits(groups=tuple(dict.fromkeys(groups)), of_processes=of_processes, kept_by=kept_by)


def remove(sandbox_id: str) -> None:
    """Remove the control groups of a sandbox that has no processes left."""
    for controller in _LIMITS:
        for parent, _ in _parents(controller):
            with suppress(OSError):
                (parent / f"{_PREFIX}{sandbox_id}").rmdir()


_LIMITS: Final = {"memory": "memory", "pids": "processes", "cpu": "cpus"}


def _wanted(options: BubblewrapSandboxClientOptions) -> dict[str, dict[int, dict[str, str]]]:
    """Return the files to write for each controller that is needed, by version."""
    wanted: dict[str, dict[int, dict[str, str]]] = {}
    if options.memory_mb is not None:
        size = str(options.memory_mb * MIB)
        wanted["memory"] = {
            1: {"memory.limit_in_bytes": size, "memory.memsw.limit_in_bytes": size},
            2: {"memory.max": size, "memory.swap.max": "0"},
        }
    if options.processes is not None:
        wanted["pids"] = {version: {"pids.max": str(options.processes)} for version in (1, 2)}
    if options.cpus is not None:
        quota = str(max(1000, int(options.cpus * _PERIOD_US)))
        wanted["cpu"] = {
            1: {"cpu.cfs_period_us": str(_PERIOD_US), "cpu.cfs_quota_us": quota},
            2: {"cpu.max": f"{quota} {_PERIOD_US}"},
        }
    return wanted


_OPTIONAL: Final = {"memory.memsw.limit_in_bytes", "memory.swap.max"}
"""Files that a kernel may have been built without."""


def _make(group: Path, values: Mapping[str, str]) -> bool:
    made = False
    try:
        with suppress(FileExistsError):
            group.mkdir()
            made = True
        for name, value in values.items():
            if name in _OPTIONAL and not (group / name).exists():
                continue
            (group / name).write_text(value, encoding="ascii")
        return os.access(group / "cgroup.procs", os.W_OK)
    except OSError:
        if made:
            with suppress(OSError):
                group.rmdir()
        return False


def _parents(controller: str) -> list[tuple[Path, int]]:
    """Return the possible parents of a group with this controller, and their versions."""
    found: list[tuple[Path, int]] = []
    named = os.environ.get(VARIABLE)
    if named:
        found.append((Path(named), 2))
    mounts = _hierarchies()
    for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers:
            mount = mounts.get(controller)
            if mount is not None and controller in controllers.split(","):
                found.append((_below(mount, path), 1))
        elif (mount := mounts.get("")) is not None:
            own = _below(mount, path)
            # Only the root group may have both processes and groups with limits.
            found.append((own if own == mount else own.parent, 2))
    return [
        (parent, version)
        for parent, version in found
        if version == 1 or controller in _read(parent / "cgroup.subtree_control").split()
    ]


def _below(mount: Path, path: str) -> Path:
    # In a container with a hierarchy mounted from outside, the path is not below the mount.
    own = mount / path.lstrip("/")
    return own if own.is_dir() else mount


def _hierarchies() -> dict[str, Path]:
    """Return the mount points of the version 1 controllers and, under "", of version 2."""
    found: dict[str, Path] = {}
    for line in _MOUNTS.read_text(encoding="utf-8").splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        mount = Path(before.split(" ")[4])
        if kind == "cgroup2":
            found.setdefault("", mount)
        elif kind == "cgroup":
            for option in options.split(","):
                found.setdefault(option, mount)
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""


def _check_strict(kept_by: Mapping[str, str], sandbox_id: str) -> None:
    loose = sorted(name for name in _LIMITS.values() if kept_by.get(name) in ("prlimit", "nothing"))
    if loose:
        remove(sandbox_id)
        raise LimitNotKept(
            f"{', '.join(loose)} cannot be enforced for the whole sandbox, because this worker "
            f"cannot create control groups for them: name a delegated one in {VARIABLE}, run the "
            f"worker as a systemd service with Delegate=yes, or leave out strict=True"
        )
