"""`sandbox-core ls` and `sandbox-core rm`, run as a user runs them."""

from __future__ import annotations

import json
import re

import pytest
from cli.site import SILENT, STUBBORN, Site

from sandbox_core.cli.sandboxes import list_sandboxes


class TestList:
    """`sandbox-core ls` and `sandbox-core rm`, which find sandboxes in the same way."""

    async def test_lists_those_of_open_and_closed_workflows(self, site: Site) -> None:
        living, kept = await site.owned()
        orphan, left = await site.orphan()
        result = await site.run("ls", "--json")

        assert 0 == result.returncode, result.stderr
        report = json.loads(result.stdout)
        listed = {each["sandbox_id"]: each for each in report["sandboxes"]}
        assert {str(kept), str(left)} == listed.keys()
        assert ("local", living.id, "open") == tuple(
            listed[str(kept)][key] for key in ("provider", "workflow_id", "owner")
        )
        assert (orphan, "terminated") == tuple(
            listed[str(left)][key] for key in ("workflow_id", "owner")
        )
        assert 0 <= listed[str(kept)]["age_s"] < 600
        assert {} == report["errors"]

        table = await site.run("ls")
        assert "PROVIDER" in table.stdout
        assert re.search(rf"^local +{left} +{orphan} .* terminated +\d+s", table.stdout, re.M)
        await living.terminate()

    async def test_none_is_one_line(self, site: Site) -> None:
        result = await site.run("ls")

        assert (0, "No sandbox is labelled with this namespace.\n") == (
            result.returncode,
            result.stdout,
        )

    async def test_a_provider_that_cannot_be_asked_is_named(self, site: Site) -> None:
        site.install("broken", "raise ImportError('no moon')")
        result = await site.run("ls", "--json")

        assert 1 == result.returncode
        assert ["broken"] == list(json.loads(result.stdout)["errors"])
        assert "error: broken could not be asked: " in result.stderr

    async def test_a_provider_that_does_not_answer_is_named(
        self, site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        site.install("silent", SILENT)
        monkeypatch.syspath_prepend(str(site.packages))
        monkeypatch.setenv("SANDBOX_CORE_PROVIDERS", "silent")
        address = site.client.service_client.config.target_host
        exit_code = await list_sandboxes(
            providers=["silent"],
            as_json=True,
            address=address,
            namespace=None,
            answered_within_s=0.2,
        )

        assert 1 == exit_code
        reported = json.loads(capsys.readouterr().out)
        assert {"silent": "it did not answer within 0.2 s"} == reported["errors"]

    async def test_rm_deletes_one_and_no_other(self, site: Site) -> None:
        """The beginning of its id suffices, unless it is that of several, or nothing at all."""
        _, other = await site.orphan()
        _, root = await site.orphan()
        length = next(
            n for n, (a, b) in enumerate(zip(str(root), str(other), strict=True)) if a != b
        )
        common = str(root)[:length]
        for beginning, said in ((common, "several sandboxes begin with"), ("", "no sandbox ''")):
            refused = await site.run("rm", beginning)
            assert 1 == refused.returncode
            assert f"error: {said}" in refused.stderr
        result = await site.run("rm", str(root)[: length + 1])

        assert (0, f"deleted local {root}\n") == (result.returncode, result.stdout)
        assert not root.exists()
        assert other.exists()

    async def test_rm_takes_no_sandbox_from_an_open_workflow(self, site: Site) -> None:
        """Unless it is forced to."""
        handle, root = await site.owned()
        refused = await site.run("rm", str(root))
        assert 1 == refused.returncode
        assert f"workflow {handle.id!r} of sandbox {str(root)!r} is open" in refused.stderr
        assert "--force" in refused.stderr
        assert root.exists()

        assert 0 == (await site.run("rm", str(root), "--force")).returncode
        assert not root.exists()
        await handle.terminate()

    async def test_rm_of_what_does_not_exist_is_an_error(self, site: Site) -> None:
        result = await site.run("rm", "moon")

        assert 1 == result.returncode
        assert "error: no sandbox 'moon' is labelled with this namespace." in result.stderr

    async def test_rm_says_why_a_backend_did_not_delete(self, site: Site) -> None:
        site.install("stubborn", STUBBORN)
        _, root = await site.orphan()
        result = await site.run("rm", str(root))
        assert 1 == result.returncode
        assert "exists at local, stubborn: choose one with --provider" in result.stderr

        result = await site.run("rm", str(root), "--provider", "stubborn")
        assert 1 == result.returncode
        assert f"PermissionError: {root}: not allowed" in result.stderr
        assert root.exists()
