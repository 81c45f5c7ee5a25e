"""Commands that create, write, save and restore the workspace in a container."""

from __future__ import annotations

import io
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Final, cast

from agents.sandbox.errors import ConfigurationError, ErrorCode

from sandbox_core.errors import InvalidRequest
from sandbox_core.providers.archives import check_archive

ARCHIVE: Final = "workspace.tar"

# GNU tar exits with 1 if a file changed while it was read. That file is saved as read, as in the
# SDK. For other implementations, 1 is an error.
_SAVE: Final = f"""\
stage=$1 root=$2
shift 2
mkdir -p "$stage" && cd "$root" || exit
tar -cf "$stage/{ARCHIVE}" "$@" . && exit
[ $? -eq 1 ] && tar --version 2>/dev/null | grep -q GNU
"""

IS_FIFO: Final = 97
"""The exit code for a FIFO, which would block the command that opens it, even without a caller."""

READ: Final = f'[ -p "$1" ] && exit {IS_FIFO}; exec cat -- "$1"'
"""Writes the file $1 to stdout."""

# Input that is not written must be read nevertheless, or its sender blocks.
WRITE: Final = f"""\
[ -p "$2" ] && cat > /dev/null && exit {IS_FIFO}
mkdir -p -- "$1" && exec cat > "$2"
"""
"""Writes stdin to the file $2 in the folder $1."""

RESTORE: Final = 'mkdir -p -- "$1" && exec tar -xp -C "$1"'
"""Unpacks stdin in the folder $1."""

OWN_WORKSPACE: Final = 'mkdir -p -- "$1" && exec chown -- "$2" "$1"'
"""Makes the folder $1, and gives it to $2."""


def refused_fifo(path: Path) -> InvalidRequest:
    """Return the error for a file that is a FIFO."""
    return InvalidRequest(f"{str(path)!r} is a FIFO, not a regular file.")


def refused_user(user: str, problem: bytes) -> ConfigurationError:
    """Return the error for a user who cannot own the workspace, such as one without a name."""
    return ConfigurationError(
        message=f"the workspace cannot be given to the user {user!r} of the options: "
        f"{problem.decode('utf-8', 'replace').strip() or 'the image has no chown'}",
        error_code=ErrorCode.SANDBOX_CONFIG_INVALID,
        op="start",
        context={"user": user},
        retryable=False,
    )


def take_archive(data: io.IOBase, archive: IO[bytes]) -> None:
    """Write an archive to a file, and check that it may be restored.

    Raises:
        UnsafeArchive: It would write outside the workspace, or is not an archive.
    """
    while chunk := data.read(1024 * 1024):
        archive.write(chunk)
    archive.seek(0)
    check_archive(cast("io.IOBase", archive))


def save_command(stage: str, root: str, skipped: Iterable[Path]) -> list[str]:
    """Return the command that archives `root` in the folder `stage`, without skipped paths."""
    left_out = sorted(re.sub(r"([\\*?\[\]])", r"\\\1", path.as_posix()) for path in skipped)
    return ["sh", "-c", _SAVE, "sh", stage, root, *(f"--exclude=./{path}" for path in left_out)]


def only_file(archive: io.IOBase) -> io.IOBase:
    """Return the only file in an archive from the engine.

    Raises:
        tarfile.TarError: It is not an archive, or contains no file.
    """
    content = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    try:
        with tarfile.open(fileobj=cast("IO[bytes]", archive), mode="r|*") as tar:
            member = tar.next()
            file = None if member is None else tar.extractfile(member)
            if file is None:
                raise tarfile.ReadError("the engine has sent no file")
            shutil.copyfileobj(file, content)
    except BaseException:
        content.close()
        raise
    content.seek(0)
    return cast("io.IOBase", content)
