"""`sandbox-core worker` connects with TLS, a client certificate and an API key, by a profile.

The dev server speaks no TLS: a proxy in front of it does, and requires a client certificate.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import trustme
from cli.command import SANDBOX, environment
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from support import unique

API_KEY = "s3cr3t-api-key"


class Proxy:
    """Passes connections on to the server, and keeps what was sent."""

    def __init__(self, address: str) -> None:
        self._host, _, self._port = address.rpartition(":")
        self.sent = b""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection(self._host, int(self._port))
        with suppress(OSError):
            await asyncio.gather(
                self._pump(reader, to_server, kept=True), self._pump(from_server, writer)
            )

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, kept: bool = False
    ) -> None:
        while data := await source.read(65536):
            self.sent += data if kept else b""
            sink.write(data)
            await sink.drain()
        sink.close()

    def was_sent(self, text: str) -> bool:
        """Return whether a header had this text, which HTTP/2 compresses."""
        encoder = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)
        return encoder.encode(text.encode())[:-1] in self.sent


@asynccontextmanager
async def tls_proxy(address: str, folder: Path) -> AsyncIterator[tuple[Proxy, str]]:
    """Yield a proxy and its address; the certificates are in `folder`."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    client = authority.issue_cert("worker@example.com")
    client.cert_chain_pems[0].write_to_path(folder / "client.pem")
    client.private_key_pem.write_to_path(folder / "client.key")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["h2"])
    proxy = Proxy(address)
    server = await asyncio.start_server(proxy.serve, "localhost", 0, ssl=context)
    try:
        yield proxy, f"localhost:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def ready(process: asyncio.subprocess.Process) -> str:
    """Return what a worker has logged when it takes work."""
    assert process.stderr is not None
    logged = ""
    async for line in process.stderr:
        logged += line.decode()
        if "task queue" in logged:
            return logged
    raise AssertionError(logged)


@asynccontextmanager
async def worker(folder: Path, **variables: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(SANDBOX, "worker", "--task-queue", unique("tls")),
        cwd=folder,
        env=environment(SANDBOX_CORE_PROVIDERS="local", **variables),
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.communicate()


async def test_connects_as_a_profile_says(temporal_address: str, tmp_path: Path) -> None:
    """And refuses a server that another authority has vouched for."""
    async with tls_proxy(temporal_address, tmp_path) as (proxy, address):
        (tmp_path / "temporal.toml").write_text(
            f"""\
[profile.cloud]
address = "{address}"
api_key = "{API_KEY}"
[profile.cloud.tls]
server_ca_cert_path = "ca.pem"
client_cert_path = "client.pem"
client_key_path = "client.key"
"""
        )
        profile = {"TEMPORAL_CONFIG_FILE": "temporal.toml", "TEMPORAL_PROFILE": "cloud"}
        async with worker(tmp_path, **profile) as process:
            logged = await ready(process)
            assert address in logged
            assert API_KEY not in logged
            assert proxy.was_sent(f"Bearer {API_KEY}")
            assert not proxy.was_sent("Bearer another")

        # With a key, TLS is on, with the system's authorities, of which this one is none.
        variables = {"TEMPORAL_ADDRESS": address, "TEMPORAL_API_KEY": API_KEY}
        async with worker(tmp_path, **variables) as process:
            _, stderr = await process.communicate()
            assert 1 == process.returncode
            assert f"error: cannot connect to Temporal at {address}" in stderr.decode()
            assert "UnknownIssuer" in stderr.decode()
            assert API_KEY not in stderr.decode()
