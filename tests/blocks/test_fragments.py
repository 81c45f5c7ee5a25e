"""Python blocks of the guide and of other pages, in workers and workflows that complete them."""

from __future__ import annotations

import ast
import asyncio
import importlib
import textwrap
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from documented import ROOT, documented
from support import running_worker, scheduled_activities, unique, until
from telemetry.prometheus import free_port
from temporalio.client import Client, WorkflowFailureError
from workflows.owners import OwnsSandbox

from sandbox_core.errors import AccessDenied
from sandbox_core.worker import SandboxPlugin

Load = Callable[[str], ModuleType]

ECHO = "tests/packaging/acme-sandbox-echo/README.md"
WITH_SECRETS = "from sandbox_core.worker import SandboxPlugin\n\nplugin = SandboxPlugin(worker_env"
WITH_STORAGE = "from sandbox_core.worker import SandboxPlugin\n\nplugin = SandboxPlugin(storage"
WORKFLOW = """

from sandbox_core.workflow import temporal_sandbox_client
from temporalio import workflow

@workflow.defn
class Shown:
    @workflow.run
    async def run(self) -> str:
"""


def in_workflow(*steps: str, module: str = "") -> str:
    """Return a module with a workflow `Shown` that takes the steps, the last of which returns."""
    return module + WORKFLOW + "".join(textwrap.indent(step, 8 * " ") + "\n" for step in steps)


async def execute(client: Client, module: ModuleType, **worker: Any) -> str:  # noqa: ANN401
    async with running_worker(client, module.Shown, **worker) as queue:
        result: str = await client.execute_workflow(
            module.Shown.run, id=unique("shown"), task_queue=queue
        )
        return result


async def test_a_worker_decides_by_the_tenant(temporal_client: Client, load: Load) -> None:
    page = load(documented("docs/guide.md", "from sandbox_core.worker import SandboxAccess").code)
    async with running_worker(temporal_client, OwnsSandbox, plugins=[page.plugin]) as queue:

        async def begin(tenant: str, *state: object) -> Any:  # noqa: ANN401
            return await temporal_client.start_workflow(
                OwnsSandbox.run,
                args=["local", *state],
                id=f"{tenant}/{unique('owner')}",
                task_queue=queue,
            )

        owner = await begin("acme")
        state = await owner.execute_update(OwnsSandbox.sandbox_state)
        other = await begin("others", state)
        with pytest.raises(WorkflowFailureError) as refused:
            await other.result()
        colleague = await begin("acme", state)
        same = await colleague.execute_update(OwnsSandbox.sandbox_state)
        for handle in (owner, colleague):
            await handle.terminate()

    assert AccessDenied.__name__ in repr(refused.value.cause)
    assert state["manifest"]["root"] == same["manifest"]["root"]


