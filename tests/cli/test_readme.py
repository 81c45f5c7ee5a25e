"""The README's worker and workflow run exactly as printed.

The model requests one command, and then reports the command's output.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from agents.testing import assistant_message, function_call
from openai.types.responses import ResponseOutputItem
from openai_server import Request, openai_server

README = Path(__file__).parents[2] / "README.md"
PRIMES = "print(sum(all(n % d for d in range(2, int(n**0.5) + 1)) for n in range(2, 10000)))"


def _answer(request: Request) -> list[ResponseOutputItem]:
    outputs = [i for i in request["input"] if i.get("type") == "function_call_output"]
    if not outputs:
        command = {"cmd": f"python3 -c '{PRIMES}'"}
        return [function_call("exec_command", command, call_id="call-1")]
    return [assistant_message(f"There are {outputs[-1]['output'].splitlines()[-1]} of them.")]


def _code_blocks() -> dict[str, str]:
    """Return the Python blocks of the README by the file that the text above each one names."""
    blocks = re.findall(r"`(\w+\.py)`[^\n]*\n\n```python\n(.*?)```", README.read_text(), re.DOTALL)
    return dict(blocks)


def test_the_worker_and_the_workflow_run(temporal_address: str, tmp_path: Path) -> None:
    """Pasted into two files and started, they print the agent's answer."""
    blocks = _code_blocks()
    assert {"workflow.py", "worker.py"} == set(blocks)
    for name, code in blocks.items():
        (tmp_path / name).write_text(code)

    with openai_server(_answer) as server:
        result = subprocess.run(
            [sys.executable, "worker.py"],
            cwd=tmp_path,
            env={
                **os.environ,
                "HOME": str(tmp_path),
                "SANDBOX_CORE_PROVIDERS": "bubblewrap",
                "OPENAI_AGENTS_DISABLE_TRACING": "1",
                "OPENAI_API_KEY": "s3cr3t-loopback",
                "OPENAI_BASE_URL": server.base_url,
                "TEMPORAL_ADDRESS": temporal_address,
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    assert "There are 1229 of them.\n" == result.stdout, result.stderr


def test_the_links_lead_somewhere() -> None:
    """Relative links are files of this repository."""
    targets = re.findall(r"\]\((?!http)([^)#]+)\)", README.read_text())

    assert targets
    assert [] == [target for target in targets if not (README.parent / target).exists()]
