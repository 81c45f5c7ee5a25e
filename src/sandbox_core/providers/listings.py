"""Lists a folder with one command, whatever characters the names contain.

The SDK parses the lines of ``ls -la``, which does not work for names with newlines or quotes.
"""

from __future__ import annotations

from agents.sandbox.errors import ExecNonZeroError
from agents.sandbox.files import EntryKind, FileEntry
from agents.sandbox.session.base_sandbox_session import BaseSandboxSession
from agents.sandbox.types import Permissions, User

# In batches, as a command's arguments are limited: the names, each with a NUL after it, an empty
# name, a line of `stat` for each, and a NUL. Patterns that match nothing stay as they are.
_LIST = """\
cd -- "$1" || exit
batch() { printf '%s\\0' "$@" '' && stat -c '%f %s %U %G' -- "$@" && printf '\\0'; }
set --
for name in .[!.]* ..?* *; do
  if [ -e "$name" ] || [ -L "$name" ]; then set -- "$@" "./$name"; fi
  [ "$#" -lt 100 ] || { batch "$@" || exit; set --; }
done
[ "$#" = 0 ] || batch "$@"
"""

_KINDS = {0o040000: EntryKind.DIRECTORY, 0o100000: EntryKind.FILE, 0o120000: EntryKind.SYMLINK}


async def list_folder(
    session: BaseSandboxSession, folder: str, user: str | User | None
) -> list[FileEntry]:
    """List a folder of a sandbox with its session's `exec`.

    Raises:
        ExecNonZeroError: There is no such folder.
    """
    listed = await session.exec(*list_command(folder), shell=False, user=user)
    if not listed.ok():
        raise ExecNonZeroError(listed, command=("ls", folder))
    return listed_entries(folder, listed.stdout)


def list_command(folder: str) -> list[str]:
    """Return the command that lists `folder`, for images with ``sh`` and ``stat``."""
    return ["sh", "-c", _LIST, "sh", folder]


def listed_entries(folder: str, output: bytes) -> list[FileEntry]:
    """Parse the output of `list_command`; undecodable bytes become surrogates."""
    fields = iter(output.decode("utf-8", "surrogateescape").split("\0"))
    entries: list[FileEntry] = []
    while names := list(iter(lambda: next(fields, ""), "")):
        lines = next(fields, "").splitlines()
        entries += [
            _entry(f"{folder}/{name.removeprefix('./')}", line)
            for name, line in zip(names, lines, strict=True)
        ]
    return entries


def _entry(path: str, line: str) -> FileEntry:
    mode_hex, size, owner, group = line.split(" ", 3)
    mode = int(mode_hex, 16)
    return FileEntry(
        path=path,
        permissions=Permissions.from_mode(mode),
        owner=owner,
        group=group,
        size=int(size),
        kind=_KINDS.get(mode & 0o170000, EntryKind.OTHER),
    )
