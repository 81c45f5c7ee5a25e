"""The outcomes of checks, and how they are reported."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from agents.sandbox.sandboxes.unix_local import UnixLocalSandboxClientOptions
from rich.console import Console
from support import installed_provider

from sandbox_core.cli.check import Teller
from sandbox_core.cli.scaffold import write_provider
from sandbox_core.providers import client_provider
from sandbox_core.testing.contract import (
    CHECKS,
    Backend,
    Check,
    Outcome,
    PromiseBroken,
    Report,
    Subject,
)
from sandbox_core.testing.contract.imports import create_client_with, import_it, report
from sandbox_core.testing.contract.pytest_plugin import ProviderContract
from sandbox_core.testing.contract.run import run_check
from sandbox_core.testing.contract.subject import ClientNotMade


@pytest.fixture
def subject() -> Subject:
    return Subject(provider=installed_provider("local"))


def check(*, broken: bool, provisional: bool = False) -> Check:
    async def checked(subject: Subject) -> None:
        if broken:
            raise PromiseBroken("it is wet")

    return replace(
        CHECKS[0], name="weather.it_is_dry", function=checked, provisional=provisional, needs=()
    )


def run_test(each: Check, subject: Subject, loop: asyncio.AbstractEventLoop) -> None:
    ProviderContract().test_promise(each, subject, loop, lambda name, value: None)


@pytest.mark.parametrize(
    ("broken", "provisional", "known", "status"),
    [
        (False, False, False, "kept"),
        (True, False, False, "broken"),
        (True, False, True, "known"),
        (False, False, True, "broken"),
        (False, True, False, "kept"),
        (True, True, False, "warned"),
        (True, True, True, "known"),
    ],
)
async def test_status(
    subject: Subject, broken: bool, provisional: bool, known: bool, status: str
) -> None:
    """A new check warns; a failure that is known must be one."""
    reasons = {"weather.it_is_dry": "it rains"} if known else {}
    each = check(broken=broken, provisional=provisional)
    outcome = await run_check(each, subject, known_failures=reasons)

    assert status == outcome.status


class TestWarned:
    """A provisional check that is broken."""

    @pytest.fixture
    async def outcome(self, subject: Subject) -> Outcome:
        return await run_check(check(broken=True, provisional=True), subject)

    async def test_breaks_no_contract_and_is_counted_apart(
        self, subject: Subject, outcome: Outcome
    ) -> None:
        kept = await run_check(check(broken=False), subject)
        report = Report(provider="local", outcomes=[kept, outcome])

        assert report.passed
        assert report.summary().endswith(": package 1/1, 1 warned in 0 s")
        checks = cast("list[dict[str, str]]", report.as_json()["checks"])
        assert ["kept", "warned"] == [each["status"] for each in checks]

    async def test_is_shown_with_what_was_seen(self, outcome: Outcome) -> None:
        console = Console(width=200, record=True, quiet=False)
        Teller(console).tell(outcome)
        shown = console.export_text()

        assert shown.startswith("warned  package")
        assert "seen:  it is wet" in shown
        assert "weather.it_is_dry" in shown

    def test_is_a_warning_of_pytest(self, subject: Subject) -> None:
        loop = asyncio.new_event_loop()
        try:
            with pytest.warns(UserWarning, match="Seen: it is wet"):
                run_test(check(broken=True, provisional=True), subject, loop)
        finally:
            loop.close()


async def test_a_finding_of_several_checks_is_shown_once(subject: Subject) -> None:
    """A backend that cannot be reached breaks sixty promises in one way."""
    console = Console(width=200, record=True, quiet=False)
    teller = Teller(console)
    for number in range(3):
        each = replace(check(broken=True), name=f"weather.check_{number}")
        teller.tell(await run_check(each, subject))
    shown = console.export_text()

    assert 1 == shown.count("it is wet")
    assert 2 == shown.count("seen:  the same as weather.check_0")


async def test_what_was_kept_is_shown_by_name_and_what_was_skipped_is_counted(
    subject: Subject,
) -> None:
    console = Console(width=200, record=True, quiet=False)
    kept = await run_check(check(broken=False), subject)
    skipped = await run_check(replace(check(broken=False), needs=("relabel",)), subject)
    lacking = Report(provider="local", outcomes=[kept, replace(skipped, status="skipped")])
    Teller(console).tell(kept)

    assert "weather.it_is_dry" in console.export_text()
    assert lacking.summary().endswith(": package 1/1, 1 skipped in 0 s")


@pytest.mark.parametrize("ability", sorted({need for check in CHECKS for need in check.needs}))
async def test_a_skip_says_what_users_lose(ability: str) -> None:
    """Without the ability; what a wrong one would cost is another matter."""
    # The client is never made: no check runs.
    without = client_provider("acme", object, UnixLocalSandboxClientOptions)  # type: ignore[type-var]
    each = replace(check(broken=True), needs=(ability,), cost="it is never known")
    outcome = await run_check(each, Subject(provider=without))

    assert "skipped" == outcome.status
    assert outcome.seen.startswith(f"no `{ability}`: ")
    assert each.cost not in outcome.seen


class TestAModuleThatCannotBeImported:
    """Its author is told where, and what to do."""

    @pytest.mark.parametrize(
        ("line", "said"),
        [
            (
                "import acme_vendor",
                "ModuleNotFoundError: No module named 'acme_vendor', at acme_faulty.py:2. Add the "
                "distribution of acme_vendor to the dependencies in pyproject.toml",
            ),
            ("1 / 0", "ZeroDivisionError: division by zero, at acme_faulty.py:2. See the whole"),
            ("def hook(:", "acme_faulty.py:2. See the whole traceback: python -c 'import acme_f"),
            ("", "AttributeError: module 'acme_faulty' has no attribute 'sandbox_client_provider'"),
        ],
    )
    def test_is_told_with_the_line_and_the_fix(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        line: str,
        said: str,
    ) -> None:
        (tmp_path / "acme_faulty.py").write_text(f'"""A provider."""\n{line}\n')
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "acme_faulty", raising=False)
        monkeypatch.chdir(tmp_path)

        with pytest.raises(SystemExit):
            report("acme_faulty")
        why = capsys.readouterr().err.strip()

        assert why.startswith("acme_faulty cannot be imported: ")
        assert said in why
        monkeypatch.delitem(sys.modules, "acme_faulty", raising=False)

    async def test_is_a_broken_promise(self) -> None:
        """Before anything is asked of the provider."""
        said = "acme_nowhere cannot be imported: ModuleNotFoundError: .* Install the distribution"
        with pytest.raises(PromiseBroken, match=said):
            await import_it("acme_nowhere")
        with pytest.raises(PromiseBroken, match=said):
            await create_client_with(os.environ, "acme_nowhere")


class TestAnErrorOfTheProvider:
    """It is the author's own, so it is told where it was raised."""

    @pytest.fixture
    def erring(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Subject:
        write_provider("erring", tmp_path)
        source = tmp_path / "sandbox-erring" / "src"
        file = source / "sandbox_erring" / "api.py"
        file.write_text(file.read_text().replace("async def create(", "async def created("))
        monkeypatch.syspath_prepend(source)
        monkeypatch.setenv("ERRING_HOME", str(tmp_path / "home"))
        monkeypatch.chdir(tmp_path)
        for each in [each for each in sys.modules if each.startswith("sandbox_erring")]:
            monkeypatch.delitem(sys.modules, each)
        module = importlib.import_module("sandbox_erring")
        return Subject(provider=module.sandbox_client_provider(), module="sandbox_erring")

    def place(self, folder: Path) -> str:
        file = Path("sandbox-erring/src/sandbox_erring/client.py")
        lines = (folder / file).read_text().splitlines()
        return f"{file}:{next(n for n, line in enumerate(lines, 1) if 'api.create(' in line)}"

    async def test_is_told_with_its_line(self, erring: Subject, tmp_path: Path) -> None:
        (each,) = (check for check in CHECKS if check.name == "commands.streams_come_apart")
        async with erring:
            outcome = await run_check(each, erring)

        assert outcome.seen.startswith("AttributeError: ")
        assert outcome.seen.endswith(f", at {self.place(tmp_path)}")

    def test_is_the_cause_of_what_pytest_shows(self, erring: Subject) -> None:
        (each,) = (check for check in CHECKS if check.name == "commands.streams_come_apart")
        loop = asyncio.new_event_loop()
        try:
            with pytest.raises(AssertionError, match=r"client\.py:") as raised:
                run_test(each, erring, loop)
        finally:
            loop.close()

        assert isinstance(raised.value.__cause__, AttributeError)

    async def test_is_told_of_a_call_that_hangs(self, erring: Subject, tmp_path: Path) -> None:
        """With the line that it hangs at."""
        file = Path("sandbox-erring/src/sandbox_erring/client.py")
        source = (tmp_path / file).read_text()
        hanging = source.replace("await self.api.create(", "await asyncio.Event().wait()  # (")
        (tmp_path / file).write_text(hanging.replace("import uuid", "import asyncio\nimport uuid"))
        erring.backend = Backend(timeout_s=0.2)
        (each,) = (check for check in CHECKS if check.name == "commands.streams_come_apart")
        async with erring:
            outcome = await run_check(each, erring)

        lines = (tmp_path / file).read_text().splitlines()
        line = next(n for n, text in enumerate(lines, 1) if "Event().wait()" in text)
        assert f"no answer within 0.2 s, at {file}:{line}" == outcome.seen

    @pytest.mark.parametrize(
        "name", ["creates.a_cancelled_create_leaves_none", "durable.what_is_deleted_stays_deleted"]
    )
    async def test_of_create_is_what_a_durable_check_sees(
        self, erring: Subject, temporal_address: str, name: str
    ) -> None:
        """As soon as the workflow has failed."""
        (each,) = (check for check in CHECKS if check.name == name)
        erring.temporal = temporal_address
        async with erring:
            outcome = await run_check(each, erring)

        assert "no attribute 'create'" in outcome.seen
        assert outcome.seconds < 60


async def test_a_sandbox_that_is_never_found_is_not_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was expected and what was found is told."""
    write_provider("unfound", tmp_path)
    source = tmp_path / "sandbox-unfound" / "src"
    monkeypatch.syspath_prepend(source)
    monkeypatch.setenv("UNFOUND_HOME", str(tmp_path / "home"))
    provider = importlib.import_module("sandbox_unfound").sandbox_client_provider()

    async def find(client: object, labels: object) -> list[object]:
        return []

    monkeypatch.setattr(type(provider), "find", staticmethod(find))
    async with Subject(provider=provider, module="sandbox_unfound") as subject:
        for name in (
            "what_is_destroyed_is_not_found",
            "the_time_of_creation_has_a_zone",
            "relabelling_changes_what_it_names",
        ):
            (each,) = (check for check in CHECKS if check.name == f"labels.{name}")
            outcome = await run_check(each, subject)

            assert outcome.seen.startswith("found by its labels: expected ['")
            assert outcome.seen.endswith("'], got []")


async def test_a_missing_module_is_no_missing_credential(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_provider("moduleless", tmp_path)
    source = tmp_path / "sandbox-moduleless" / "src"
    file = source / "sandbox_moduleless" / "__init__.py"
    content = file.read_text()
    assert 1 == content.count("        return ModulelessClient")
    file.write_text(
        content.replace(
            "        return ModulelessClient",
            "        import acme\n        return ModulelessClient",
        )
    )
    monkeypatch.syspath_prepend(source)
    provider = importlib.import_module("sandbox_moduleless").sandbox_client_provider()
    (each,) = (check for check in CHECKS if check.name == "package.a_missing_credential_is_named")
    outcome = await run_check(each, Subject(provider=provider, module="sandbox_moduleless"))

    assert "skipped" == outcome.status
    assert outcome.seen.endswith("No module named 'acme'")


class TestAClientThatCannotBeMade:
    @pytest.fixture
    def clientless(self) -> Subject:
        def make() -> None:
            raise ModuleNotFoundError("No module named 'acme'")

        provider = client_provider("acme", make, UnixLocalSandboxClientOptions)  # type: ignore[type-var]
        return Subject(provider=provider)

    def test_is_one_error(self, clientless: Subject) -> None:
        with pytest.raises(ClientNotMade, match=r"create_client\(\) of 'acme' failed: .*'acme'"):
            _ = clientless.client

    def test_is_one_failure_of_pytest(self, clientless: Subject) -> None:
        """However many promises need a client."""
        checks = [check for check in CHECKS if check.name.startswith("commands.")][:2]
        loop = asyncio.new_event_loop()
        try:
            with pytest.raises(ClientNotMade):
                run_test(checks[0], clientless, loop)
            with pytest.raises(pytest.skip.Exception, match="an earlier test"):
                run_test(checks[1], clientless, loop)
        finally:
            loop.close()
