"""The README's worker and workflow, run as they stand there.

OpenAI's service cannot exist here: the real OpenAI client talks to a loopback server that asks for
one command and then reports what the command wrote.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"
PRIMES = "print(sum(all(n % d for d in range(2, int(n**0.5) + 1)) for n in range(2, 10000)))"


class _Model(BaseHTTPRequestHandler):
    """OpenAI's ``POST /responses``, for one conversation."""

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        request = json.loads(self.rfile.read(length))
        outputs = [i for i in request["input"] if i.get("type") == "function_call_output"]
        answer = json.dumps(_response(outputs[-1]["output"] if outputs else None)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args: object) -> None:
        """Keep the test's output clean."""


def _response(tool_output: str | None) -> dict[str, object]:
    if tool_output is None:
        item: dict[str, object] = {
            "type": "function_call",
            "id": "fc_1",
            "call_id": "call_1",
            "name": "exec_command",
            "arguments": json.dumps({"cmd": f"python3 -c '{PRIMES}'"}),
        }
    else:
        text = f"There are {tool_output.splitlines()[-1]} of them."
        item = {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": text, "annotations": []}],
        }
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 0,
        "model": "loopback",
        "output": [item],
        "parallel_tool_calls": False,
        "tool_choice": "auto",
        "tools": [],
        "usage": {
            "input_tokens": 1,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 1,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 2,
        },
    }


@contextmanager
def _openai() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Model) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


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

    with _openai() as base_url:
        result = subprocess.run(
            [sys.executable, "worker.py"],
            cwd=tmp_path,
            env={
                **os.environ,
                "HOME": str(tmp_path),
                "OPENAI_AGENTS_DISABLE_TRACING": "1",
                "OPENAI_API_KEY": "s3cr3t-loopback",
                "OPENAI_BASE_URL": base_url,
                "TEMPORAL_ADDRESS": temporal_address,
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    assert "There are 1229 of them.\n" == result.stdout, result.stderr


def test_every_installed_provider_is_in_the_table() -> None:
    """One row for each plugin of this repository."""
    rows = re.findall(r"^\| `([a-z0-9-]+)` \| `pip install ([a-z-]+)` \|", README.read_text(), re.M)
    plugins = sorted(path.parent.name for path in README.parent.glob("plugins/*/pyproject.toml"))

    assert plugins == sorted(distribution for _, distribution in rows)


def test_the_links_lead_somewhere() -> None:
    """Relative links are files of this repository."""
    targets = re.findall(r"\]\((?!http)([^)#]+)\)", README.read_text())

    assert targets
    assert [] == [target for target in targets if not (README.parent / target).exists()]
