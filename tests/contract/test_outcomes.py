"""What came of a check, and how it is told."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import cast

import pytest
from rich.console import Console
from support import installed_provider

from sandbox_core.cli.check import Teller
from sandbox_core.testing.contract import CHECKS, Check, Outcome, PromiseBroken, Report, Subject
from sandbox_core.testing.contract.pytest_plugin import ProviderContract
from sandbox_core.testing.contract.run import run_check


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
        assert report.summary().endswith(": package 1/1, 1 warned")
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
                ProviderContract().test_promise(check(broken=True, provisional=True), subject, loop)
        finally:
            loop.close()


async def test_what_every_check_sees_is_shown_once(subject: Subject) -> None:
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
    assert lacking.summary().endswith(": package 1/1, 1 skipped")
