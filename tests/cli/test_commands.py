"""The `sandbox-core` command, run as a user runs it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from cli.command import run_sandbox, running_sandbox
from local_backend import LocalProvider

from sandbox_core import __version__
from sandbox_core.cli.check import check_provider
from sandbox_core.cli.providers import list_providers
from sandbox_core.errors import UnknownProvider
from sandbox_core.providers import discover
from sandbox_core.wire.published import how_to_install


class TestProviders:
    """`sandbox-core providers`."""

    def test_lists_what_is_installed(self) -> None:
        """One line for each provider, and nothing is wrong."""
        result = run_sandbox("providers")

        assert 0 == result.returncode
        lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
        header = "NAME STATUS DISTRIBUTION CONTRACT HOST-BOUND DURABLE"
        abilities = "IDENTITY EXISTS DESTROY LABELS RELABEL CHECK HOST PROCESSES PROCESS STREAMS"
        assert f"{header} {abilities}" == lines[0]
        assert (
            f"local ok sandbox-local {__version__} 1 yes yes yes yes yes yes yes yes yes no"
            in lines
        )
        assert (
            f"daytona ok sandbox-daytona {__version__} 1 no yes yes yes yes yes yes yes no no"
            in lines
        )

    def test_prints_json_for_programs(self) -> None:
        """Every field is there, whatever the status."""
        result = run_sandbox("providers", "--json", SANDBOX_CORE_DISABLED_PROVIDERS="daytona")

        assert 0 == result.returncode
        reports = {report["name"]: report for report in json.loads(result.stdout)}
        assert {
            "name": "local",
            "status": "ok",
            "distribution": "sandbox-local",
            "version": __version__,
            "summary": "Directories and processes of the worker's host, unconfined",
            "api_version": 1,
            "capabilities": {
                "host_bound": True,
                "durable_processes": True,
                "identity": True,
                "exists": True,
                "destroy": True,
                "labels": True,
                "relabel": True,
                "check": True,
                "host processes": True,
                "process streams": False,
            },
            "error": None,
            "warnings": [],
        } == reports["local"]
        assert "disabled" == reports["daytona"]["status"]

    def test_check_says_why_a_backend_cannot_be_used(self) -> None:
        """And the exit code tells a script."""
        result = run_sandbox("providers", "--check")

        assert 1 == result.returncode
        said = "daytona: DaytonaAuthenticationError: Authentication credentials"
        assert said in result.stdout

    async def test_check_bounds_its_wait_for_a_backend(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Also where one blocks its event loop, or keeps a thread that Python would wait for."""
        monkeypatch.setenv("SANDBOX_CORE_PROVIDERS", "local")

        async def check(self: LocalProvider, client: object) -> None:
            await asyncio.to_thread(threading.Event().wait, 5)

        monkeypatch.setattr(LocalProvider, "check", check)
        left: list[int] = []
        monkeypatch.setattr(os, "_exit", left.append)
        code = await list_providers(as_json=False, check=True, check_within_s=0.5)

        assert ([1], 1) == (left, code)
        assert "local: it did not answer within 0.5 s" in capsys.readouterr().out

    def test_a_required_provider_that_is_missing_is_one_clear_error(self) -> None:
        """The message names the variable and the command that installs it."""
        result = run_sandbox("providers", SANDBOX_CORE_PROVIDERS="local,moon")

        assert 1 == result.returncode
        installed = ", ".join(repr(candidate.name) for candidate in discover())
        advice = how_to_install("moon")
        assert (
            f"error: SANDBOX_CORE_PROVIDERS requires 'moon', which is not installed here. "
            f"Installed: {installed}. Install it ({advice}) or take it off the list."
        ) == " ".join(result.stderr.split())


