"""A backend that is down, and whose vendor's SDK gets the error at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class _Away(BaseHTTPRequestHandler):
    """What a load balancer says that has no server."""

    def _refuse(self) -> None:
        self.send_response(HTTPStatus.SERVICE_UNAVAILABLE)
        # To the SDKs that Stainless generates.
        self.send_header("x-should-retry", "false")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST = do_DELETE = _refuse  # noqa: N815 - as `http.server` calls them

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's
        pass


@contextmanager
def outage() -> Iterator[str]:
    """Yield the address of a load balancer without servers; gRPC is hung up on."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Away) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
