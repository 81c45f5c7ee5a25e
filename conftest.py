"""One real Temporal dev server for the whole run, shared by all pytest-xdist workers.

When the run is over, every history that it has left there is searched for credentials.
"""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path

import pytest
import tomli
from temporalio.client import Client

from sandbox_core.testing import DevServer

# While thousands of tests are collected, looking for garbage takes a fifth of the time.
gc.disable()

# What the tests of a plugin share among them; `pythonpath` of pytest takes no patterns.
sys.path += map(str, Path(__file__).parent.glob("plugins/*/tests"))

EXPECTED_SKIPS = (
    "this machine has no /dev/fuse",
    "the SDK's local backend changes directory in what it passes to a shell",
    # The kit says of each what the users of a provider lose; it follows from its abilities.
    "contract: ",
    *(
        reason
        for pyproject in Path(__file__).parent.glob("plugins/*/pyproject.toml")
        for reason in tomli.loads(pyproject.read_text(encoding="utf-8"))["tool"][
            "sandbox-core"
        ].get("expected-skips", ())
    ),
)
"""Parts of the reasons of the skips that may happen in CI; a plugin names its own."""

SECRET_MARK = "s3cr3t"
"""Every credential that a test gives to a worker has it in it, and nothing else has."""

_ADDRESS = "SANDBOX_CORE_TEST_TEMPORAL_ADDRESS"
_server: DevServer | None = None


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Take the group that pytest-xdist appends off a test's name.

    With it, `--last-failed` would find none of the tests in groups, and run none of them again.
    """
    if "PYTEST_XDIST_WORKER" in os.environ:
        return  # Which tells the controller of it by that name.
    if report.nodeid.rfind("@") > report.nodeid.rfind("]"):
        report.nodeid = report.nodeid.rpartition("@")[0]


_SHARING: Mapping[str, type[pytest.Collector]] = {"module": pytest.Module, "class": pytest.Class}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Group the tests that share a fixture: each process of pytest-xdist would make its own."""
    for item in items:
        if isinstance(item, pytest.Function) and item.get_closest_marker("xdist_group") is None:
            fixtures = item._fixtureinfo.name2fixturedefs.values()
            scopes = {definitions[-1].scope for definitions in fixtures}
            sharing = next((item.getparent(_SHARING[s]) for s in _SHARING if s in scopes), None)
            if sharing is not None:
                item.add_marker(pytest.mark.xdist_group(sharing.nodeid))


_STUCK_S = 120
_stderr = pytest.StashKey[int]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """Fail a test whose teardown hangs: pytest-timeout watches no more once the test has failed.

    An event loop waits in it for its threads, one of which may have been what the test hung in.
    """

    def fail(*_: object) -> None:
        faulthandler.dump_traceback(item.config.stash[_stderr])
        pytest.fail(f"the teardown took longer than {_STUCK_S} s")

    signal.signal(signal.SIGALRM, fail)
    signal.setitimer(signal.ITIMER_REAL, _STUCK_S)
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_stderr] = os.dup(2)  # While a test runs, pytest captures what is written there.
    # Only the controller starts it; the workers of pytest-xdist inherit the address.
    global _server
    if _ADDRESS not in os.environ and not config.option.collectonly:
        _server = DevServer()
        _server.start()
        # Where workers keep large payloads and snapshots when no storage is configured.
        os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="sandbox-core-tests-")
        os.environ[_ADDRESS] = _server.address
        # What else is installed has its own tests, and its vendor's SDK takes seconds to import.
        os.environ.setdefault("SANDBOX_CORE_PROVIDERS", "local")


def pytest_sessionfinish(session: pytest.Session) -> None:
    _fail_for_secrets(session)
    _fail_for_skips(session)
    if _server is not None:
        asyncio.run(_delete_sandboxes(_server.address))


async def _delete_sandboxes(address: str) -> None:
    """Delete the sandboxes on this host whose workflows could not delete them."""
    from sandbox_core.cli.choosing import REAPING, choose_providers
    from sandbox_core.providers.activation import open_client
    from sandbox_core.worker.sessions import labels
    from sandbox_core.worker.sessions.destroying import destroy
    from sandbox_core.worker.sessions.labelling import find_labelled

    namespace = await labels.Namespace.of(await Client.connect(address))
    local = choose_providers(["local"], REAPING)["local"]
    assert not isinstance(local, str), local
    async with open_client(local) as client:
        for left in await find_labelled(local, client, {labels.NAMESPACE_ID: namespace.id}):
            await destroy(local, client, left.sandbox_id)


def _fail_for_secrets(session: pytest.Session) -> None:
    if _server is None:
        return  # A worker of pytest-xdist: the controller searches for all.
    searched, found = asyncio.run(_search_histories(_server.address))
    stored = Path(os.environ["XDG_STATE_HOME"])
    found += [str(f) for f in stored.rglob("*") if f.is_file() and _has_secret(f.read_bytes())]
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        reporter.write_line(f"searched {searched} histories for credentials: {found or 'none'}")
    if found:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


async def _search_histories(address: str) -> tuple[int, list[str]]:
    client = await Client.connect(address)
    searched, found = 0, []
    async for workflow in client.list_workflows():
        handle = client.get_workflow_handle(workflow.id, run_id=workflow.run_id)
        history = await handle.fetch_history()
        searched += 1
        if any(_has_secret(event.SerializeToString()) for event in history.events):
            found.append(workflow.id)
    return searched, found


def _has_secret(content: bytes) -> bool:
    return SECRET_MARK.encode() in content


@pytest.fixture(autouse=True)
def _no_secret_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    # `caplog.text` would be that of the teardown.
    for phase in ("setup", "call"):
        for record in caplog.get_records(phase):
            assert SECRET_MARK not in caplog.handler.format(record)


def _fail_for_skips(session: pytest.Session) -> None:
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


def pytest_unconfigure(config: pytest.Config) -> None:
    # A process waits for its threads before it ends, however long that takes.
    faulthandler.dump_traceback_later(_STUCK_S, file=config.stash[_stderr], exit=True)
    if _server is not None:
        shutil.rmtree(os.environ["XDG_STATE_HOME"], ignore_errors=True)
        _server.stop()


@pytest.fixture(scope="session")
def temporal_address() -> str:
    return os.environ[_ADDRESS]


@pytest.fixture
async def temporal_client(temporal_address: str) -> Client:
    return await Client.connect(temporal_address)
