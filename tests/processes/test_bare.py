"""Neither a command nor its caller can tell whether it runs under the helper."""

from __future__ import annotations

from processes.bare import compare
from processes.bare_table import ROWS
from processes.driving import Box


def test_the_table_is_long() -> None:
    assert len(ROWS) >= 80


async def test_local(local: Box) -> None:
    differences = await compare(local, "local")

    wrong = [str(row) for row in differences if row.reason is None]
    assert not wrong, "\n".join(wrong)
