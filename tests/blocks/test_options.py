"""The options that each plugin's README shows are ones that its provider takes."""

from __future__ import annotations

from typing import Any

import pytest
from documented import ROOT, Block, blocks
from support import installed_provider

from sandbox_core.wire.agents_models import dump_options, load_options

SHOWN = [
    block for block in blocks() if block.page.startswith("plugins/") and block.language == "python"
]


def test_each_plugin_shows_its_own() -> None:
    readmes = {str(path.relative_to(ROOT)) for path in ROOT.glob("plugins/*/README.md")}

    assert readmes == {block.page for block in SHOWN}


@pytest.mark.parametrize("block", SHOWN, ids=lambda block: block.page.split("/")[1])
def test_a_provider_takes_them(block: Block) -> None:
    page: dict[str, Any] = {}
    exec(block.code, page)
    name = block.page.split("/")[1].removeprefix("sandbox-")
    provider = installed_provider(name)

    assert page["client"].backend_id == name
    if "options" in page:
        options = page["options"]
        assert isinstance(options, provider.options_type)
        assert options == load_options(dump_options(options))
