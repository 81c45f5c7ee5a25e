"""The README's worker and workflow run exactly as printed."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from readme import ANSWER, README, code_blocks, run_worker


def test_the_worker_and_the_workflow_run(temporal_address: str, tmp_path: Path) -> None:
    """Pasted into two files and started, they print the agent's answer."""
    assert {"workflow.py", "worker.py"} == set(code_blocks())

    result = run_worker(Path(sys.executable), tmp_path, temporal_address)

    assert ANSWER == result.stdout, result.stderr


def test_the_links_lead_somewhere() -> None:
    """Relative links are files of this repository."""
    targets = re.findall(r"\]\((?!http)([^)#]+)\)", README.read_text())

    assert targets
    assert [] == [target for target in targets if not (README.parent / target).exists()]
