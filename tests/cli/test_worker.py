"""`sandbox-core worker`, as a process beside a real server."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from cli.command import SANDBOX, environment, run_sandbox, start_sandbox
from documented import documented
from support import completed_activities, unique, until
from telemetry.receiver import start_receiver
from temporalio.client import Client
from terminal import steps

from sandbox_core.cli.worker.health import health_server
from sandbox_core.testing.fork_server import ForkedProcess

APP = """
import asyncio
import threading
from datetime import timedelta

from temporalio import activity, workflow

with workflow.unsafe.imports_passed_through():
    from sandbox_core.workflow import temporal_sandbox_client


@activity.defn
def double(number: int) -> int:
    return 2 * number


@activity.defn
async def drain(port: int) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await activity.wait_for_worker_shutdown()
    writer.write(b"stopping")
    await reader.read()  # Until the test lets it end.
    writer.close()
    return "drained"


@activity.defn
async def hang(port: int) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await asyncio.to_thread(threading.Event().wait)
    return ""


@activity.defn
async def refuse(port: int) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass


ACTIVITIES = [double, drain, hang, refuse]


@workflow.defn
class Echo:
    @workflow.run
    async def run(self, number: int) -> str:
        doubled = await workflow.execute_activity(
            double, number, start_to_close_timeout=timedelta(seconds=30)
        )
        async with await temporal_sandbox_client("local").create() as session:
            result = await session.exec(f"echo {doubled}")
        await temporal_sandbox_client("local").delete(session)
        return result.stdout.decode().strip()


@workflow.defn
class Run:
    @workflow.run
    async def run(self, name: str, port: int) -> str:
        return await workflow.execute_activity(
            name, port, start_to_close_timeout=timedelta(minutes=1)
        )
