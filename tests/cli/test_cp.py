"""`sandbox-core cp`, run as an operator runs it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cli.site import Site, words
from workflows.visited import Visited


@pytest.fixture
async def root(site: Site) -> AsyncIterator[Path]:
    handle, root = await site.visited()
    yield root
    await handle.signal(Visited.end)
    await handle.result()


async def test_a_file_goes_in_and_comes_out_as_it_is(
    site: Site, root: Path, tmp_path: Path
) -> None:
    """Under its name where the target is a directory."""
    content = bytes(range(256)) * 10_000
    (tmp_path / "in.bin").write_bytes(content)
    for target in ("copy.bin", "sub/"):
        (root / "sub").mkdir(exist_ok=True)
        result = await site.run("cp", str(tmp_path / "in.bin"), f"{root}:{target}")
        assert (0, "", "") == (result.returncode, result.stdout, result.stderr)
    assert content == (root / "copy.bin").read_bytes() == (root / "sub" / "in.bin").read_bytes()

    (tmp_path / "out").mkdir()
    for local in ("out.bin", "out"):
        assert 0 == (await site.run("cp", f"{root}:copy.bin", str(tmp_path / local))).returncode
    assert content == (tmp_path / "out.bin").read_bytes()
    assert ["copy.bin"] == names(tmp_path / "out")
    assert content == (tmp_path / "out" / "copy.bin").read_bytes()


async def test_a_dash_is_standard_output(site: Site, root: Path) -> None:
    (root / "hello.txt").write_text("hello\n")

    result = await site.run("cp", f"{root}:hello.txt", "-")

    assert (0, "hello\n") == (result.returncode, result.stdout)


async def test_what_cannot_be_copied_is_one_error(site: Site, root: Path, tmp_path: Path) -> None:
    """And leaves no file."""
    target = tmp_path / "target"
    target.mkdir()
    for source, to, said in (
        (f"{root}:moon", target / "moon", "moon"),
        (f"{root}:../../etc/passwd", target / "passwd", "passwd"),
        (target / "moon", f"{root}:moon", "No such file or directory"),
        ("-", f"{root}:sub/", "is a directory: name the file"),
        ("-", f"{root}:", "'./' is a directory: name the file"),
    ):
        result = await site.run("cp", str(source), str(to))
        assert (1, "") == (result.returncode, result.stdout)
        assert said in result.stderr
        assert 1 == len(result.stderr.splitlines())
    assert [] == names(target) == names(root)


def names(folder: Path) -> list[str]:
    return [each.name for each in folder.iterdir()]


@pytest.mark.parametrize(("source", "target"), [("a", "b"), ("1:a", "2:b"), (":a", "b")])
async def test_exactly_one_of_the_two_is_in_a_sandbox(site: Site, source: str, target: str) -> None:
    result = await site.run("cp", source, target)

    assert 2 == result.returncode
    assert "ID:PATH" in result.stderr


def tree(root: Path) -> dict[str, str]:
    """Return the modes and contents of what is in a directory."""
    found = {}
    for path in sorted(root.rglob("*")):
        what = f"-> {path.readlink()}" if path.is_symlink() else f"{path.stat().st_mode:o}"
        text = path.read_text() if path.is_file() and not path.is_symlink() else ""
        found[str(path.relative_to(root))] = f"{what} {text}".rstrip()
    return found


async def test_a_directory_goes_in_and_comes_out_as_it_is(
    site: Site, root: Path, tmp_path: Path
) -> None:
    """Under its name into one that exists; with `/.`, what is in it. No archive is left."""
    made = tmp_path / "made"
    (made / "sub").mkdir(parents=True)
    (made / "sub" / "run").write_text("#!/bin/sh")
    (made / "sub" / "run").chmod(0o751)
    (made / "away").symlink_to("/etc")
    (made / "to").symlink_to("sub/run")

    for source, target in (
        (str(made), f"{root}:new"),
        (str(made), f"{root}:new"),
        (f"{made}/.", f"{root}:."),
        (f"{root}:new/made", str(tmp_path / "out")),
        (f"{root}:new/made", str(tmp_path / "out")),
        (f"{root}:new/made/.", str(tmp_path / "out")),
    ):
        result = await site.run("cp", source, target)
        assert (0, "", "") == (result.returncode, result.stdout, result.stderr)

    before = tree(made)
    assert before == tree(root / "new" / "made")
    assert {"away", "new", "sub", "to"} == set(names(root))
    assert before == tree(tmp_path / "out" / "made")
    assert {*before, *(f"made/{name}" for name in before), "made"} == set(tree(tmp_path / "out"))


async def test_a_sandbox_s_id_alone_is_its_workspace(
    site: Site, root: Path, tmp_path: Path
) -> None:
    made = tmp_path / "made"
    made.mkdir()
    (made / "file").write_text("text")

    for source, target in (
        (str(made / "file"), f"{root}:"),
        (str(made), f"{root}:"),
        (f"{root}:", str(tmp_path / "out")),
    ):
        result = await site.run("cp", source, target)
        assert (0, "", "") == (result.returncode, result.stdout, result.stderr)

    assert {"file", "made", "made/file"} == set(tree(root)) == set(tree(tmp_path / "out"))


async def test_no_link_is_followed_out_of_the_target(
    site: Site, root: Path, tmp_path: Path
) -> None:
    for folder in (tmp_path / "made" / "sub", tmp_path / "elsewhere", root / "made" / "sub"):
        folder.mkdir(parents=True)
        (folder / "file").write_text("new")
    for target in (root / "in" / "made", tmp_path / "out" / "made"):
        target.mkdir(parents=True)
        (target / "sub").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "file").write_text("old")

    sent = await site.run("cp", str(tmp_path / "made"), f"{root}:in")
    received = await site.run("cp", f"{root}:made", str(tmp_path / "out"))

    assert (1, 1) == (sent.returncode, received.returncode)
    assert "is a link" in words(sent.stderr)
    assert "a file or a link" in words(received.stderr)
    assert "old" == (tmp_path / "elsewhere" / "file").read_text()
    assert ["made"] == names(tmp_path / "out")
