"""Converts between the Agents SDK's types and wire messages."""

from __future__ import annotations

import io
from pathlib import Path, PurePath

from agents.editor import ApplyPatchOperation
from agents.run_config import SandboxArchiveLimits
from agents.sandbox.capabilities import SkillMetadata
from agents.sandbox.files import EntryKind, FileEntry
from agents.sandbox.materialization import MaterializedFile
from agents.sandbox.session.pty_types import PtyExecUpdate
from agents.sandbox.types import Permissions, User
from temporalio import workflow

from sandbox_core.errors import InvalidRequest, SandboxCoreError
from sandbox_core.wire import messages as m

# Without this patch, arguments are not checked in the workflow.
_CHECKED = "sandbox-core-arguments-checked"


def user_name(user: str | User | None) -> str | None:
    """Return the name of a sandbox user.

    Raises:
        InvalidRequest: It is neither a user nor a name.
    """
    expect(user, (str, User, type(None)), "a user is a str, a User or None")
    return user.name if isinstance(user, User) else user


def refuse(error: SandboxCoreError) -> None:
    """Raise the error for an argument, except in workflows that were started without the check.

    Earlier versions sent such arguments to the worker or used them in some way, and a history may
    contain what came of it.
    """
    if not workflow.in_workflow() or workflow.patched(_CHECKED):
        raise error


def expect(value: object, wanted: tuple[type, ...], what: str) -> None:
    """Check that a value is an instance of one of the classes; see `refuse`.

    Errors other than ours would make Temporal retry the workflow task forever.

    Raises:
        InvalidRequest: It is not; the message contains `what`.
    """
    if not isinstance(value, wanted):
        refuse(InvalidRequest(f"{what}, not {kind_of(value)}."))


def kind_of(value: object) -> str:
    """Return what a value is, for messages that do not repeat it."""
    return "None" if value is None else type(value).__name__


def command_words(command: tuple[str | Path, ...]) -> tuple[str, ...]:
    """Return the words of a command in their wire form.

    Raises:
        InvalidRequest: One is no word.
    """
    for word in command:
        if isinstance(word, list | tuple):
            refuse(InvalidRequest("a command is a str, or several: pass a list as exec(*words)."))
        # Numbers have always been sent as text, as in exec("sleep", 5).
        expect(word, (str, PurePath, int, float), "a command is a str, or several")
    return tuple(map(str, command))


def shell_words(shell: bool | list[str]) -> bool | tuple[str, ...]:
    """Return the shell of a command in its wire form.

    Raises:
        InvalidRequest: It is no shell.
    """
    what = "shell is True, False, or a list of str such as ['bash', '-c']"
    expect(shell, (bool, list, tuple), what)
    if not isinstance(shell, list | tuple):
        return shell
    for word in shell:
        expect(word, (str,), f"{what}: a word of it is a str")
    return tuple(shell)


def number(value: int, what: str) -> int:
    """Return a whole number.

    Raises:
        InvalidRequest: It is none.
    """
    if isinstance(value, bool):
        refuse(InvalidRequest(f"{what} is an int, not bool."))
    expect(value, (int,), f"{what} is an int")
    return value


def path(value: str | Path) -> Path:
    """Return a sandbox path.

    The SDK treats backslashes in a `str` path as separators; in a sandbox they are ordinary
    characters.

    Raises:
        InvalidRequest: `value` is not a path.
    """
    expect(value, (str, PurePath), "a path is a str or a Path")
    if "\0" in str(value):
        refuse(InvalidRequest(f"{str(value)!r} contains a null character, which no path may."))
    return Path(value)


def path_text(value: str | Path) -> str:
    """Return a sandbox path in its wire form; see `path`."""
    return path(value).as_posix()


def content(data: io.IOBase) -> bytes:
    """Return the rest of a stream; text is encoded as UTF-8.

    Raises:
        InvalidRequest: `data` is not a stream, or it returns something else than its content.
    """
    if not callable(getattr(data, "read", None)):
        expect(data, (io.IOBase,), "data is a stream, such as io.BytesIO(content)")
    read = data.read()
    if isinstance(read, str):
        return read.encode("utf-8")
    expect(read, (bytes, bytearray, memoryview), "what data.read() returns is bytes or str")
    return bytes(read)


def archive_limits(limits: SandboxArchiveLimits | None) -> m.ArchiveLimits | None:
    """Return the limits in their wire form.

    Raises:
        InvalidRequest: They are something else.
    """
    if limits is None:
        return None
    expect(limits, (SandboxArchiveLimits,), "archive_limits is a SandboxArchiveLimits or None")
    return m.ArchiveLimits(
        max_input_bytes=limits.max_input_bytes,
        max_extracted_bytes=limits.max_extracted_bytes,
        max_members=limits.max_members,
    )


def patch_operation(operation: ApplyPatchOperation) -> m.PatchOperation:
    """Return a patch operation in its wire form."""
    return m.PatchOperation(
        type=operation.type, path=operation.path, diff=operation.diff, move_to=operation.move_to
    )


def pty_update(update: m.PtyResponse) -> PtyExecUpdate:
    """Return the SDK's update."""
    return PtyExecUpdate(
        process_id=update.process_id,
        output=update.output,
        exit_code=update.exit_code,
        original_token_count=update.original_token_count,
    )


def materialized_files(done: m.MaterializationResponse) -> list[MaterializedFile]:
    """Return the SDK's list of files."""
    return [MaterializedFile(path=Path(f.path), sha256=f.sha256) for f in done.files]


def file_entry(entry: m.DirectoryEntry) -> FileEntry:
    """Return the SDK's directory entry."""
    return FileEntry(
        path=entry.path,
        # Already validated by the worker, and there may be tens of thousands.
        permissions=Permissions.model_construct(None, **entry.permissions),
        owner=entry.owner,
        group=entry.group,
        size=entry.size,
        kind=EntryKind(entry.kind),
    )


def skill_metadata(skill: m.ListedSkill) -> SkillMetadata:
    """Return the SDK's metadata of a skill."""
    return SkillMetadata(name=skill.name, description=skill.description, path=Path(skill.path))
