"""`sandbox-core config show`, and workers with a file."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from cli.command import run_sandbox
from documented import documented
from terminal import pattern, steps

from sandbox_core.config import SETTINGS

PAGE = "docs/configuration.md"
GOOD = """\
storage = "s3://bucket/prefix"
worker_env = ["TOKEN"]

[worker]
task_queue = "agents"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "sandbox.toml"
    path.write_text(GOOD, encoding="utf-8")
    return path


class TestShow:
    """What is in force, for people and for programs."""

    def test_every_setting_has_a_line(self, file: Path) -> None:
        """In a pipe, none is cut."""
        result = run_sandbox(
            "config",
            "show",
            SANDBOX_CORE_CONFIG=str(file),
            SANDBOX_CORE_WORKER_TASK_QUEUE="others",
            TEMPORAL_ADDRESS="temporal.example:7233",
        )

        assert 0 == result.returncode, result.stderr
        assert "" == result.stderr
        lines = [re.split(r"  +", line) for line in result.stdout.splitlines()]
        assert ["File", str(file)] == lines[0]
        where = "temporal.example:7233, namespace default (TEMPORAL_ADDRESS)"
        assert ["Temporal", where] == lines[1]
        assert ["SETTING", "VALUE", "FROM"] == lines[3]
        rows = lines[4 : 4 + len(SETTINGS)]
        assert [setting.name for setting in SETTINGS] == [row[0] for row in rows]
        assert ["storage", "s3://bucket/prefix", f"{file}:1"] in rows
        assert ["worker.task_queue", "others", "SANDBOX_CORE_WORKER_TASK_QUEUE"] in rows
        assert ["storage_patience", "5m", "default"] in rows
        assert ["max_sandboxes", "-", "default"] in rows

    def test_as_the_page_shows(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        Path("sandbox.toml").write_text(documented(PAGE, "# sandbox.toml").content)
        (step,) = steps(documented(PAGE, "$ sandbox-core config show\nFile"))
        result = run_sandbox(
            *step.words[1:],
            SANDBOX_CORE_WORKER_TASK_QUEUE="agents-2",
            TEMPORAL_ADDRESS="temporal.internal:7233",
        )
        expected = pattern(step.output, {"/srv/app": str(tmp_path)})

        assert expected.match(result.stdout), f"{expected.pattern}\n{result.stdout}"

    def test_what_is_wrong_as_the_page_shows(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        lines = ["#", "#", 'storge = "/srv"', *("#" * 4), "[worker]", "health_port = 0"]
        Path("sandbox.toml").write_text("\n".join(lines))
        (step,) = steps(documented(PAGE, "$ sandbox-core config show\nerror"))
        result = run_sandbox(*step.words[1:], SANDBOX_CORE_MAX_OUTPUT="1")

        assert 1 == result.returncode
        assert step.output == result.stderr

    def test_as_json(self, file: Path) -> None:
        result = run_sandbox("config", "show", "--json", SANDBOX_CORE_CONFIG=str(file))
        report = json.loads(result.stdout)

        assert 0 == result.returncode, result.stderr
        assert str(file) == report["file"]
        assert "localhost:7233" == report["temporal"]["address"]
        assert [] == report["errors"]
        rows = {row["name"]: row for row in report["settings"]}
        assert {
            "name": "worker_env",
            "value": "TOKEN",
            "from": f"{file}:2",
            "variable": "SANDBOX_CORE_WORKER_ENV",
            "argument": "SandboxPlugin(worker_env=...)",
        } == rows["worker_env"]
        assert (True, None) == (rows["helper"]["value"], rows["helper"]["argument"])
        assert (100, None) == (
            rows["worker.max_concurrent_activities"]["value"],
            rows["worker.health_port"]["value"],
        )

    def test_what_is_wrong_is_on_stderr(self, file: Path) -> None:
        """The rest is shown all the same."""
        file.write_text(f"{GOOD}storge = 1\n", encoding="utf-8")
        variables = {"SANDBOX_CORE_CONFIG": str(file), "SANDBOX_CORE_PROVIDERS": "moon"}
        result = run_sandbox("config", "show", "--json", **variables)
        report = json.loads(result.stdout)

        assert 1 == result.returncode
        assert [f"error: {error}" for error in report["errors"]] == result.stderr.splitlines()
        unknown, missing = report["errors"]
        assert f'{file}:6: unknown key "worker.storge"; rename it to "storage"' in unknown
        assert "SANDBOX_CORE_PROVIDERS requires 'moon', which is not installed here" in missing
        assert "agents" in result.stdout

    @pytest.mark.parametrize(
        "storage", ["s3://id:s3cr3t@bucket", "s3://bucket?key=s3cr3t", "id:s3cr3t@b", "s3cr3t"]
    )
    def test_credentials_are_never_shown(self, storage: str, file: Path) -> None:
        file.write_text(f'storage = "{storage}"\nlocal_sources = ["/srv/h1dden"]', encoding="utf-8")
        result = run_sandbox("config", "show", SANDBOX_CORE_CONFIG=str(file), ACME_API_KEY="h1dden")

        assert 1 == result.returncode
        assert f"{file}:1: storage" in result.stderr
        assert "s3cr3t" not in result.stdout + result.stderr
        assert "h1dden" not in result.stdout + result.stderr

    def test_temporals_own_configuration_may_be_wrong(self, tmp_path: Path) -> None:
        missing = str(tmp_path / "moon.toml")
        result = run_sandbox(
            "config", "show", TEMPORAL_CONFIG_FILE=missing, TEMPORAL_PROFILE="moon"
        )

        assert 1 == result.returncode
        assert "error: Temporal's client configuration: " in result.stderr


class TestCommands:
    """They read the same."""

    @pytest.mark.parametrize(
        "arguments", [["worker"], ["providers"], ["reap", "--every", "1h"], ["storage", "gc"]]
    )
    def test_do_not_start_if_something_is_wrong(self, arguments: list[str], file: Path) -> None:
        file.write_text("max_file_bytes = 0\n", encoding="utf-8")
        result = run_sandbox(*arguments, SANDBOX_CORE_CONFIG=str(file))

        assert 1 == result.returncode
        expected = f'error: {file}:1: "max_file_bytes" must be a number of bytes, 1 or more\n'
        assert expected == result.stderr

    def test_providers_that_are_turned_off_name_the_line(self, file: Path) -> None:
        file.write_text('\nproviders = ["local"]\n', encoding="utf-8")
        result = run_sandbox("providers", SANDBOX_CORE_CONFIG=str(file))

        assert 0 == result.returncode, result.stderr
        assert f"docker: turned off by {file}:2: providers" in result.stdout
