"""How a container's workspace is saved: as one archive, made in the container."""

from __future__ import annotations

import io
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Final, cast

ARCHIVE: Final = "workspace.tar"

# A file that changes while it is read is saved as it was read, as the SDK saves it: GNU's tar says
# so with an exit code of 1, which is an error of another one's.
_SAVE: Final = f"""\
stage=$1 root=$2
shift 2
mkdir -p "$stage" && cd "$root" || exit
tar -cf "$stage/{ARCHIVE}" "$@" . && exit
[ $? -eq 1 ] && tar --version 2>/dev/null | grep -q GNU
"""


def save_command(stage: str, root: str, skipped: Iterable[Path]) -> list[str]:
    """Return what archives the workspace `root` in the folder `stage`, without what is skipped."""
    left_out = sorted(re.sub(r"([\\*?\[\]])", r"\\\1", path.as_posix()) for path in skipped)
    return ["sh", "-c", _SAVE, "sh", stage, root, *(f"--exclude=./{path}" for path in left_out)]


def only_file(archive: io.IOBase) -> io.IOBase:
    """Return the one file that an archive holds, as the engine sends one.

    Raises:
        tarfile.TarError: It is no archive, or has no file in it.
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