async def test_a_secret_and_files_of_the_worker(
    temporal_client: Client, load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_TOKEN", "s3cr3t-of-the-page")
    (tmp_path / "skills").mkdir()
    (tmp_path / "skills" / "SKILL.md").write_text("use git")
    manifest = documented("docs/guide.md", "from pathlib import Path").code
    worker = documented("docs/guide.md", WITH_SECRETS).code
    here = str(tmp_path / "skills")
    shown = in_workflow(
        'client = temporal_sandbox_client("local")',
        "session = await client.create(manifest=manifest)",
        "async with session:",
        """    result = await session.exec('echo "$GITHUB_TOKEN" | wc -c; echo $GITHUB_TOKEN')""",
        '    skill = await session.exec("cat skills/SKILL.md")',
        "await client.delete(session)",
        "return (result.stdout + skill.stdout).decode()",
        module=manifest.replace("/srv/skills", here),
    )
    plugin = load(worker.replace("/srv/skills", here)).plugin
    said = await execute(temporal_client, load(shown), plugins=[plugin])

    assert said.startswith(f"{len('s3cr3t-of-the-page') + 1}\n")
    assert "s3cr3t" not in said
    assert said.endswith("use git")


async def test_a_snapshot_goes_to_the_storage(
    temporal_client: Client, load: Load, tmp_path: Path
) -> None:
    worker = documented("docs/guide.md", WITH_STORAGE).code
    create = documented("docs/guide.md", "from agents.sandbox.snapshot").content
    shown = in_workflow(
        'client = temporal_sandbox_client("local")',
        create,
        "await session.start()",
        'await session.exec("echo saved > notes")',
        "await session.stop()",
        "await client.delete(session)",
        "return session.state.snapshot.id",
    )
    plugin = load(worker.replace("s3://bucket/prefix", str(tmp_path / "storage"))).plugin
    snapshot = await execute(temporal_client, load(shown), plugins=[plugin])

    assert [] != list((tmp_path / "storage" / "snapshots").rglob(f"*{snapshot}*"))


async def test_short_commands_are_local_activities(temporal_client: Client, load: Load) -> None:
    client = documented("docs/guide.md", "from sandbox_core.workflow import temporal").code
    shown = in_workflow(
        client.replace('"docker"', '"local"'),
        "session = await client.create()",
        "async with session:",
        '    ran = [await session.exec("echo ran") for _ in range(3)]',
        "await client.delete(session)",
        'return b"".join(each.stdout for each in ran).decode()',
    )
    module = load(shown)
    async with running_worker(temporal_client, module.Shown) as queue:
        handle = await temporal_client.start_workflow(
            module.Shown.run, id=unique("shown"), task_queue=queue
        )
        said = await handle.result()

    assert "ran\n" * 3 == said
    assert 1 == scheduled_activities(await handle.fetch_history()).count("local-sandbox_exec")


async def test_a_third_party_shows_its_provider(
    temporal_client: Client, load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str((ROOT / ECHO).parent / "src"))
    monkeypatch.setenv("ACME_ECHO_HOME", str(tmp_path))
    acme = importlib.import_module("acme_sandbox_echo")
    shown = in_workflow(documented(ECHO, "from acme").content, "return result.stdout.decode()")
    plugin = SandboxPlugin(providers=[acme.sandbox_client_provider()])

    assert "hello\n" == await execute(temporal_client, load(shown), plugins=[plugin])


async def test_output_is_followed_while_a_command_runs(
    temporal_client: Client, load: Load, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    client = documented("docs/live-output.md", "from sandbox_core.workflow").code
    show = load(documented("docs/live-output.md", "from sandbox_core.live").code).show
    shown = in_workflow(
        client.replace('"docker"', '"local"'),
        "session = await client.create()",
        "async with session:",
        f'    await session.exec("echo one; until test -e {tmp_path}/go; do sleep 0.05; done")',
        "await client.delete(session)",
        'return ""',
    )
    module = load(shown)
    printed: list[str] = []

    async def one() -> bool:
        printed.append(capsys.readouterr().out)
        return "one\n" in "".join(printed)

    async with running_worker(temporal_client, module.Shown) as queue:
        handle = await temporal_client.start_workflow(
            module.Shown.run, id=unique("shown"), task_queue=queue
        )
        following = asyncio.create_task(show(temporal_client, handle.id))
        await until(one)
        (tmp_path / "go").touch()
        await following
        await handle.result()


async def test_one_session_is_followed(
    temporal_client: Client, load: Load, capsys: pytest.CaptureFixture[str]
) -> None:
    show = load(documented("docs/live-output.md", "from sandbox_core.live").code).show
    code = documented("docs/live-output.md", "import asyncio").code
    build = load(code.replace('"docker"', '"local"').replace('"make"', '"echo made"')).Build
    async with running_worker(temporal_client, build) as queue:
        handle = await temporal_client.start_workflow(
            build.run, id=unique("shown"), task_queue=queue
        )
        await handle.result()
    await show(temporal_client, handle.id)

    assert "made\n" in capsys.readouterr().out


async def test_a_runtime_exports_the_metrics(
    temporal_client: Client, temporal_address: str, load: Load
) -> None:
    port = free_port()
    code = documented("docs/observe.md", "from sandbox_core.worker").content
    code = code.replace("localhost:7233", temporal_address).replace(
        "0.0.0.0:9090", f"127.0.0.1:{port}"
    )
    page: dict[str, Any] = {}
    await eval(compile(code, "observe.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), page)
    usage = documented("docs/observe.md", "if session.usage").content
    shown = in_workflow(
        'client = temporal_sandbox_client("local")',
        "session = await client.create()",
        "await session.start()",
        usage.replace("3600", "0"),
        "return str(session.usage.seconds)",
    )
    said = await execute(page["client"], load(shown), plugins=())
    metrics = await asyncio.to_thread(read, f"http://127.0.0.1:{port}/metrics")

    assert float(said) > 0
    assert "sandbox_core_operations_total" in metrics
    assert 'operation="delete_session"' in metrics
    assert "sandbox_core_operation_duration_seconds_bucket" in metrics


def read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())