"""


@pytest.fixture
def app(tmp_path: Path) -> Path:
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "app.py").write_text(APP, encoding="utf-8")
    return folder


class Running:
    """A worker's process."""

    def __init__(self, process: ForkedProcess, queue: str, log: Path) -> None:
        self.process = process
        self.queue = queue
        self._log = log

    @property
    def log(self) -> str:
        return self._log.read_text()

    async def stop(self, signum: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(signum)
        return await self.ended()

    async def ended(self) -> int:
        return await asyncio.to_thread(self.process.wait)


@contextmanager
def started(app: Path, address: str, *arguments: str) -> Iterator[Running]:
    queue = unique("queue")
    scratch = app.parent / "scratch"
    scratch.mkdir()
    config = app.parent / "temporal.toml"
    config.write_text(f'[profile.near]\naddress = "{address}"\n', encoding="utf-8")
    variables = {
        "SANDBOX_CORE_PROVIDERS": "local",
        "SANDBOX_CORE_STORAGE": str(app.parent / "storage"),
        "TEMPORAL_CONFIG_FILE": str(config),
        "TMPDIR": str(scratch),
    }
    command = ("worker", "app:Echo", "app:Run", "app:ACTIVITIES", "--profile", "near")
    log = app.parent / "log"
    with log.open("wb") as written:
        process = start_sandbox(
            *(*command, "--task-queue", queue, *arguments),
            variables=variables,
            err=written,
            folder=app,
        )
    try:
        yield Running(process, queue, log)
    finally:
        process.kill()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


async def get(port: int, path: str) -> tuple[int, str]:
    def ask() -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    return await asyncio.to_thread(ask)


def of_session(session: int) -> list[str]:
    """Return the command lines of the processes of a session."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[3]) == session:
                found.append(stat.with_name("cmdline").read_text())
    return found


class TestWorker:
    """The whole life of a worker."""

    async def test_runs_a_workflow_and_ends_on_sigterm(
        self, app: Path, temporal_client: Client, temporal_address: str
    ) -> None:
        """It answers probes and Prometheus meanwhile, as a file says, and leaves nothing behind."""
        health, metrics = free_port(), free_port()
        (app / "sandbox.toml").write_text(
            f'[worker]\ntask_queue = "of-the-option"\nhealth_port = {health}\n'
            f'metrics_port = {metrics}\nlog_format = "json"\n'
        )
        with started(app, temporal_address) as running:
            answer = await temporal_client.execute_workflow(
                "Echo", 21, id=unique("echo"), task_queue=running.queue, result_type=str
            )
            assert "42" == answer
            assert (200, "ready\n") == await get(health, "/readyz")
            assert (200, "alive\n") == await get(health, "/livez")
            status, exported = await get(metrics, "/metrics")
            assert 200 == status
            assert "temporal_worker_task_slots_available" in exported
            assert "sandbox_core_open_sessions" in exported
            # The names that the dashboard and docs/observe.md have.
            assert "sandbox_core_operation_duration_seconds_bucket" in exported
            assert "sandbox_core_operations_total" in exported
            assert 0 == await running.stop()

        lines = [json.loads(line) for line in running.log.splitlines()]
        assert "stopped" == lines[-1]["message"]
        assert {"time", "level", "logger", "message"} <= lines[0].keys()
        assert [] == of_session(running.process.pid)
        assert [] == list((app.parent / "scratch").glob("sandbox-local-*"))

    async def test_exports_metrics_and_spans(
        self,
        app: Path,
        temporal_client: Client,
        temporal_address: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The last spans have arrived when it has ended."""
        receiver = start_receiver()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"{receiver.url}/")
        monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "100")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "other=1,acme-key=s3cr3t%20key")
        with started(app, temporal_address, "--otlp") as running:
            await temporal_client.execute_workflow(
                "Echo", 21, id=unique("echo"), task_queue=running.queue
            )
            exports = receiver.exports()
            while "sandbox_core_operations" not in await asyncio.to_thread(next, exports):
                pass
            assert 0 == await running.stop()

        names = [span.name for span in receiver.spans]
        assert 1 == names.count("RunActivity:local-sandbox_exec"), running.log
        assert {"/v1/traces": "s3cr3t key", "/v1/metrics": "s3cr3t key"} == receiver.headers

    async def test_lets_activities_end(
        self, app: Path, temporal_client: Client, temporal_address: str
    ) -> None:
        """Meanwhile it is not ready, so that nothing more is sent to it."""
        health = free_port()
        with (
            socket.create_server(("127.0.0.1", 0)) as listener,
            started(app, temporal_address, "--health-port", str(health)) as running,
        ):
            port = listener.getsockname()[1]
            handle = await temporal_client.start_workflow(
                "Run", args=["drain", port], id=unique("drain"), task_queue=running.queue
            )
            connection, _ = await asyncio.to_thread(listener.accept)
            running.process.send_signal(signal.SIGTERM)
            assert b"stopping" == await asyncio.to_thread(connection.recv, 100)
            assert (503, "stopping\n") == await get(health, "/readyz")
            assert (200, "alive\n") == await get(health, "/livez")
            connection.close()
            assert 0 == await running.ended()

        assert ["drain"] == completed_activities(await handle.fetch_history())
        await handle.terminate()

    @pytest.mark.parametrize(("name", "grace_s", "code"), [("hang", 5, 0), ("refuse", 1, 1)])
    async def test_ends_within_the_grace_period(
        self,
        name: str,
        grace_s: int,
        code: int,
        app: Path,
        temporal_client: Client,
        temporal_address: str,
    ) -> None:
        """Also if a thread of an activity does not, or refuses to be cancelled."""
        with (
            socket.create_server(("127.0.0.1", 0)) as listener,
            started(app, temporal_address, "--grace-period", f"{grace_s}s") as running,
        ):
            port = listener.getsockname()[1]
            handle = await temporal_client.start_workflow(
                "Run", args=[name, port], id=unique(name), task_queue=running.queue
            )
            connection, _ = await asyncio.to_thread(listener.accept)
            assert code == await running.stop()
            connection.close()

        assert code == int(f"not ended within {grace_s}.0 s" in running.log)
        await handle.terminate()

    async def test_a_second_signal_ends_it_at_once(
        self, app: Path, temporal_client: Client, temporal_address: str
    ) -> None:
        with (
            socket.create_server(("127.0.0.1", 0)) as listener,
            started(app, temporal_address) as running,
        ):
            port = listener.getsockname()[1]
            handle = await temporal_client.start_workflow(
                "Run", args=["drain", port], id=unique("drain"), task_queue=running.queue
            )
            connection, _ = await asyncio.to_thread(listener.accept)
            running.process.send_signal(signal.SIGINT)
            await asyncio.to_thread(connection.recv, 100)
            assert 130 == await running.stop(signal.SIGINT)
            connection.close()

        await handle.terminate()


