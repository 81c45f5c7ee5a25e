"""One real Temporal dev server for the whole run, shared by all pytest-xdist workers."""

from __future__ import annotations

import os
import shutil
import tempfile

import pytest
from temporalio.client import Client

from sandbox_core.testing import DevServer

EXPECTED_SKIPS: tuple[str, ...] = ()
"""Parts of the reasons of the skips that may happen in CI."""

_ADDRESS = "SANDBOX_CORE_TEST_TEMPORAL_ADDRESS"
_server: DevServer | None = None


def pytest_configure(config: pytest.Config) -> None:
    # Only the controller starts it; the workers of pytest-xdist inherit the address.
    global _server
    if _ADDRESS not in os.environ and not config.option.collectonly:
        _server = DevServer()
        _server.start()
        # Where workers keep large payloads and snapshots when no storage is configured.
        os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="sandbox-core-tests-")
        os.environ[_ADDRESS] = _server.address


def pytest_sessionfinish(session: pytest.Session) -> None:
    # A skip that nobody expected would let CI pass without having tested anything.
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if "CI" not in os.environ or reporter is None:
        return
    unexpected = [
        report for report in reporter.stats.get("skipped", ()) if not _is_expected(report)
    ]
    for report in unexpected:
        reporter.write_line(f"skipped unexpectedly: {report.nodeid}: {report.longrepr}")
    if unexpected:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _is_expected(report: pytest.TestReport) -> bool:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return any(expected in reason for expected in EXPECTED_SKIPS)


def pytest_unconfigure() -> None:
    if _server is not None:
        shutil.rmtree(os.environ["XDG_STATE_HOME"], ignore_errors=True)
        _server.stop()


@pytest.fixture(scope="session")
def temporal_address() -> str:
    return os.environ[_ADDRESS]


@pytest.fixture
async def temporal_client(temporal_address: str) -> Client:
    return await Client.connect(temporal_address)
