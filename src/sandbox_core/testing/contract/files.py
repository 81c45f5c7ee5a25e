"""Checks a session's file operations."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from agents.editor import ApplyPatchOperation
from agents.sandbox.errors import SandboxError, WorkspaceReadNotFoundError

from sandbox_core.testing.contract.model import PromiseBroken, check, expect, expect_equal
from sandbox_core.testing.contract.subject import FILES, Subject

AWKWARD = (
    "with space",
    " leading and trailing ",
    "-dash",
    "--help",
    "back\\slash",
    "it's",
    'double"quote',
    "$HOME",
    "`id`",
    "*",
    "?[a]",
    "semi;colon",
    "new\nline",
    "tab\there",
    "größe-大小-🦀",
    "#hash",
    "~tilde",
    "%s%n",
    "x" * 200,
)
"""Names that real programs give to files."""


async def _read(subject: Subject, path: Path) -> bytes:
    session = await subject.session()
    content = (await subject.within(session.read(path))).read()
    expect(isinstance(content, bytes), f"read returned a stream of {type(content).__name__}")
    return bytes(content)


async def _write(subject: Subject, path: Path, content: bytes) -> None:
    session = await subject.session()
    await subject.within(session.write(path, io.BytesIO(content)))


async def _refused(subject: Subject, what: str, call: Callable[[], Awaitable[object]]) -> None:
    try:
        await subject.within(call())
    except SandboxError:
        return
    raise PromiseBroken(f"{what} was not refused")


@check("session", cost="an agent's edits are damaged")
async def content_is_kept(subject: Subject) -> None:
    """Files can contain any bytes and are read back unchanged."""
    folder = await subject.folder()
    for name, content in (
        ("empty", b""),
        ("every", bytes(range(256))),
        ("crlf", b"a\r\nb\n"),
        ("no-newline", b"end"),
        ("utf-16", "größe".encode("utf-16")),
    ):
        await _write(subject, folder / name, content)

        expect_equal(content, await _read(subject, folder / name), f"the content of {name}")


@check("session", cost="larger files fail or are truncated")
async def a_file_may_be_large(subject: Subject) -> None:
    """A file of five megabytes is written and read completely."""
    folder = await subject.folder()
    content = bytes(range(256)) * 20_000
    await _write(subject, folder / "large", content)
    read = await _read(subject, folder / "large")

    expect_equal(len(content), len(read), "bytes that were read")
    expect(content == read, "a file of five megabytes came back with other bytes")


@check("session", cost="such files cannot be read, or others are overwritten")
async def any_name_is_taken_as_it_is(subject: Subject) -> None:
    """Names may contain spaces, quotes, backslashes, newlines and other characters."""
    folder = await subject.folder()
    session = await subject.session()
    for name in AWKWARD:
        await _write(subject, folder / name, name.encode())
    for name in AWKWARD:
        expect_equal(name.encode(), await _read(subject, folder / name), f"the file {name!r}")
    listed = await subject.within(session.ls(folder))
    names = {Path(entry.path).name for entry in listed}
    expect_equal(set(AWKWARD), names, "the names that `ls` lists")
    ran = await subject.sh(f"cd {folder} && ls -A | tr '\\n' ' ' | wc -c")
    expect(int(ran.stdout) > 0, "a command does not see the files")


@check("session", cost="an edit leaves the tail of the old content")
async def writing_replaces(subject: Subject) -> None:
    """Writing replaces the whole content of an existing file."""
    folder = await subject.folder()
    await _write(subject, folder / "file", b"a long content\n" * 100)
    await _write(subject, folder / "file", b"short\n")

    expect_equal(b"short\n", await _read(subject, folder / "file"), "the content")


@check("session", cost="agents would have to create directories first, and do not")
async def writing_makes_the_folders(subject: Subject) -> None:
    """Writing a file creates its parent directories."""
    folder = await subject.folder()
    await _write(subject, folder / "a" / "b c" / "file", b"deep")

    expect_equal(b"deep", await _read(subject, folder / "a" / "b c" / "file"), "the content")


@check("session", cost="commands and `read` see different files")
async def commands_and_calls_share_files(subject: Subject) -> None:
    """Commands see files from `write`, and `read` sees files from commands."""
    folder = await subject.folder()
    await _write(subject, folder / "ours", b"from write\n")
    ran = await subject.sh(f"cat {folder}/ours; echo from command > {folder}/theirs")

    expect_equal(b"from write\n", ran.stdout, "what a command reads")
    expect_equal(b"from command\n", await _read(subject, folder / "theirs"), "what `read` reads")


@check("session", cost="the model sees a broken backend instead of a missing file")
async def a_missing_file_is_said(subject: Subject) -> None:
    """Reading a missing file raises `WorkspaceReadNotFoundError`."""
    folder = await subject.folder()
    session = await subject.session()
    try:
        await subject.within(session.read(folder / "missing"))
    except WorkspaceReadNotFoundError:
        return
    raise PromiseBroken("a file that does not exist was read")


@check("session", cost="the model mistakes a directory for an empty file")
async def a_folder_is_no_file(subject: Subject) -> None:
    """Reading a directory, or writing to its path, is refused."""
    folder = await subject.folder()
    session = await subject.session()
    await _refused(subject, "reading a folder", lambda: session.read(folder))
    await _refused(
        subject, "writing to a folder's path", lambda: session.write(folder, io.BytesIO(b""))
    )


@check("session", cost="agents cannot explore their workspace")
async def listings_say_what_there_is(subject: Subject) -> None:
    """`ls` lists files, directories and links with their kind, and files with their size."""
    folder = await subject.folder()
    session = await subject.session()
    script = f"cd {folder} && printf 12345 > file && mkdir sub && ln -s file link && touch .hidden"
    await subject.sh(script)
    listed = {Path(entry.path).name: entry for entry in await subject.within(session.ls(folder))}

    expect_equal({"file", "sub", "link", ".hidden"}, set(listed), "the names")
    kinds = {name: entry.kind.value for name, entry in listed.items()}
    expect_equal(
        {"file": "file", "sub": "directory", "link": "symlink", ".hidden": "file"}, kinds, "kinds"
    )
    expect_equal(5, listed["file"].size, "the size of a file")


@check("session", cost="a missing directory looks empty")
async def a_missing_folder_is_said(subject: Subject) -> None:
    """Listing a missing directory is refused."""
    folder = await subject.folder()
    session = await subject.session()
    await _refused(subject, "listing a missing folder", lambda: session.ls(folder / "missing"))


@check("session", cost="an agent's directories are not created")
async def folders_are_made(subject: Subject) -> None:
    """`mkdir` creates a directory, and with `parents` its parents."""
    folder = await subject.folder()
    session = await subject.session()
    await subject.within(session.mkdir(folder / "one"))
    await subject.within(session.mkdir(folder / "two" / "three", parents=True))
    await subject.within(session.mkdir(folder / "two" / "three", parents=True))
    await _refused(
        subject, "mkdir below a missing folder", lambda: session.mkdir(folder / "four" / "five")
    )
    ran = await subject.sh(f"cd {folder} && find . -type d | sort | tr '\\n' ' '")

    expect_equal(b". ./one ./two ./two/three ", ran.stdout, "the folders")


@check("session", cost="files remain, or others are deleted")
async def files_are_removed(subject: Subject) -> None:
    """`rm` removes a file, and only with `recursive` a directory with content."""
    folder = await subject.folder()
    session = await subject.session()
    await subject.sh(f"cd {folder} && touch file keep && mkdir -p full/inner && touch full/inner/f")
    await subject.within(session.rm(folder / "file"))
    await _refused(subject, "rm of a folder that is full", lambda: session.rm(folder / "full"))
    await subject.within(session.rm(folder / "full", recursive=True))
    ran = await subject.sh(f"ls {folder}")

    expect_equal(b"keep\n", ran.stdout, "what is left")


@check("session", cost="removing one file removes another")
async def a_backslash_is_no_separator(subject: Subject) -> None:
    r"""`rm` of the path ``a\b`` does not remove ``a/b``."""
    folder = await subject.folder()
    session = await subject.session()
    await subject.sh(f"cd {folder} && mkdir a && echo kept > a/b && echo gone > 'a\\b'")
    await subject.within(session.rm(folder / "a\\b"))
    ran = await subject.sh(f"cd {folder} && cat a/b && ls")

    expect_equal(b"kept\na\n", ran.stdout, "what is left")


@check("session", cost="models can access files of the host or of other sandboxes")
async def no_path_leads_out(subject: Subject) -> None:
    """Relative and absolute paths outside the workspace are refused."""
    session = await subject.session()
    for path in (Path("../outside"), Path("a/../../outside"), Path("/etc/outside-of-workspace")):
        await _refused(subject, f"read of {path}", lambda path=path: session.read(path))  # type: ignore[misc]  # bound
        await _refused(
            subject,
            f"write of {path}",
            lambda path=path: session.write(path, io.BytesIO(b"escaped")),  # type: ignore[misc]  # bound
        )
        await _refused(subject, f"mkdir of {path}", lambda path=path: session.mkdir(path))  # type: ignore[misc]  # bound
        await _refused(subject, f"rm of {path}", lambda path=path: session.rm(path))  # type: ignore[misc]  # bound
        await _refused(subject, f"ls of {path.parent}", lambda path=path: session.ls(path.parent))  # type: ignore[misc]  # bound


@check("session", cost="models can access files of the host through links")
async def no_link_leads_out(subject: Subject) -> None:
    """No file operation follows a link out of the workspace."""
    folder = await subject.folder()
    session = await subject.session()
    target = f"/tmp/{folder.name}"  # noqa: S108 - a folder of the sandbox
    await subject.sh(
        f"mkdir -p {target} && echo secret > {target}/file && ln -s {target} {folder}/out"
    )
    link = folder / "out"
    try:
        await _refused(subject, "read through a link", lambda: session.read(link / "file"))
        await _refused(
            subject, "write through a link", lambda: session.write(link / "new", io.BytesIO(b"x"))
        )
        await _refused(subject, "mkdir through a link", lambda: session.mkdir(link / "made"))
        await _refused(subject, "rm through a link", lambda: session.rm(link / "file"))
        ran = await subject.sh(f"ls {target}")
        expect_equal(b"file\n", ran.stdout, "what is in the folder outside")
    finally:
        await subject.sh(f"rm -rf {target}")


@check("session", cost="removing a link removes its target")
async def removing_a_link_keeps_its_target(subject: Subject) -> None:
    """`rm` of a link removes only the link, even with `recursive`."""
    folder = await subject.folder()
    session = await subject.session()
    await subject.sh(f"cd {folder} && mkdir real && touch real/file && ln -s real link")
    await subject.within(session.rm(folder / "link", recursive=True))
    ran = await subject.sh(f"cd {folder} && ls && ls real")

    expect_equal(b"real\nfile\n", ran.stdout, "what is left")


@check("session", cost="an agent's input files are missing")
async def the_manifest_is_there(subject: Subject) -> None:
    """A started session has the manifest's files and directories."""
    ran = await subject.sh("cat hello.txt folder/inner.txt && test -d empty-folder && echo folder")

    expect(len(FILES) == 3, "this check is about three entries")
    expect_equal(b"hello\ninner\nfolder\n", ran.stdout, "what the workspace has")


