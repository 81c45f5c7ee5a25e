"""A package index on loopback, for plain pip: the "simple" API of PEP 503."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@contextmanager
def package_index(folder: Path) -> Iterator[str]:
    """Serve the distributions of a folder, and yield the URL of the index.

    For other projects it redirects to the index that pip has here. With two indexes side by side,
    pip would take the later version, whoever has published it.
    """
    others = _configured_index()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kind, _, name = self.path.strip("/").partition("/")
            found = _of_project(folder, name) if kind == "simple" else []
            if kind == "files" and name in {file.name for file in folder.iterdir()}:
                self._answer((folder / name).read_bytes(), "application/octet-stream")
            elif found:
                self._answer("\n".join(map(_link, found)).encode(), "text/html")
            else:
                self.send_response(302)
                self.send_header("Location", f"{others}/{name}/")
                self.end_headers()

        def _answer(self, content: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            """Keep the test's output clean."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/simple/"
        finally:
            server.shutdown()
            thread.join()


def _of_project(folder: Path, name: str) -> list[Path]:
    prefix = re.sub(r"[-_.]+", "_", name).lower()
    return sorted(file for file in folder.iterdir() if file.name.startswith(f"{prefix}-"))


def _link(file: Path) -> str:
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return f'<a href="/files/{file.name}#sha256={digest}">{file.name}</a>'


def _configured_index() -> str:
    command = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout.strip() or "https://pypi.org/simple").rstrip("/")
