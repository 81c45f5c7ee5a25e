"""Requests that no worker can carry out fail at once, without a retry."""

from __future__ import annotations

import inspect
import math
import re
import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from support import attempts, running_worker, scheduled_activities, unique
from temporalio.client import Client
from workflows.steps import Outcome, Perform, Plan, Step
from workflows.wrong_types import CLIENT, METHODS, SESSION, WrongConfigs, WrongTypes

from sandbox_core.workflow import TemporalSandboxClient, WorkflowSandboxSession


@pytest.fixture(autouse=True)
def _only_local(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDBOX_CORE_PROVIDERS", "local")


async def _perform(client: Client, *steps: Step) -> tuple[list[Outcome], list[int], list[str]]:
    async with running_worker(client, Perform) as queue:
        handle = await client.start_workflow(
            Perform.run, Plan([*steps]), id=unique("mistakes"), task_queue=queue
        )
        outcomes = await handle.result()
        history = await handle.fetch_history()
    return outcomes, attempts(history), scheduled_activities(history)


async def test_what_the_workflow_can_tell_is_never_sent(temporal_client: Client) -> None:
    """The message names the argument, and what it may be."""
    times = (math.inf, -math.inf, math.nan, -1.0)
    steps = [Step("exec", ["true"], options={"timeout": time}) for time in times]
    steps += [Step("pty_exec_start", ["true"], options={"yield_time_s": time}) for time in times]
    steps += [Step("exec", [], options={"shell": False}), Step("exec", ["echo \ud800"])]
    steps += [Step("pty_exec_start", ["echo a\0b"]), Step("exec", ["echo a\0b"])]
    paths = {"read": 1, "write": 1, "ls": 1, "mkdir": 1, "rm": 1, "mv": 2, "extract": 1}
    steps = [
        Step(name, ["a\0b"] * count, data="x" if name in ("write", "extract") else None)
        for name, count in paths.items()
    ] + steps
    outcomes, _, scheduled = await _perform(temporal_client, *steps)

    assert "'a\\x00b' contains a null character, which no path may." == outcomes[0].text
    assert {"InvalidRequest"} == {outcome.error for outcome in outcomes}
    assert (
        "exec: timeout is inf. It must be a number of seconds >= 0, or None, for no timeout of "
        "its own."
    ) == outcomes[len(paths)].text
    assert (
        "exec: there is no command, and with shell=False no shell.",
        "exec: the request contains '\\ud800', a lone surrogate, which is not valid text and "
        "cannot be sent.",
    ) == (outcomes[-4].text, outcomes[-3].text)
    assert (
        "exec: 'echo a\\x00b' contains a null character, which no command may." == outcomes[-1].text
    )
    asked = [name.partition("_")[2] for name in scheduled]
    assert [] == [name for name in asked if name in ("exec", "pty_exec_start", "move", *paths)]


@pytest.mark.parametrize("method", METHODS)
async def test_an_argument_of_another_type_is_one_error(
    temporal_client: Client, method: str
) -> None:
    """Any other error than ours would have the workflow task repeated for ever."""
    async with running_worker(temporal_client, WrongTypes) as queue:
        handle = await temporal_client.start_workflow(
            WrongTypes.run,
            args=["local", method],
            id=unique("types"),
            task_queue=queue,
            run_timeout=timedelta(seconds=60),
        )
        told = await handle.result()
        tried = attempts(await handle.fetch_history())

    assert told
    assert {} == {mistake: said for mistake, said in told.items() if not _says_what(said)}
    assert {1} == set(tried)


def _says_what(said: str) -> bool:
    expected = (
        r" (is|are|takes) .*, not \w+[.:]",
        r"^\w+: \w+: Input should be",
        r"Invalid apply_patch|is not configured|must be one of|is not a provider name",
        r"config has no|only patch_format|pass a list as exec|not a serialized session state",
    )
    return any(re.search(each, said) for each in expected)


def test_every_argument_is_tried() -> None:
    """But hooks and dependencies, which stay in the workflow."""
    unsent = {"register_pre_stop_hook", "set_dependencies"}
    for cls, tried in ((WorkflowSandboxSession, SESSION), (TemporalSandboxClient, CLIENT)):
        for name in {name for name in dir(cls) if not name.startswith("_")} - unsent:
            method = inspect.getattr_static(cls, name)
            if inspect.isfunction(method):
                _, *arguments = inspect.signature(method).parameters

                assert set(arguments) == set(tried.get(name, ())), name


async def test_a_config_that_temporal_would_refuse_is_refused(temporal_client: Client) -> None:
    """The message names the key and its type; Temporal's server fails the workflow task for it."""
    async with running_worker(temporal_client, WrongConfigs) as queue:
        told = await temporal_client.execute_workflow(
            WrongConfigs.run, id=unique("configs"), task_queue=queue
        )

    assert [
        "config['start_to_close_timeout'] is timedelta or None, not int.",
        "config['retry_policy'] is RetryPolicy or None, not dict.",
        "config['event_groups'] is Sequence or None, not int.",
        "config['cancellation_type'] is ActivityCancellationType, not None.",
        "config['heartbeat_timeout'] is -1 day, 23:59:55, which is negative.",
        "config['retry_policy']: Backoff coefficient cannot be less than 1.",
    ] == told[:-1]
    assert "config has no 'timeout'; it takes activity_id, " in told[-1]


async def test_what_only_the_sandbox_can_tell_is_attempted_once(temporal_client: Client) -> None:
    """The error says what the operating system does."""
    operations = ("read", "ls", "mkdir", "rm")
    steps = [Step("exec", ["ln -s b a; ln -s a b; touch file"])]
    steps += [Step(operation, ["a/x"]) for operation in operations]
    steps += [Step("write", ["a/x"], data="text"), Step("write", ["file/x"], data="text")]
    steps += [Step("read", ["file/x"]), Step("ls", ["file"]), Step("mkdir", ["x" * 300])]
    steps += [Step("extract", [f"x.{kind}"], data="no archive") for kind in ("tar", "zip")]
    outcomes, tried, _ = await _perform(temporal_client, *steps)

    assert ["not a valid archive"] * 2 == [each.text.rpartition(": ")[2] for each in outcomes[-2:]]
    assert [True, *[False] * 11] == [bool(outcome) for outcome in outcomes], outcomes
    assert {1} == set(tried)


async def test_a_user_that_needs_sudo_where_there_is_none_is_told(
    temporal_client: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The command was never started, and nothing is in doubt."""
    for name in ("sh", "env", "cat", "mkdir"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    monkeypatch.setenv("PATH", str(tmp_path))
    steps = [Step("exec", ["id"], options={"user": "nobody"})]
    steps += [Step("pty_exec_start", ["id"], options={"user": "nobody"})]
    outcomes, tried, _ = await _perform(temporal_client, *steps)

    assert [] == [outcome for outcome in outcomes if outcome or "sudo" not in outcome.text]
    assert "OutcomeUnknown" not in {outcome.error for outcome in outcomes}
    assert {1} == set(tried)
