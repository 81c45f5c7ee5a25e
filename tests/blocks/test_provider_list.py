"""The calls in the list of providers make providers of stand-ins, as nothing there is installed."""

from __future__ import annotations

import ast
import sys
from types import ModuleType
from typing import Any, Literal

import pytest
from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxClientOptions
from documented import Block, blocks
from pydantic import create_model

from sandbox_core.providers import SandboxClientProvider

CLIENTS = [
    block
    for block in blocks()
    if block.page == "docs/provider-list.md" and block.language == "python"
]


@pytest.mark.parametrize("block", CLIENTS, ids=lambda block: block.first.split()[1])
def test_a_call_makes_a_provider(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    (theirs,) = (
        node
        for node in ast.parse(block.content).body
        if isinstance(node, ast.ImportFrom) and node.module != "sandbox_core.providers"
    )
    module = ModuleType(theirs.module or "")
    name, base = theirs.names[0].name, UnixLocalSandboxClientOptions
    monkeypatch.setattr(base, "_subclass_registry", {**base._subclass_registry})
    kind = f"stand-in-{module.__name__}"
    literal: Any = Literal[kind]
    options = create_model(name, __base__=base, type=(literal, kind))
    setattr(module, name, options)
    # A stand-in: these clients are not installed, and only the call itself is checked here.
    monkeypatch.setitem(sys.modules, module.__name__, module)
    page: dict[str, Any] = {}
    exec(block.content, page)

    assert isinstance(page["provider"], SandboxClientProvider)
    assert page["provider"].options_type is options
    assert f'"{page["provider"].name}"' in block.content
