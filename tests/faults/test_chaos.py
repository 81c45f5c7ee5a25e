"""Whatever is killed at any time, every line is written once and in order, and nothing is left.

`make chaos` runs it for half an hour per backend; see `faults.chaos.rounds`.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from faults.chaos import LONGEST_S, rounds


@pytest.mark.extended
@pytest.mark.chaos
@pytest.mark.timeout(LONGEST_S)
async def test_every_line_is_written_once_and_in_order(tmp_path: Path) -> None:
    total = await rounds(
        "local", tmp_path, lambda temporary: list(map(str, temporary.glob("sandbox-local-*")))
    )

    assert total.workers_killed + total.servers_killed > 0
    assert [] == total.violations
