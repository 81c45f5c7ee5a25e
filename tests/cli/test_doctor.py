"""`sandbox-core doctor`, run as an operator runs it."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from cli.command import SANDBOX, environment, run_sandbox
from cli.site import UNABLE, install
from local_backend import LocalProvider

from sandbox_core import __version__
from sandbox_core.cli import ending
from sandbox_core.cli.doctor.findings import Finding, without_secrets
from sandbox_core.cli.providers import report_providers
from sandbox_core.config import OTHER_VARIABLES, SETTINGS, load_configuration

ROOT = Path(__file__).parents[2]
NOBODY = "127.0.0.1:1"


class Doctor:
    """Runs the command with a state directory of its own, and returns its exit code."""

    def __init__(self, address: str, state: Path) -> None:
        self.address = address
        self.state = state
        self.shown = ""

    def run(self, *arguments: str, **variables: str) -> int:
        defaults = {
            "SANDBOX_CORE_PROVIDERS": "local",
            "TEMPORAL_ADDRESS": self.address,
            "XDG_STATE_HOME": str(self.state),
        }
        result = run_sandbox("doctor", *arguments, **{**defaults, **variables})
        assert result.returncode in (0, 1), result.stderr
        self.shown = result.stdout + result.stderr
        self.output = result.stdout
        return result.returncode

    def find(self, *arguments: str, **variables: str) -> tuple[int, dict[str, Any]]:
        code = self.run("--json", *arguments, **variables)
        report = json.loads(self.output)
        assert all(each["fix"] for each in report["findings"] if each["verdict"] != "ok")
        assert code == int(report["verdict"] == "problem")
        return code, {each["check"]: each for each in report["findings"]}


@pytest.fixture
def doctor(temporal_address: str, tmp_path: Path) -> Doctor:
    return Doctor(temporal_address, tmp_path / "state")


class TestFindings:
    """What is seen, and what it exits with."""

    def test_a_host_that_works_has_no_problem(self, doctor: Doctor) -> None:
        """And the check leaves nothing behind, not even the default directory."""
        code, found = doctor.find()

        assert 0 == code
        assert (
            f"{doctor.address} (TEMPORAL_ADDRESS), version 1." in found["temporal server"]["seen"]
        )
        assert "default" == found["temporal namespace"]["seen"]
        assert "up to 2,097,152 bytes are accepted" in found["temporal payloads"]["seen"]
        assert "an object was written, read and deleted" == found["storage access"]["seen"]
        assert "warning" == found["storage sharing"]["verdict"]
        assert f"sandbox-local {__version__}: usable" == found["provider local"]["seen"]
        assert "warning" == found["isolation"]["verdict"]
        assert "local isolates nothing" in found["isolation"]["seen"]
        assert re.match(r"Python 3\.\d+\.\d+, sandbox-core ", found["versions"]["seen"])
        assert not doctor.state.exists()

    def test_the_table_has_the_fix_below_what_was_seen(self, doctor: Doctor) -> None:
        """In a pipe, no text is wrapped."""
        assert 1 == doctor.run("--namespace", "moon")

        lines = [" ".join(line.split()) for line in doctor.output.splitlines()]
        assert "VERDICT CHECK SEEN" == lines[0]
        row = lines.index("problem temporal namespace moon does not exist")
        assert lines[row + 1].startswith("fix: set --namespace or TEMPORAL_NAMESPACE, or create it")

    def test_without_a_server_the_rest_is_checked_all_the_same(self, doctor: Doctor) -> None:
        code, found = doctor.find("--address", NOBODY)

        assert 1 == code
        server = found["temporal server"]
        assert f"{NOBODY} (--address): Connection refused" == server["seen"]
        assert "sandbox-core dev" in server["fix"]
        assert "ok" == found["storage access"]["verdict"]
        assert "ok" == found["provider local"]["verdict"]

    def test_a_provider_without_credentials_is_a_problem(self, doctor: Doctor) -> None:
        code, found = doctor.find(SANDBOX_CORE_PROVIDERS="daytona")

        assert 1 == code
        assert "Set DAYTONA_API_KEY" in found["provider daytona"]["seen"]
        assert "isolation" not in found  # Nothing runs on this host.

    def test_to_turn_off_one_more_provider_extends_the_list(self, doctor: Doctor) -> None:
        """A list in a variable would take the place of the present one."""
        _, found = doctor.find(
            SANDBOX_CORE_PROVIDERS="", SANDBOX_CORE_DISABLED_PROVIDERS="docker,modal"
        )

        expected = "or add it to SANDBOX_CORE_DISABLED_PROVIDERS"
        assert found["provider daytona"]["fix"].endswith(expected)

    def test_a_provider_that_is_not_installed_is_a_problem(self, doctor: Doctor) -> None:
        code, found = doctor.find(SANDBOX_CORE_PROVIDERS="moon")

        assert 1 == code
        assert "requires 'moon', which is not installed here" in found["providers"]["seen"]

    def test_an_ability_that_is_missing_is_named_with_its_cost(
        self, doctor: Doctor, tmp_path: Path
    ) -> None:
        install(tmp_path, "unable", UNABLE)
        code, found = doctor.find(SANDBOX_CORE_PROVIDERS="unable", PYTHONPATH=str(tmp_path))

        assert 0 == code
        seen = found["provider unable"]["seen"]
        assert seen.startswith("acme-unable 1.0: usable; no identity: ")
        assert "no relabel: `sandbox-core reap` cannot be used" in seen
        assert "no check: `sandbox-core providers --check` cannot tell" in seen

    def test_a_provider_that_is_turned_off_is_no_problem(self, doctor: Doctor) -> None:
        code, found = doctor.find()

        assert 0 == code
        assert "turned off by SANDBOX_CORE_PROVIDERS" in found["provider daytona"]["seen"]

    def test_isolation_that_cannot_be_used_is_a_warning(self, doctor: Doctor) -> None:
        _, found = doctor.find(
            SANDBOX_CORE_PROVIDERS="bubblewrap,local", SANDBOX_BUBBLEWRAP_BWRAP="/bin/false"
        )

        assert "problem" == found["provider bubblewrap"]["verdict"]
        assert "bubblewrap cannot be used here" in found["isolation"]["seen"]


class TestStorage:
    """Where it is, and whether objects can be kept there."""

    def test_a_directory_keeps_nothing_of_the_check(self, doctor: Doctor, tmp_path: Path) -> None:
        code, found = doctor.find(SANDBOX_CORE_STORAGE=str(tmp_path))

        assert 0 == code
        assert f"{tmp_path.as_uri()} (SANDBOX_CORE_STORAGE)" == found["storage location"]["seen"]
        assert "ok" == found["storage sharing"]["verdict"]
        assert [] == list(tmp_path.iterdir())

    def test_a_place_where_nothing_can_be_written(self, doctor: Doctor, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        code, found = doctor.find("--storage", str(tmp_path / "file"))

        assert 1 == code
        assert "(--storage)" in found["storage location"]["seen"]
        assert "not a directory" in found["storage access"]["seen"]

    def test_a_cloud_that_refuses_is_a_problem_with_the_variables_to_set(
        self, doctor: Doctor
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as refusing:
            port = refusing.getsockname()[1]

            def refuse() -> None:
                while True:
                    try:
                        connection, _ = refusing.accept()
                    except OSError:
                        return
                    with connection:
                        connection.recv(65536)
                        connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

            thread = threading.Thread(target=refuse, daemon=True)
            thread.start()
            code, found = doctor.find(
                SANDBOX_CORE_STORAGE="s3://bucket/prefix",
                AWS_ENDPOINT_URL=f"http://127.0.0.1:{port}",
                AWS_ALLOW_HTTP="true",
                AWS_ACCESS_KEY_ID="s3cr3t-id",
                AWS_SECRET_ACCESS_KEY="s3cr3t-key",
                AWS_REGION="moon-1",
            )
            refusing.shutdown(socket.SHUT_RDWR)
        thread.join()

        assert 1 == code
        assert "cannot write doctor-" in found["storage access"]["seen"]
        assert "AWS_SECRET_ACCESS_KEY" in found["storage access"]["fix"]
        assert "s3cr3t" not in doctor.shown

    @pytest.mark.parametrize("storage", ["s3://id:s3cr3t@bucket", "id:s3cr3t@bucket", "s3cr3t"])
    def test_a_text_that_is_no_location_may_be_a_secret(self, doctor: Doctor, storage: str) -> None:
        code, found = doctor.find(SANDBOX_CORE_STORAGE=storage)

        assert 1 == code
        assert "SANDBOX_CORE_STORAGE" in found["storage location"]["seen"]
        assert "s3cr3t" not in doctor.shown


class TestVersions:
    """Installed distributions that do not fit."""

    def test_a_requirement_that_is_not_met_is_a_problem(
        self, doctor: Doctor, tmp_path: Path
    ) -> None:
        metadata = tmp_path / "sandbox_moon-1.0.dist-info" / "METADATA"
        metadata.parent.mkdir()
        metadata.write_text(
            "Metadata-Version: 2.1\nName: sandbox-moon\nVersion: 1.0\nRequires-Dist: sandbox-core\n"
            "Requires-Dist: temporalio<1\nRequires-Dist: cheese>=2\n"
            "Requires-Dist: bread; extra == 'lunch'\n"
        )
        code, found = doctor.find(PYTHONPATH=str(tmp_path))

        assert 1 == code
        problems = {name: each for name, each in found.items() if name.startswith("version ")}
        assert ["version sandbox-moon"] == list(problems)
        shown = [each["seen"] for each in json.loads(doctor.output)["findings"]]
        assert "sandbox-moon 1.0 requires cheese>=2; installed: none" in shown
        assert any(seen.startswith("sandbox-moon 1.0 requires temporalio<1;") for seen in shown)
        assert not any("bread" in seen for seen in shown)


class TestVariables:
    """The environment variables of sandbox-core."""

    def test_those_in_force_are_listed_and_misspelt_ones_corrected(self, doctor: Doctor) -> None:
        code, found = doctor.find(
            SANDBOX_CORE_STORGE="s3cr3t", SANDBOX_CORE_DISABLED_PROVIDERS="dayton"
        )

        assert 1 == code
        assert "local" == found["variable SANDBOX_CORE_PROVIDERS"]["seen"]
        unknown = found["variable SANDBOX_CORE_STORGE"]
        assert "problem" == unknown["verdict"]
        assert "rename it to SANDBOX_CORE_STORAGE, or unset it" == unknown["fix"]
        assert "write 'daytona'" == found["variable SANDBOX_CORE_DISABLED_PROVIDERS"]["fix"]
        assert "s3cr3t" not in doctor.shown

    def test_those_of_a_file_are_listed_with_their_lines(
        self, doctor: Doctor, tmp_path: Path
    ) -> None:
        file = tmp_path / "other.toml"
        file.write_text(
            f'storage = "{tmp_path}"\nproviders = ["local"]\nmax_sandboxes = {{ local = 3 }}\n'
        )
        code, found = doctor.find(SANDBOX_CORE_CONFIG=str(file), SANDBOX_CORE_PROVIDERS="")

        assert 0 == code
        assert str(file) == found["configuration file"]["seen"]
        assert f"{tmp_path.as_uri()} ({file}:1: storage)" == found["storage location"]["seen"]
        assert f"local=3 ({file}:3)" == found["setting max_sandboxes"]["seen"]
        assert f"turned off by {file}:2: providers" in found["provider daytona"]["seen"]

    def test_a_file_that_is_wrong_is_a_problem(self, doctor: Doctor, tmp_path: Path) -> None:
        file = tmp_path / "other.toml"
        file.write_text("max_file_bytes = 0\n")
        code, found = doctor.find(SANDBOX_CORE_CONFIG=str(file))

        assert 1 == code
        wrong = f'{file}:1: "max_file_bytes" must be a number of bytes, 1 or more'
        assert wrong == found["configuration file"]["seen"]

    def test_the_helper_turned_off_is_a_warning(self, doctor: Doctor) -> None:
        _, found = doctor.find(SANDBOX_CORE_HELPER="off")

        assert "warning" == found["variable SANDBOX_CORE_HELPER"]["verdict"]

    def test_all_that_the_code_reads_are_known(self) -> None:
        sources = [*ROOT.glob("src/**/*.py"), *ROOT.glob("plugins/*/src/**/*.py")]
        read = {
            name
            for source in sources
            for name in re.findall(r"\bSANDBOX_CORE_[A-Z_]+[A-Z]\b", source.read_text("utf-8"))
        }

        assert read <= {setting.variable for setting in SETTINGS} | OTHER_VARIABLES.keys()


class TestSecrets:
    """What is never shown."""

    def test_values_of_secret_variables_and_credentials_in_urls_are_removed(self) -> None:
        finding = Finding(
            check="provider acme",
            verdict="problem",
            seen="401 for abc123 at https://me:pw@acme.example/x?sig=1",
            fix="replace abc123",
        )
        environ = {"ACME_API_KEY": "abc123", "GIT_AUTHOR_NAME": "acme"}

        (cleaned,) = without_secrets([finding], environ)
        assert "401 for [redacted] at https://acme.example/x" == cleaned.seen
        assert "replace [redacted]" == cleaned.fix
        assert "provider acme" == cleaned.check


class TestInterruption:
    """Ctrl-C."""

    def test_nothing_is_left(self, tmp_path: Path) -> None:
        """Even if it waits for a server that does not answer."""
        with socket.create_server(("127.0.0.1", 0)) as silent:
            variables = {
                "SANDBOX_CORE_PROVIDERS": "local",
                "TEMPORAL_ADDRESS": f"127.0.0.1:{silent.getsockname()[1]}",
                "TMPDIR": str(tmp_path),
                "XDG_STATE_HOME": str(tmp_path / "state"),
            }
            with subprocess.Popen(
                [str(SANDBOX), "doctor"], env=environment(**variables), stdout=subprocess.PIPE
            ) as process:
                connection, _ = silent.accept()
                process.send_signal(signal.SIGINT)
                output, _ = process.communicate(timeout=30)
            connection.close()

        assert 130 == process.returncode
        assert b"" == output
        assert [] == list(tmp_path.iterdir())

    def test_what_has_no_time_to_end_may_clean_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """`asyncio.run` would interrupt that."""
        monkeypatch.setattr(ending, "_ENDED_WITHIN_S", 0)
        cleaned_up = list[bool]()
        with pytest.raises(asyncio.CancelledError):
            asyncio.run(_interrupted(lambda: ending.let_end(_clean_up(cleaned_up))))

        assert cleaned_up == [True]

    def test_each_check_ends_before_the_command(self) -> None:
        """`asyncio.run` would interrupt those that take longer than the first."""
        cleaned_up = list[bool]()
        with pytest.raises(asyncio.CancelledError):
            asyncio.run(
                _interrupted(lambda: ending.gather(asyncio.sleep(60), _clean_up(cleaned_up)))
            )

        assert cleaned_up == [True]

    async def test_a_check_may_delete_what_it_made(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is not abandoned halfway."""
        monkeypatch.setenv("SANDBOX_CORE_PROVIDERS", "local")
        loop, made, ending = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
        deleted = threading.Event()

        async def check(self: LocalProvider, client: object) -> None:
            loop.call_soon_threadsafe(made.set)
            ending.wait(10)
            deleted.set()

        monkeypatch.setattr(LocalProvider, "check", check)
        reporting = asyncio.ensure_future(report_providers(load_configuration(), check=True))
        await made.wait()
        reporting.cancel()
        loop.call_soon(ending.set)
        with pytest.raises(asyncio.CancelledError):
            await reporting

        assert deleted.is_set()


async def _interrupted(work: Callable[[], Coroutine[object, object, object]]) -> None:
    """Cancel work that has begun."""
    running = asyncio.ensure_future(work())
    for _ in range(3):  # Turns of the loop; the work tells nobody that it has begun.
        await asyncio.sleep(0)
    running.cancel()
    await running


async def _clean_up(cleaned_up: list[bool]) -> None:
    try:
        await asyncio.sleep(60)
    finally:
        await asyncio.sleep(0.01)
        cleaned_up.append(True)
