"""What `sandbox-core demo --chaos` shows, on any backend."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

SANDBOX = Path(sys.executable).parent / "sandbox-core"
LONGEST_S = 100


def environment(**variables: str) -> dict[str, str]:
    return {**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "80", **variables}


def assert_whole(shown: str, provider: str) -> None:
    """Assert that it shows the kill, the second attempt, and that nothing was lost."""
    killed = re.search(r"Worker (\d+) is killed with SIGKILL", shown)
    assert killed is not None, shown
    second = re.search(rf"✓ {provider}-sandbox_exec +worker (\d+)", shown)
    assert second is not None, shown
    assert killed[1] != second[1]
    assert f"{provider}-sandbox_exec, attempt 2, after: activity Heartbeat timeout" in shown
    assert "The command ran once, as its own counter says." in shown
    assert "Its output is whole: 7 lines of 7, exit code 0." in shown
    assert "Sandboxes: 1 created, 1 deleted, none left" in shown
