"""`sandbox-core new --client`: a provider of an existing client."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import tomli
from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxClient
from documented import documented
from typer.testing import CliRunner

from sandbox_core.cli import scaffold
from sandbox_core.cli.app import app
from sandbox_core.cli.scaffold import write_provider
from sandbox_core.errors import InvalidRequest
from sandbox_core.providers import SandboxClientProvider

TEMPLATE = "src/sandbox_core/cli/scaffold/template/README.md.tmpl"
SANDBOXES = "agents.sandbox.sandboxes.unix_local"
CLIENT, OPTIONS = (
    f"{SANDBOXES}:UnixLocalSandboxClient",
    f"{SANDBOXES}:UnixLocalSandboxClientOptions",
)


def test_it_makes_the_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And requires the versions of the Agents SDK that sandbox-core takes, not just any."""
    write_provider("adapted", tmp_path, client=CLIENT, options=OPTIONS)
    folder = tmp_path / "sandbox-adapted"
    project = tomli.loads((folder / "pyproject.toml").read_text())["project"]
    monkeypatch.syspath_prepend(folder / "src")
    provider = importlib.import_module("sandbox_adapted").sandbox_client_provider()
    (agents,) = (each for each in project["dependencies"] if each.startswith("openai-agents"))

    assert isinstance(provider, SandboxClientProvider)
    assert isinstance(provider.create_client(), UnixLocalSandboxClient)
    assert {"adapted": "sandbox_adapted"} == project["entry-points"]["sandbox_core.providers"]
    assert "<" in agents


def test_the_readme_shows_the_client_of_a_workflow(tmp_path: Path) -> None:
    shown = documented(TEMPLATE, "from sandbox_core.workflow").content.replace("$name", "acme")
    write_provider("acme", tmp_path)
    page: dict[str, Any] = {}
    exec(shown, page)

    assert shown in (tmp_path / "sandbox-acme" / "README.md").read_text(encoding="utf-8")
    assert page["client"].backend_id == "acme"


def test_a_name_that_is_taken_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if the other one is not installed here: two of one name would be a broken provider."""
    with pytest.raises(InvalidRequest, match=r"'docker' is the name of sandbox-docker \d"):
        write_provider("docker", tmp_path)
    monkeypatch.setattr(scaffold, "discover", list)  # As where no provider is installed.
    with pytest.raises(InvalidRequest, match="'docker' is the name of sandbox-docker already"):
        write_provider("docker", tmp_path)

    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("client", "options", "said"),
    [
        (CLIENT, None, "come together"),
        ("acme", OPTIONS, "'acme' names no class"),
        ("acme_of_nobody:Client", OPTIONS, "acme_of_nobody:Client cannot be imported here"),
        (f"{SANDBOXES}:Misspelt", OPTIONS, "Misspelt cannot be imported here"),
        (OPTIONS, OPTIONS, "is not a subclass of .*BaseSandboxClient"),
        (CLIENT, CLIENT, "is not a subclass of .*BaseSandboxClientOptions"),
    ],
)
def test_a_class_that_will_not_do_is_refused(
    tmp_path: Path, client: str, options: str | None, said: str
) -> None:
    """In one sentence, and before anything is written."""
    with pytest.raises(InvalidRequest, match=said):
        write_provider("adapted", tmp_path, client=client, options=options)

    assert [] == list(tmp_path.iterdir())


def test_the_command_says_error_with_a_colon(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["new", "docker", "--folder", str(tmp_path)])

    assert 1 == result.exit_code
    assert result.output.startswith("error: 'docker' is the name of sandbox-docker")
