"""The README's worker and workflow run exactly as printed."""

from __future__ import annotations

import sys
from pathlib import Path

from readme import ANSWER, run_worker


def test_the_worker_and_the_workflow_run(temporal_address: str, tmp_path: Path) -> None:
    """Pasted into two files and started, they print the agent's answer."""
    result = run_worker(Path(sys.executable), tmp_path, temporal_address)

    assert ANSWER == result.stdout, result.stderr
