"""A loopback server in place of OpenAI's service, for the real OpenAI client."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from openai.types.responses import ResponseOutputItem

Request = dict[str, Any]


@dataclass(frozen=True)
class OpenAIServer:
    """Where it is, and what it has been asked, in order."""

    base_url: str
    requests: list[Request] = field(default_factory=list)


@contextmanager
def openai_server(
    answer: Callable[[Request], Sequence[ResponseOutputItem]],
) -> Iterator[OpenAIServer]:
    """Serve ``POST /responses``; `answer` takes the request's body and returns the output."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.requests.append(request)
            body = json.dumps(_response(request["model"], answer(request))).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Keep the test's output clean."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        asked = OpenAIServer(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield asked
        finally:
            server.shutdown()
            thread.join()


def _response(model: str, output: Sequence[ResponseOutputItem]) -> dict[str, object]:
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 0,
        "model": model,
        "output": [item.model_dump(mode="json", exclude_unset=True) for item in output],
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