class TestDemo:
    """`sandbox-core demo`."""

    def test_repairs_the_project_and_leaves_nothing_behind(self) -> None:
        """It shows each activity, the diff, the tests before and after, and the history."""
        result = run_sandbox("demo", "--provider", "local")

        assert 0 == result.returncode, result.stdout + result.stderr
        shown = result.stdout
        assert "Model: a script, as OPENAI_API_KEY is not set." in shown
        assert re.search(r"✓ local-sandbox_pty_exec_start +\d+ ms  python3 -m unittest -v", shown)
        assert "+    return sum(item.price * item.quantity for item in items)" in shown
        before, after = shown.split("Diff ─")
        assert "FAILED (failures=2)" in before
        assert "FAILED" not in after
        assert re.search(r"History: \d+ events, [\d,]+ bytes", shown)
        assert "Tests in the sandbox: pass" in shown
        assert "Sandboxes: 1 created, 1 deleted, none left" in shown
        workspaces = set(re.findall(r"/\S+/sandbox-local-\w+", shown))
        assert workspaces
        assert [] == [path for path in workspaces if Path(path).exists()]

    @pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
    def test_stops_its_server_when_it_is_stopped(
        self, signum: signal.Signals, tmp_path: Path
    ) -> None:
        """Nothing of it goes on in the background, and no sandbox stays."""
        with running_sandbox("demo", "--provider", "local", TMPDIR=str(tmp_path)) as demo:
            process, output, _ = demo
            shown = ""
            while "local-sandbox_start" not in shown:
                line = output.readline()
                assert line, shown
                shown += line
            process.send_signal(signum)
            assert 128 + signum == process.wait()

        ui_port = re.search(r"http://127\.0\.0\.1:(\d+)/", shown)
        assert ui_port is not None
        with socket.socket() as client:
            assert 0 != client.connect_ex(("127.0.0.1", int(ui_port[1])))
        assert [] == list(tmp_path.glob("sandbox-local-*"))

    def test_an_unknown_provider_is_one_clear_error(self) -> None:
        """Nothing is started."""
        result = run_sandbox("demo", "--provider", "moon")

        assert 1 == result.returncode
        assert "" == result.stdout
        installed = ", ".join(candidate.name for candidate in discover())
        assert (
            f"error: provider 'moon' is not installed here. Installed: {installed}. Install it: "
            f"{how_to_install('moon')}"
        ) == " ".join(result.stderr.split())

    def test_a_backend_without_credentials_fails_at_once(self) -> None:
        """The vendor's own message says what is missing."""
        result = run_sandbox("demo", "--provider", "daytona")

        assert 1 == result.returncode
        assert (
            f"provider 'daytona' (sandbox-daytona {__version__}) is installed but cannot be used"
            in result.stderr
        )
        assert "Set DAYTONA_API_KEY" in result.stderr
        assert "has not ended" not in result.stderr


class TestDev:
    """`sandbox-core dev`."""

    @pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
    def test_serves_until_it_is_stopped(self, signum: signal.Signals) -> None:
        """The server and the worker stop together, with exit code 0."""
        with running_sandbox("dev", "--port", "0", "--ui-port", "0") as dev:
            process, output, _ = dev
            shown = "".join(output.readline() for _ in range(5))
            process.send_signal(signum)
            assert 0 == process.wait()

        assert re.search(r"^Temporal   127\.0\.0\.1:\d+$", shown, re.MULTILINE)
        assert "Task queue sandbox" in shown
        assert f"Providers  {', '.join(candidate.name for candidate in discover())}" in shown

    @pytest.mark.parametrize("option", ["--port", "--ui-port"])
    def test_a_port_that_cannot_be_is_a_wrong_option(self, option: str) -> None:
        result = run_sandbox("dev", option, "99999999")

        assert 2 == result.returncode
        assert "65535" in result.stderr

    def test_a_running_server_is_not_taken_for_its_own(self) -> None:
        """It would be said to stop with the command."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            result = run_sandbox("dev", "--port", str(port))

        assert 1 == result.returncode
        assert result.stderr.startswith(f"error: port {port} is in use")


class TestCheck:
    """`sandbox-core check`."""

    def test_a_known_failure_that_does_not_fail_is_an_error(self) -> None:
        """The list stays true."""
        name = "package.it_is_typed"
        result = run_sandbox("check", "local", "--only", name, "--known", f"{name}=not yet")

        assert 1 == result.returncode
        assert "it is kept, but listed as broken: not yet" in result.stdout

    @pytest.mark.parametrize(
        ("known", "said"),
        [
            ("package.it_is_typed", "gives no reason; write NAME=WHY"),
            ("package.it_is_red=why", "there is no check 'package.it_is_red'"),
        ],
    )
    def test_a_known_failure_needs_a_name_and_a_reason(self, known: str, said: str) -> None:
        result = run_sandbox("check", "local", "--known", known)

        assert 1 == result.returncode
        assert said in result.stderr

    async def test_an_entry_point_that_nothing_reads_is_said(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is why a provider that has just been installed is not."""
        metadata = tmp_path / "acme_unread-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text("Name: acme-unread\nVersion: 1.0\n")
        points = "[sandbox_core.provider]\nunread = acme_unread\n"
        (metadata / "entry_points.txt").write_text(points)
        monkeypatch.syspath_prepend(tmp_path)  # Which installs the distribution.

        with pytest.raises(UnknownProvider, match=r"acme-unread 1\.0 names .* nothing reads"):
            await check_provider(
                "unread",
                levels=(),
                only=(),
                slow=True,
                known=(),
                max_sandboxes=4,
                as_json=False,
                output=None,
            )

    def test_a_client_that_cannot_be_made_is_one_error(self) -> None:
        """Not a broken promise for each check."""
        variables = {"E2B_API_KEY": ""}
        result = run_sandbox("check", "e2b", "--only", "commands.*", **variables)

        assert 1 == result.returncode
        assert result.stderr.startswith("error: create_client() of 'e2b' failed: ")
        assert "client.py:" in result.stderr or "__init__.py:" in result.stderr
        assert "" == result.stdout


def test_ctrl_c_during_the_imports_is_not_an_error_of_the_program() -> None:
    script = (
        "import sys; from sandbox_core.cli import main\n"
        "class Interrupted:\n"
        "    def find_spec(name, path, target=None):\n"
        "        if name == 'typer': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupted); main()"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert (130, "", "") == (result.returncode, result.stdout, result.stderr)
