"""The options of an operation's activity."""

from __future__ import annotations

from datetime import timedelta

import pytest
from temporalio.common import Priority, RetryPolicy
from temporalio.workflow import ActivityCancellationType, ActivityConfig

from sandbox_core.errors import PayloadTooLarge
from sandbox_core.wire import messages as m
from sandbox_core.wire import operations as ops
from sandbox_core.wire.operations import Effect, Operation
from sandbox_core.workflow.dispatch import activity_options, dispatch

AnyOperation = Operation[m.Message, "m.Message | bytes | None"]

SESSION = m.SessionRef(session_id="s", epoch=1)
ROWS = list(ops.operations())
ONCE = [row for row in ROWS if row.effect is Effect.ONCE]
REPEATABLE = [row for row in ROWS if row.effect is not Effect.ONCE]
# Asks for no time and has nothing to show, so any row takes it.
BARE = m.RunningRequest(session=SESSION)


def options_of_exec(config: ActivityConfig, timeout: float | None = None) -> ActivityConfig:
    command = m.ExecRequest(session=SESSION, operation_id="o", command=("make",), timeout=timeout)
    return activity_options(config, ops.EXEC, command)


def options_of_running(config: ActivityConfig) -> ActivityConfig:
    return activity_options(config, ops.RUNNING, BARE)


def retry_policy(options: ActivityConfig) -> RetryPolicy:
    policy = options.get("retry_policy")
    assert policy is not None
    return policy