class TestMistakes:
    """Each is one line that says what to do."""

    @pytest.mark.parametrize(
        ("target", "said"),
        [
            ("json", "'json': write MODULE:ATTR, such as app.workflows:Ask"),
            ("moon:Ask", "'moon:Ask': module 'moon' cannot be imported: ModuleNotFoundError"),
            ("json:dumsp", "'json:dumsp': 'json' has no 'dumsp'; did you mean 'dump'?"),
            ("json:dumps", "is neither a workflow (a class with @workflow.defn) nor an activity"),
        ],
    )
    def test_a_target_that_cannot_be(self, target: str, said: str) -> None:
        result = run_sandbox("worker", target)

        assert 1 == result.returncode
        assert said in result.stderr
        assert 1 == len(result.stderr.splitlines())

    def test_a_profile_that_is_missing(self) -> None:
        result = run_sandbox("worker", "--profile", "moon")

        assert 1 == result.returncode
        assert "error: Temporal's client configuration: Profile 'moon' not found" in result.stderr

    @pytest.mark.parametrize("option", ["--health-port", "--metrics-port"])
    def test_a_port_in_use(self, option: str, temporal_address: str) -> None:
        with socket.create_server(("0.0.0.0", 0)) as listener:
            port = str(listener.getsockname()[1])
            variables = {"TEMPORAL_ADDRESS": temporal_address, "SANDBOX_CORE_PROVIDERS": "local"}
            result = run_sandbox("worker", option, port, **variables)

        assert 1 == result.returncode
        assert f"error: {option} {port}: " in result.stderr
        assert "Choose another port." in result.stderr

    @pytest.mark.parametrize(
        ("variable", "value", "message"),
        [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "error: OTEL_EXPORTER_OTLP_PROTOCOL is 'grpc'"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "nowhere", "error: --otlp: Invalid OTel URL"),
        ],
    )
    def test_otlp_with_an_invalid_variable(self, variable: str, value: str, message: str) -> None:
        result = run_sandbox("worker", "--otlp", **{variable: value})

        assert 1 == result.returncode
        assert message in result.stderr

    def test_openai_without_a_key(self) -> None:
        result = run_sandbox("worker", "--openai")

        assert 1 == result.returncode
        assert "--openai needs OPENAI_API_KEY" in result.stderr


class TestHealth:
    """The server for probes, with clients that misbehave."""

    async def test_says_why_it_is_not_ready(self) -> None:
        port = free_port()
        async with health_server(port, lambda: "starting"):
            assert (503, "starting\n") == await get(port, "/readyz")
            assert (404, "there are /livez and /readyz\n") == await get(port, "/")

    async def test_survives_what_is_not_http(self) -> None:
        port = free_port()
        async with health_server(port, lambda: ""):
            for sent in (b"", b"\r\n\r\n", b"x" * 100_000):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(sent)
                writer.write_eof()
                with suppress(ConnectionError):  # Refused before all was read.
                    await reader.read()
                writer.close()
            assert (200, "ready\n") == await get(port, "/readyz")


@pytest.mark.extended
async def test_the_command_of_the_page(tmp_path: Path, temporal_address: str) -> None:
    """With a package of workflows and activities, as the page of commands shows it."""
    (step,) = steps(documented("docs/commands.md", "sandbox-core worker"))
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "workflows.py").write_text(
        documented("README.md", "from agents import Runner").content
    )
    (tmp_path / "app" / "activities.py").write_text("from app.helpers import ACTIVITIES as ALL\n")
    (tmp_path / "app" / "helpers.py").write_text(APP)
    health = free_port()
    here = {"agents": unique("queue"), "8080": str(health), "9090": str(free_port())}
    variables = {
        "OPENAI_API_KEY": "s3cr3t-of-nobody",
        "SANDBOX_CORE_PROVIDERS": "local",
        "TEMPORAL_ADDRESS": temporal_address,
        "TMPDIR": str(tmp_path),
    }

    async def ready() -> bool:
        with suppress(OSError):
            return await get(health, "/readyz") == (200, "ready\n")
        return False

    process = await asyncio.create_subprocess_exec(
        SANDBOX,
        *(here.get(word, word) for word in step.words[1:]),
        cwd=tmp_path,
        env=environment(**variables),
        stderr=subprocess.PIPE,
    )
    try:
        await until(ready, within_s=60)
        process.terminate()
        _, log = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()

    assert 0 == process.returncode, log
    assert "stopped" == json.loads(log.splitlines()[-1])["message"]
