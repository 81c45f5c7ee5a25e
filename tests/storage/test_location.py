"""Where the store is, and what is shown of its URL."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from temporalio.client import Client
from temporalio.worker import Worker
from workflows.sessions import Create

from sandbox_core.config import read_configuration
from sandbox_core.errors import StorageError
from sandbox_core.storage.location import choose_location, parse_location, redact
from sandbox_core.worker import SandboxPlugin


class TestChoice:
    def test_the_plugin_wins_over_the_environment(self) -> None:
        chosen = choose_location(
            "s3://one/a", read_configuration({"SANDBOX_CORE_STORAGE": "s3://two/b"})
        )

        assert "s3://one/a" == chosen.url
        assert not chosen.is_default

    def test_the_environment_wins_over_the_default(self) -> None:
        chosen = choose_location(None, read_configuration({"SANDBOX_CORE_STORAGE": "s3://two/b"}))

        assert "s3://two/b" == chosen.url

    def test_the_default_is_a_directory_of_the_users_state(self, tmp_path: Path) -> None:
        chosen = choose_location(None, read_configuration({}), {"XDG_STATE_HOME": str(tmp_path)})

        assert str(tmp_path / "sandbox-core" / "storage") == chosen.path
        assert chosen.is_default

    def test_without_a_state_home_it_is_below_the_home_directory(self) -> None:
        expected = Path.home() / ".local" / "state" / "sandbox-core" / "storage"

        assert str(expected) == choose_location(None, read_configuration({}), {}).path

    def test_without_a_home_directory_is_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("HOME")
        monkeypatch.setattr(os, "getuid", lambda: 987_654)

        with pytest.raises(StorageError, match=r"no home directory.*Set SANDBOX_CORE_STORAGE"):
            choose_location(None, read_configuration({}), {})


class TestLocation:
    @pytest.mark.parametrize("url", ["s3://b/p", "gs://b", "az://container/p"])
    def test_of_a_cloud_is_its_url(self, url: str) -> None:
        assert (url, "cloud") == (parse_location(url).url, parse_location(url).kind)

    @pytest.mark.parametrize("text", ["/var/lib/a b", "file:///var/lib/a%20b"])
    def test_of_a_directory_is_its_path(self, text: str) -> None:
        assert ("/var/lib/a b", "directory") == (
            parse_location(text).path,
            parse_location(text).kind,
        )

    def test_is_the_same_wherever_it_was_configured(self) -> None:
        assert parse_location("s3://b/p") == choose_location(
            None, read_configuration({"SANDBOX_CORE_STORAGE": "s3://b/p"})
        )

    def test_of_a_user_without_a_home_directory_is_an_error(self) -> None:
        said = "storage ~nosuchuser/x: ~nosuchuser has no home directory on this host. Use s3://"
        with pytest.raises(StorageError, match=said):
            parse_location("~nosuchuser/x")

    @pytest.mark.parametrize(
        "text", ["ftp://host/x", "s3://", "file://host/x", "https://bucket.example/hunter2"]
    )
    def test_of_anything_else_is_an_error_that_names_what_there_is(self, text: str) -> None:
        with pytest.raises(StorageError, match="s3://bucket/prefix") as caught:
            parse_location(text)

        assert "hunter2" not in str(caught.value)

    @pytest.mark.parametrize("text", ["folder", "./folder", " ", "s3:bucket/prefix", "hunter2"])
    def test_of_a_relative_path_is_an_error_that_names_the_variable(self, text: str) -> None:
        """And does not repeat it: it could be a secret."""
        with pytest.raises(StorageError) as caught:
            choose_location(None, read_configuration({"SANDBOX_CORE_STORAGE": text}))

        assert str(caught.value).startswith(
            "SANDBOX_CORE_STORAGE: neither an absolute path nor the URL of a store. Use s3://"
        )

    @pytest.mark.parametrize("text", ["s3://me:hunter2@bucket/p", "az://c/p?sig=hunter2"])
    def test_with_credentials_is_an_error_that_does_not_show_them(self, text: str) -> None:
        with pytest.raises(StorageError, match="AWS_SECRET_ACCESS_KEY") as caught:
            parse_location(text)

        assert "hunter2" not in str(caught.value)


class TestStart:
    """A worker that could not store anything does not start."""

    @pytest.mark.parametrize(
        ("directory", "reason"),
        [("/dev/null", "not a directory"), ("/dev/null/x", "Not a directory"), ("/proc/x", "No")],
    )
    async def test_with_an_unusable_directory_is_one_error(
        self,
        temporal_client: Client,
        monkeypatch: pytest.MonkeyPatch,
        directory: str,
        reason: str,
    ) -> None:
        monkeypatch.setenv("SANDBOX_CORE_STORAGE", directory)
        plugin = SandboxPlugin()

        with pytest.raises(StorageError) as caught:
            Worker(temporal_client, task_queue="unused", workflows=[Create], plugins=[plugin])

        assert str(caught.value).startswith(f"SANDBOX_CORE_STORAGE={directory}: {reason}")
        assert "Use a directory that this worker can write to" in str(caught.value)


def test_urls_in_a_text_are_shown_without_credentials_and_queries() -> None:
    text = "PUT https://me:pw@a.example/c/k?sig=abc&x=y in 3 s, see http://b.example/#x"

    assert "PUT https://a.example/c/k in 3 s, see http://b.example/" == redact(text)
