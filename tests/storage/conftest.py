"""A real S3 server on loopback, and stores of each kind."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import unique

from sandbox_core.storage.object_store import ObjectStore

_ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+")


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The endpoint of an S3 server, a process of its own."""
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert server.stdout is not None
    try:
        printed = []
        for line in server.stdout:
            printed.append(line)
            found = _ADDRESS.search(line)
            if found:
                break
        else:
            pytest.fail(f"the S3 server did not start: {''.join(printed)}")
        # It logs each request, and would wait once the pipe is full.
        threading.Thread(target=server.stdout.read, daemon=True).start()
        yield found[0]
    finally:
        server.terminate()
        server.wait()


@pytest.fixture
def s3_environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """What a worker's environment has for S3, but for the endpoint."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "s3cr3t-key-id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cr3t-key")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    return monkeypatch


@pytest.fixture
def s3_url(s3_server: str, s3_environment: pytest.MonkeyPatch) -> str:
    """The URL of a place in a bucket of the S3 server."""
    s3_environment.setenv("AWS_ENDPOINT_URL", s3_server)
    bucket = unique("bucket")
    urllib.request.urlopen(urllib.request.Request(f"{s3_server}/{bucket}", method="PUT")).close()
    return f"s3://{bucket}/some/prefix"


@pytest.fixture
def unreachable_url(s3_environment: pytest.MonkeyPatch) -> str:
    """The URL of a store at a port where nobody listens."""
    s3_environment.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    return "s3://bucket/prefix"


@pytest.fixture(params=["directory", "memory", "s3"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty store of each kind."""
    if request.param == "directory":
        return str(tmp_path / "store")
    if request.param == "memory":
        return f"memory://{unique('store')}/prefix"
    return str(request.getfixturevalue("s3_url"))


@pytest.fixture
def store(store_url: str) -> ObjectStore:
    return ObjectStore(store_url)
