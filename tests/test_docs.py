"""The documentation matches the code."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


@pytest.fixture
def generate() -> ModuleType:
    """The script that makes pages anew: ``python docs/generate.py``."""
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_operations_is_made_from_the_table(generate: ModuleType) -> None:
    assert generate.render_operations() == generate.OPERATIONS.read_text(encoding="utf-8")


def test_the_commands_are_listed_from_their_help(generate: ModuleType) -> None:
    assert generate.render_cli() == generate.CLI.read_text(encoding="utf-8")


def test_the_metrics_are_listed_from_their_table(generate: ModuleType) -> None:
    assert generate.render_observe() == generate.OBSERVE.read_text(encoding="utf-8")


def test_the_page_of_the_configuration_is_made_from_the_table(generate: ModuleType) -> None:
    assert generate.render_configuration() == generate.CONFIGURATION.read_text(encoding="utf-8")


def test_the_readme_has_a_row_for_each_plugin(generate: ModuleType) -> None:
    assert generate.render_readme() == generate.README.read_text(encoding="utf-8")


def test_each_plugin_is_advised_to_be_installed(generate: ModuleType) -> None:
    assert generate.render_published() == generate.PUBLISHED.read_text(encoding="utf-8")


def test_the_list_of_providers_is_made_from_its_data(generate: ModuleType) -> None:
    assert generate.render_provider_list() == generate.PROVIDER_LIST.read_text(encoding="utf-8")


def test_the_contract_lists_every_promise_that_is_checked(generate: ModuleType) -> None:
    assert generate.render_contract() == generate.CONTRACT.read_text(encoding="utf-8")


def _texts(*patterns: str) -> dict[str, str]:
    """Return the tracked files that match, by their paths."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", *patterns], cwd=ROOT, capture_output=True, text=True, check=True
    )
    paths = [path for path in listed.stdout.split("\0") if path and (ROOT / path).exists()]
    return {path: (ROOT / path).read_text(encoding="utf-8") for path in paths}


def test_the_command_is_named_by_the_name_that_is_always_ours() -> None:
    """Vercel's SDK installs a `sandbox` too."""
    alias = re.compile(
        r"(?:[`'\"]|^(?: *\$)? *|&& |=\S+ )sandbox\s+"
        r"(audit|check|demo|dev|doctor|ls|new|providers|reap|rm|storage|worker)\b",
        re.M,
    )
    texts = _texts("*.md", "*.py", "*.tmpl", "*.yml", "*.toml", "Makefile", ":!CHANGELOG.md")

    assert {} == {path: found[0] for path, text in texts.items() if (found := alias.search(text))}


def test_architecture_names_only_paths_that_exist() -> None:
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([\w/.]+/[\w.]*|[\w/]+\.(?:py|md|toml))`", text))
    roots = (ROOT, ROOT / "src" / "sandbox_core")

    assert len(named) > 10
    assert set() == {path for path in named if not any((root / path).exists() for root in roots)}