def tar_of(*members: tuple[str, bytes]) -> bytes:
    """Return a tar archive with these names and contents."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@check("session", cost="uploaded archives cannot be used")
async def archives_are_extracted(subject: Subject) -> None:
    """`extract` accepts tar and zip archives."""
    folder = await subject.folder()
    session = await subject.session()
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("in/zip.txt", "zipped")
    tarred = io.BytesIO(tar_of(("in/tar.txt", b"tarred")))
    await subject.within(session.extract(folder / "a.tar", tarred))
    await subject.within(session.extract(folder / "b.zip", io.BytesIO(zipped.getvalue())))
    ran = await subject.sh(f"cat {folder}/in/tar.txt {folder}/in/zip.txt")

    expect_equal(b"tarredzipped", ran.stdout, "what the archives had")


@check("session", cost="an archive writes files outside the workspace")
async def an_archive_does_not_lead_out(subject: Subject) -> None:
    """`extract` refuses archives with members outside the workspace."""
    folder = await subject.folder()
    session = await subject.session()
    for name in ("../../../escaped-by-tar", "/tmp/escaped-by-tar"):  # noqa: S108 - of the sandbox
        archive = io.BytesIO(tar_of((name, b"escaped")))
        await _refused(
            subject,
            f"an archive with {name}",
            lambda archive=archive: session.extract(folder / "bad.tar", archive),  # type: ignore[misc]  # bound
        )
    ran = await subject.sh("test ! -e /tmp/escaped-by-tar && test ! -e ../escaped-by-tar")

    expect_equal(0, ran.exit_code, "whether nothing was written outside")


@check("session", cost="the model's patches are not applied")
async def patches_are_applied(subject: Subject) -> None:
    """`apply_patch` creates, changes and deletes files."""
    folder = await subject.folder()
    session = await subject.session()
    await _write(subject, folder / "old.txt", b"one\ntwo\n")
    await _write(subject, folder / "gone.txt", b"x\n")
    operations: list[ApplyPatchOperation | dict[str, object]] = [
        ApplyPatchOperation(type="create_file", path=f"{folder}/new.txt", diff="+made\n"),
        ApplyPatchOperation(
            type="update_file", path=f"{folder}/old.txt", diff="@@\n one\n-two\n+three\n"
        ),
        ApplyPatchOperation(type="delete_file", path=f"{folder}/gone.txt"),
    ]
    await subject.within(session.apply_patch(operations))
    ran = await subject.sh(f"cd {folder} && cat old.txt && cat new.txt && echo && ls")

    lines = ran.stdout.decode().split()
    expect_equal(["one", "three", "made", "new.txt", "old.txt"], lines, "what is there")
