"""The README's worker and workflow, exactly as printed, and a model for them.

The model requests one command, and then reports the command's output.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from agents.testing import assistant_message, function_call
from documented import documented
from openai.types.responses import ResponseOutputItem
from openai_server import Request, openai_server

README = Path(__file__).parents[1] / "README.md"
ANSWER = "There are 1229 of them.\n"

_PRIMES = "print(sum(all(n % d for d in range(2, int(n**0.5) + 1)) for n in range(2, 10000)))"


def run_worker(python: Path, folder: Path, address: str) -> subprocess.CompletedProcess[str]:
    """Paste the blocks into files and start the worker; it has to print `ANSWER`.

    Args:
        python: The interpreter.
        folder: Where the files are written, and what the worker has for a home.
        address: The Temporal server.
    """
    for block in (
        documented("README.md", "from agents import Runner"),
        documented("README.md", "import asyncio"),
    ):
        (folder / f"{block.module}.py").write_text(block.content)
    with openai_server(_answer) as server:
        return subprocess.run(
            [python, "worker.py"],
            cwd=folder,
            env={
                **os.environ,
                "HOME": str(folder),
                "SANDBOX_CORE_PROVIDERS": "bubblewrap",
                "OPENAI_AGENTS_DISABLE_TRACING": "1",
                "OPENAI_API_KEY": "s3cr3t-loopback",
                "OPENAI_BASE_URL": server.base_url,
                "TEMPORAL_ADDRESS": address,
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


def _answer(request: Request) -> list[ResponseOutputItem]:
    outputs = [i for i in request["input"] if i.get("type") == "function_call_output"]
    if not outputs:
        command = {"cmd": f"python3 -c '{_PRIMES}'"}
        return [function_call("exec_command", command, call_id="call-1")]
    return [assistant_message(f"There are {outputs[-1]['output'].splitlines()[-1]} of them.")]
