"""Provider `blaxel`: the vendor's SDK against the loopback server."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from agents.extensions.sandbox.blaxel import BlaxelSandboxClientOptions
from blaxel_loopback import BlaxelLoopback
from contract.labelled import (
    LABELS,
    create,
    find_ids,
)
from loopback.http_faults import (
    HttpFaults,
)

from sandbox_blaxel import BlaxelOptions, BlaxelProvider

if TYPE_CHECKING:  # Blaxel's SDK reads the credentials when it is imported.
    from sandbox_blaxel.client import LabellingBlaxelSandboxClient

pytest_plugins = ["blaxel_fixtures"]


class TestOptions:
    """The options, which are not the SDK's own class."""

    def test_have_what_the_sdks_have(self) -> None:
        """Field by field, with the same defaults."""
        assert BlaxelSandboxClientOptions() == BlaxelOptions().for_sdk()
        given = BlaxelOptions(image="blaxel/py-app", memory=2048, ttl="1h", labels={"a": "b"})
        assert "blaxel/py-app" == given.for_sdk().image
        assert given == BlaxelOptions.model_validate_json(given.model_dump_json())


class TestLifecycle:
    """At Blaxel."""

    async def test_a_large_file_is_sent_in_parts(
        self, provider: BlaxelProvider, client: LabellingBlaxelSandboxClient
    ) -> None:
        """From five megabytes on."""
        session = await client.create(options=provider.default_options())
        await session.start()
        content = bytes(range(256)) * 4096 * 11
        await session.write(Path("large"), io.BytesIO(content))

        assert content == (await session.read(Path("large"))).read()


class TestFault(HttpFaults):
    """Of Blaxel's API."""

    create = "POST /v0/sandboxes"
    lookup = "GET /v0/sandboxes/.+"
    delete = "DELETE /v0/sandboxes/.+"
    execute = "POST /inside/.+/process"
    listing = "GET /v0/sandboxes"
    at_capacity = (429, {"code": 429, "error": "TOO_MANY", "message": "too many sandboxes"})
    refused_for_now = (409, 502)


class TestFind:
    """The sandboxes of a workspace."""

    async def test_every_page_of_the_list_is_read(
        self,
        server: BlaxelLoopback,
        provider: BlaxelProvider,
        client: LabellingBlaxelSandboxClient,
    ) -> None:
        """The last one counts, whether it is full or not."""
        server.page_size = 2
        made = {provider.identity((await create(provider, client, LABELS)).state) for _ in range(5)}

        assert made == set(await find_ids(provider, client, LABELS))


class TestRelabel:
    """Labels that change."""

    async def test_of_a_sandbox_that_is_unknown_is_an_error(
        self, provider: BlaxelProvider, client: LabellingBlaxelSandboxClient
    ) -> None:
        """Nothing is there that could have labels."""
        from blaxel.core.sandbox import SandboxAPIError

        with pytest.raises(SandboxAPIError):
            await provider.relabel(client, "unknown", {"a": "b"})