def named(rows: list[AnyOperation]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("row", rows, ids=lambda row: row.name)


def without_duration(row: AnyOperation) -> AnyOperation:
    return Operation(name=row.name, request=row.request, response=row.response, effect=row.effect)


class TestTimeouts:
    def test_without_a_config_it_is_five_minutes_with_a_heartbeat_in_30_seconds(self) -> None:
        options = options_of_running({})

        assert timedelta(minutes=5) == options.get("start_to_close_timeout")
        assert timedelta(seconds=30) == options.get("heartbeat_timeout")
        assert options.get("schedule_to_close_timeout") is None
        assert options.get("schedule_to_start_timeout") is None

    def test_a_schedule_to_close_timeout_of_the_users_is_enough(self) -> None:
        options = options_of_running({"schedule_to_close_timeout": timedelta(minutes=1)})

        assert timedelta(minutes=1) == options.get("schedule_to_close_timeout")
        assert options.get("start_to_close_timeout") is None

    def test_a_long_command_lengthens_both_timeouts_by_its_own_and_some_overhead(self) -> None:
        config = ActivityConfig(
            start_to_close_timeout=timedelta(minutes=5),
            schedule_to_close_timeout=timedelta(minutes=10),
        )

        options = options_of_exec(config, timeout=1200)

        assert timedelta(seconds=1260) == options.get("start_to_close_timeout")
        assert timedelta(seconds=1260) == options.get("schedule_to_close_timeout")

    def test_a_long_command_lengthens_the_default_timeout_too(self) -> None:
        options = options_of_exec({}, timeout=1200)

        assert timedelta(seconds=1260) == options.get("start_to_close_timeout")
        assert options.get("schedule_to_close_timeout") is None

    def test_a_short_command_shortens_nothing(self) -> None:
        config = ActivityConfig(
            start_to_close_timeout=timedelta(minutes=5),
            schedule_to_close_timeout=timedelta(minutes=10),
        )

        options = options_of_exec(config, timeout=1)

        assert timedelta(minutes=5) == options.get("start_to_close_timeout")
        assert timedelta(minutes=10) == options.get("schedule_to_close_timeout")

    def test_a_command_without_a_timeout_has_the_configs(self) -> None:
        options = options_of_exec({"start_to_close_timeout": timedelta(hours=3)})

        assert timedelta(hours=3) == options.get("start_to_close_timeout")

    @pytest.mark.parametrize("timeout", [float("inf"), 1e15])
    def test_an_endless_timeout_of_a_command_is_no_error(self, timeout: float) -> None:
        options = options_of_exec({}, timeout=timeout)

        assert (options.get("start_to_close_timeout") or timedelta()) > timedelta(days=1)

    def test_waiting_for_output_lengthens_the_timeout(self) -> None:
        start = m.PtyExecStartRequest(
            session=SESSION, operation_id="o", command=("make",), yield_time_s=600
        )
        write = m.PtyWriteStdinRequest(
            session=SESSION, operation_id="o", process_id=1, chars="", yield_time_s=600
        )

        for options in (
            activity_options({}, ops.PTY_EXEC_START, start),
            activity_options({}, ops.PTY_WRITE_STDIN, write),
        ):
            assert timedelta(seconds=660) == options.get("start_to_close_timeout")


class TestConfig:
    def test_the_users_config_wins(self) -> None:
        config = ActivityConfig(
            task_queue="gpu",
            start_to_close_timeout=timedelta(seconds=7),
            schedule_to_start_timeout=timedelta(seconds=8),
            heartbeat_timeout=timedelta(seconds=9),
            cancellation_type=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            priority=Priority(priority_key=2),
            summary="mine",
        )

        options = options_of_running(config)

        assert config.items() <= options.items()
        assert {"retry_policy"} == options.keys() - config.keys()

    def test_it_is_not_changed(self) -> None:
        policy = RetryPolicy()
        config = ActivityConfig(retry_policy=policy)

        options_of_exec(config, timeout=1200)

        assert {"retry_policy": policy} == config
        assert RetryPolicy() == policy


class TestRetries:
    @named(ONCE)
    def test_what_must_not_be_repeated_has_one_attempt(self, row: AnyOperation) -> None:
        options = activity_options({}, without_duration(row), BARE)

        assert 1 == retry_policy(options).maximum_attempts

    @named(ONCE)
    @pytest.mark.parametrize("attempts", [0, 1, 7])
    def test_what_must_not_be_repeated_has_one_attempt_whatever_the_config_says(
        self, row: AnyOperation, attempts: int
    ) -> None:
        config = ActivityConfig(
            retry_policy=RetryPolicy(maximum_attempts=attempts),
            schedule_to_close_timeout=timedelta(hours=1),
        )

        options = activity_options(config, without_duration(row), BARE)

        assert 1 == retry_policy(options).maximum_attempts

    @named(REPEATABLE)
    def test_what_may_be_repeated_has_a_bounded_number_of_attempts(self, row: AnyOperation) -> None:
        assert 5 == retry_policy(activity_options({}, without_duration(row), BARE)).maximum_attempts

    @named(REPEATABLE)
    def test_a_policy_without_a_bound_gets_one(self, row: AnyOperation) -> None:
        options = activity_options({"retry_policy": RetryPolicy()}, without_duration(row), BARE)

        assert 5 == retry_policy(options).maximum_attempts

    def test_a_schedule_to_close_timeout_is_a_bound(self) -> None:
        config = ActivityConfig(
            retry_policy=RetryPolicy(), schedule_to_close_timeout=timedelta(hours=1)
        )

        assert 0 == retry_policy(options_of_running(config)).maximum_attempts

    def test_the_users_policy_is_kept_otherwise(self) -> None:
        mine = RetryPolicy(
            initial_interval=timedelta(seconds=3),
            backoff_coefficient=1.5,
            maximum_interval=timedelta(seconds=40),
            maximum_attempts=9,
            non_retryable_error_types=["exec_timeout"],
        )

        policy = retry_policy(options_of_running({"retry_policy": mine}))

        assert timedelta(seconds=3) == policy.initial_interval
        assert 1.5 == policy.backoff_coefficient
        assert timedelta(seconds=40) == policy.maximum_interval
        assert 9 == policy.maximum_attempts
        assert ["exec_timeout", "NotFoundError"] == policy.non_retryable_error_types

    @named(ROWS)
    @pytest.mark.parametrize("policy", [None, RetryPolicy(), RetryPolicy(maximum_attempts=3)])
    def test_a_worker_that_does_not_know_the_activity_is_asked_once(
        self, row: AnyOperation, policy: RetryPolicy | None
    ) -> None:
        config = ActivityConfig() if policy is None else ActivityConfig(retry_policy=policy)

        options = activity_options(config, without_duration(row), BARE)

        assert "NotFoundError" in (retry_policy(options).non_retryable_error_types or ())


class TestSummary:
    def test_it_names_the_operation_and_what_it_is_about(self) -> None:
        command = m.ExecRequest(session=SESSION, operation_id="o", command=("pytest", "-q"))

        options = activity_options({}, ops.EXEC, command)

        assert "exec: pytest -q" == options.get("summary")

    def test_an_operation_about_nothing_in_particular_has_its_name_alone(self) -> None:
        assert "running" == options_of_running({}).get("summary")

    def test_it_holds_no_secret(self) -> None:
        command = m.ExecRequest(
            session=SESSION, operation_id="o", command=("TOKEN=hunter2 ./deploy",)
        )

        options = activity_options({}, ops.EXEC, command)

        assert "exec: TOKEN=*** ./deploy" == options.get("summary")


class TestSize:
    """What Temporal would refuse is not sent to it."""

    async def test_a_file_that_is_too_large_is_refused_with_its_path_size_and_limit(self) -> None:
        request = m.WriteRequest(session=SESSION, path="/workspace/model.bin")

        with pytest.raises(PayloadTooLarge) as caught:
            await dispatch("local", {}, ops.WRITE, request, bytes(2_500_000))

        assert (
            "write /workspace/model.bin: 2,500,000 bytes are more than the 2,031,616 that Temporal "
            "takes in one payload."
        ) == str(caught.value)

    async def test_a_manifest_that_is_too_large_is_refused(self) -> None:
        request = m.CreateSessionRequest(
            create_key="k", epoch=1, manifest={"root": "x" * 2_500_000}
        )

        with pytest.raises(PayloadTooLarge, match="create_session"):
            await dispatch("local", {}, ops.CREATE_SESSION, request)

    async def test_a_state_that_is_too_large_is_refused_beside_a_small_file(self) -> None:
        request = m.WriteRequest(session=SESSION, path="a", state={"root": "x" * 2_500_000})

        with pytest.raises(PayloadTooLarge, match="write a"):
            await dispatch("local", {}, ops.WRITE, request, b"small")

    async def test_the_error_for_a_command_that_is_too_large_is_small(self) -> None:
        request = m.ExecRequest(
            session=SESSION, operation_id="o", command=("TOKEN=hunter2 " + "x" * 2_500_000,)
        )

        with pytest.raises(PayloadTooLarge) as caught:
            await dispatch("local", {}, ops.EXEC, request)

        assert len(str(caught.value)) < 300
        assert "hunter2" not in str(caught.value)
