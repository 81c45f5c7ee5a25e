"""An archive from a sandbox, whose `tar` may be anything, writes nothing outside of its target."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from sandbox_core.cli.access.directories import _new, _unpack
from sandbox_core.errors import OperationFailed

FILE, LINK, HARD, DIR = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE
EVIL = b"evil"


def archive(*members: tuple[str, bytes, str]) -> bytes:
    """Return an archive; the files in it have content."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, kind, target in members:
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.mode = kind, target, 0o755
            member.size = len(EVIL) if kind == FILE else 0
            tar.addfile(member, io.BytesIO(EVIL))
    return made.getvalue()


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    (tmp_path / "elsewhere").mkdir()
    made = tmp_path / "elsewhere" / "victim"
    made.write_text("as it was")
    return made


@pytest.mark.parametrize(
    "members",
    [
        [("x", LINK, "{}/victim"), ("x", FILE, "")],
        [("x", LINK, "{}/victim"), ("./x", FILE, "")],
        [("d", DIR, ""), ("d/x", LINK, "{}/victim"), ("d//x", FILE, "")],
        [("x", LINK, "{}"), ("x/new", FILE, "")],
        [("x", LINK, "{}"), ("x", DIR, ""), ("x/new", FILE, "")],
        [("x", LINK, "{}/victim"), ("y", HARD, "x"), ("y", FILE, "")],
        [("x", HARD, "{}/victim"), ("x", FILE, "")],
        [("../elsewhere/new", FILE, "")],
        [("{}/new", FILE, "")],
    ],
)
def test_nothing_is_written_elsewhere(
    members: list[tuple[str, bytes, str]], victim: Path, tmp_path: Path
) -> None:
    folder = victim.parent
    made = archive(*((name.format(folder), kind, to.format(folder)) for name, kind, to in members))

    with pytest.raises(OperationFailed, match="cannot be copied"):
        _unpack(made, tmp_path / "copy", "copy")

    assert ["victim"] == [each.name for each in folder.iterdir()]
    assert "as it was" == victim.read_text()
    assert ["elsewhere"] == [each.name for each in tmp_path.iterdir()]


@pytest.mark.parametrize(("name", "way"), [("x", "x"), ("x/new", "x")])
def test_nothing_is_written_through_a_link_of_another_name(
    name: str, way: str, victim: Path, tmp_path: Path
) -> None:
    """As where names that differ in case only are the same; here the link is there before."""
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / way).symlink_to(victim.parent)

    with pytest.raises(OperationFailed, match="cannot be copied"):
        list(_new([tarfile.TarInfo(name)], tmp_path / "copy"))
