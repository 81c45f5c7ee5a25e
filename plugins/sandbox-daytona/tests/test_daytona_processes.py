"""Commands and processes under the helper, through the `exec` of the vendor's SDK."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from daytona_loopback import DaytonaLoopback
from processes import test_exec, test_length, test_pty
from processes.bare import compare
from processes.conftest import box_of
from processes.driving import Box, of_any_backend

from sandbox_daytona import DaytonaProvider

pytest_plugins = ["daytona_fixtures"]

pytestmark = pytest.mark.extended

TestAsPlain = of_any_backend(test_exec.TestAsPlain)
TestOnce = of_any_backend(test_exec.TestOnce)
TestTimeout = of_any_backend(test_exec.TestTimeout)
TestCancellation = of_any_backend(test_exec.TestCancellation)
TestLength = of_any_backend(test_length.TestOfAnyBackend)
TestStart = of_any_backend(test_pty.TestStart)
TestPoll = of_any_backend(test_pty.TestPoll)
TestTerminals = of_any_backend(test_pty.TestTerminals)
TestTerminateAll = of_any_backend(test_pty.TestTerminateAll)


@pytest.fixture
async def box(server: DaytonaLoopback, provider: DaytonaProvider) -> AsyncIterator[Box]:
    async with (
        provider.create_client() as client,
        box_of(provider, client, provider.default_options()) as box,
    ):
        yield box


async def test_a_command_cannot_tell_that_it_runs_under_the_helper(box: Box) -> None:
    differences = await compare(box, "daytona")

    wrong = [str(row) for row in differences if row.reason is None]
    assert not wrong, "\n".join(wrong)
