"""An error of the SDK leaves an activity and arrives in the workflow as the same class."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from agents.sandbox import errors as sdk
from agents.sandbox.errors import ErrorCode, SandboxError
from agents.sandbox.types import ExecResult
from temporalio.api.failure.v1 import Failure
from temporalio.contrib.pydantic import PydanticPayloadConverter
from temporalio.converter import DefaultFailureConverter, DefaultPayloadConverter, PayloadConverter
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory
from temporalio.openai_agents import OpenAIPayloadConverter

from sandbox_core import errors as ours
from sandbox_core.errors import OperationFailed, SandboxCoreError
from sandbox_core.wire.failures import decode_error, encode_error

ErrorT = TypeVar("ErrorT", bound=BaseException)

COMMAND = ("git", "clone", Path("/src/a b"))
FAILED = ExecResult(stdout=b"out \xff\x00", stderr="gr\u00fc\u00dfe".encode(), exit_code=128)
PATH = Path("/workspace/d\u00e9p\u00f4t/a b.txt")
CAUSE = ConnectionResetError(104, "Connection reset by peer")
CONTEXT = {"attempt": 2, "nested": {"ports": [1, 2], "ok": True, "ratio": 0.5, "none": None}}

# Every class that the SDK has, as it raises them.
EXAMPLES: dict[type[SandboxError], SandboxError] = {
    type(example): example
    for example in (
        sdk.ConfigurationError(
            message="no root", error_code=ErrorCode.SANDBOX_CONFIG_INVALID, op="start", context={}
        ),
        sdk.SandboxRuntimeError(
            message="docker is gone",
            error_code=ErrorCode.EXEC_TRANSPORT_ERROR,
            op="running",
            context=dict(CONTEXT),
            cause=CAUSE,
            retryable=True,
        ),
        sdk.ArtifactError(
            message="no artifact",
            error_code=ErrorCode.LOCAL_FILE_READ_ERROR,
            op="materialize",
            context={"src": "a"},
        ),
        sdk.SnapshotError(
            message="no bucket",
            error_code=ErrorCode.SNAPSHOT_PERSIST_ERROR,
            op="snapshot_persist",
            context={},
            retryable=False,
        ),
        sdk.ApplyPatchError(
            message="no patch",
            error_code=ErrorCode.APPLY_PATCH_INVALID_DIFF,
            op="apply_patch",
            context={},
        ),
        sdk.LocalArtifactError(
            message="no file",
            error_code=ErrorCode.LOCAL_FILE_READ_ERROR,
            op="materialize",
            context={},
        ),
        sdk.GitArtifactError(
            message="no repo",
            error_code=ErrorCode.GIT_CLONE_ERROR,
            op="materialize",
            context={},
            retryable=True,
        ),
        sdk.MountArtifactError(
            message="no mount", error_code=ErrorCode.MOUNT_FAILED, op="materialize", context={}
        ),
        sdk.WorkspaceIOError(
            message="disk full",
            error_code=ErrorCode.WORKSPACE_ARCHIVE_WRITE_ERROR,
            op="write",
            context={},
        ),
        sdk.ExecFailureError(
            message="no shell",
            error_code=ErrorCode.EXEC_TRANSPORT_ERROR,
            command=COMMAND,
            retryable=True,
        ),
        sdk.ExecNonZeroError(FAILED, command=COMMAND, context=CONTEXT),
        sdk.ExecTimeoutError(command=COMMAND, timeout_s=1.5, cause=CAUSE),
        sdk.ExecTransportError(command=COMMAND, message="socket closed", retryable=True),
        sdk.InvalidManifestPathError(rel="../x", reason="escape_root", cause=CAUSE),
        sdk.InvalidCompressionSchemeError(path=PATH, scheme=None),
        sdk.ExposedPortUnavailableError(port=1, exposed_ports=(80, 443), reason="not_configured"),
        sdk.PtySessionNotFoundError(session_id=7),
        sdk.ApplyPatchPathError(path=Path("/etc"), reason="absolute"),
        sdk.ApplyPatchDiffError(message="bad hunk\n@@ -1 +1 @@", path=PATH),
        sdk.ApplyPatchFileNotFoundError(path=PATH),
        sdk.ApplyPatchDecodeError(path=PATH, cause=CAUSE),
        sdk.WorkspaceReadNotFoundError(path=PATH, context=CONTEXT),
        sdk.WorkspaceArchiveReadError(path=PATH, retryable=True),
        sdk.WorkspaceArchiveWriteError(path=PATH, retryable=None),
        sdk.WorkspaceWriteTypeError(path=PATH, actual_type="str"),
        sdk.WorkspaceStopError(path=PATH, cause=CAUSE),
        sdk.WorkspaceStartError(path=PATH, message="no space left", retryable=False),
        sdk.WorkspaceRootNotFoundError(path=PATH),
        sdk.LocalFileReadError(src=PATH),
        sdk.LocalDirReadError(src=PATH, context={"reason": "symlink"}),
        sdk.LocalChecksumError(src=PATH),
        sdk.GitMissingInImageError(),
        sdk.GitCloneError(url="https://example.com/r.git", ref="main", stderr="fatal"),
        sdk.GitSubpathError(repo="r", subpath="..", reason="parent_traversal"),
        sdk.GitCopyError(src_root="/tmp/r", dest=PATH, stderr=None),
        sdk.MountToolMissingError(tool="rclone"),
        sdk.MountConfigError(message="no bucket", context={"bucket": ""}),
        sdk.MountCommandError(command="mount -t fuse", stderr="denied", retryable=True),
        sdk.SkillsConfigError(message="no SKILL.md"),
        sdk.SnapshotPersistError(snapshot_id="s1", path=PATH, cause=CAUSE),
        sdk.SnapshotRestoreError(snapshot_id="s1", path=PATH),
        sdk.SnapshotNotRestorableError(snapshot_id="s1", path=PATH),
    )
}

each_error = pytest.mark.parametrize("error", EXAMPLES.values(), ids=[c.__name__ for c in EXAMPLES])
each_converter = pytest.mark.parametrize(
    "converter",
    [DefaultPayloadConverter(), PydanticPayloadConverter(), OpenAIPayloadConverter()],
    ids=lambda converter: type(converter).__name__,
)


def classes(base: type[ErrorT]) -> Iterator[type[ErrorT]]:
    for subclass in base.__subclasses__():
        yield subclass
        yield from classes(subclass)


def failure_of(error: Exception, converter: PayloadConverter) -> ApplicationError:
    """Return what a workflow sees of an error of an activity, through the serialized failure."""
    sent, received = Failure(), Failure()
    DefaultFailureConverter().to_failure(encode_error(error), converter, sent)
    received.ParseFromString(sent.SerializeToString())
    seen = DefaultFailureConverter().from_failure(received, converter)
    assert isinstance(seen, ApplicationError)
    return seen


def across(error: Exception, converter: PayloadConverter | None = None) -> Exception:
    return decode_error(failure_of(error, converter or DefaultPayloadConverter()))


def sandbox_error_across(
    error: SandboxError, converter: PayloadConverter | None = None
) -> SandboxError:
    arrived = across(error, converter)
    assert isinstance(arrived, SandboxError)
    return arrived


def own_attributes(error: SandboxError) -> dict[str, object]:
    fields = {"message", "error_code", "op", "context", "cause", "retryable"}
    return {key: value for key, value in vars(error).items() if key not in fields}


class TestSandboxError:
    def test_there_is_an_example_of_every_class_of_the_sdk(self) -> None:
        existing = {cls for cls in classes(SandboxError) if cls.__module__.startswith("agents.")}

        assert existing == set(EXAMPLES)

    @each_converter
    @each_error
    def test_it_keeps_its_class_its_message_and_its_fields(
        self, error: SandboxError, converter: PayloadConverter
    ) -> None:
        arrived = sandbox_error_across(error, converter)

        assert type(error) is type(arrived)
        assert str(error) == str(arrived)
        assert error.message == arrived.message
        assert error.error_code is arrived.error_code
        assert error.code == arrived.code
        assert error.op == arrived.op
        assert error.retryable is arrived.retryable
        assert json.loads(json.dumps(error.context)) == arrived.context

    @each_converter
    @each_error
    def test_it_keeps_the_attributes_of_its_class(
        self, error: SandboxError, converter: PayloadConverter
    ) -> None:
        assert own_attributes(error) == own_attributes(sandbox_error_across(error, converter))

    def test_output_that_is_not_text_arrives_byte_for_byte(self) -> None:
        arrived = across(sdk.ExecNonZeroError(FAILED, command=COMMAND))

        assert isinstance(arrived, sdk.ExecNonZeroError)
        assert b"out \xff\x00" == arrived.stdout
        assert 128 == arrived.exit_code
        assert ("git", "clone", "/src/a b") == arrived.command

    @each_error
    def test_it_can_be_raised_and_caught_as_what_it_was(self, error: SandboxError) -> None:
        with pytest.raises(type(error)):
            raise across(error)

    @each_error
    def test_it_can_cross_a_second_time(self, error: SandboxError) -> None:
        once = sandbox_error_across(error)

        assert own_attributes(once) == own_attributes(sandbox_error_across(once))

    def test_the_failure_names_the_error_code_for_who_reads_the_history(self) -> None:
        failure = failure_of(EXAMPLES[sdk.ExecTimeoutError], DefaultPayloadConverter())

        assert "exec_timeout" == failure.type
        assert "command timed out" == failure.message

    def test_a_class_that_the_workflow_lacks_becomes_its_nearest_base_that_exists(self) -> None:
        failure = failure_of(
            sdk.ExposedPortUnavailableError(port=80, exposed_ports=(), reason="quota"),
            DefaultPayloadConverter(),
        )
        details = {**failure.details[0]}
        details["classes"] = ["AcmeQuotaError", "AcmeError", *details["classes"]]

        arrived = decode_error(ApplicationError(failure.message, details, type=failure.type))

        assert sdk.ExposedPortUnavailableError is type(arrived)
        assert "port 80 could not be resolved for host exposure" == str(arrived)

    def test_a_subclass_of_a_provider_that_is_loaded_keeps_its_class_and_attributes(self) -> None:
        class AcmeQuotaError(sdk.SandboxRuntimeError):
            def __init__(self, quota: int) -> None:
                super().__init__(
                    message=f"more than {quota} sandboxes",
                    error_code=ErrorCode.WORKSPACE_START_ERROR,
                    op="start",
                    context={},
                )
                self.quota = quota
                self._connection = object()

        arrived = across(AcmeQuotaError(5))

        assert isinstance(arrived, AcmeQuotaError)
        assert "more than 5 sandboxes" == str(arrived)
        assert {"quota": 5} == own_attributes(arrived)

    def test_an_error_code_of_a_newer_sdk_becomes_the_general_one(self) -> None:
        failure = failure_of(EXAMPLES[sdk.SnapshotError], DefaultPayloadConverter())

        arrived = decode_error(
            ApplicationError(failure.message, *failure.details, type="snapshot_expired")
        )

        assert isinstance(arrived, sdk.SnapshotError)
        assert ErrorCode.SANDBOX_CONFIG_INVALID is arrived.error_code


class TestContext:
    """Providers put anything into it; the error must arrive all the same."""

    @each_converter
    @pytest.mark.parametrize(
        ("value", "arrives"),
        [
            (b"\xff\xfe", b"\xff\xfe"),
            ({"deep": [b"\x00", (1, 2)]}, {"deep": [b"\x00", [1, 2]]}),
            (Path("/a/b"), "/a/b"),
            (ErrorCode.EXEC_TIMEOUT, "exec_timeout"),
            (ValueError("inner"), "inner"),
            ({3: "three"}, {"3": "three"}),
            (2**70, 2**70),
            (complex(1, 2), "1+2j"),
        ],
        ids=repr,
    )
    def test_what_is_not_json_arrives_readable(
        self, converter: PayloadConverter, value: object, arrives: object
    ) -> None:
        error = sdk.SkillsConfigError(message="no", context={"value": value})

        assert {"value": arrives} == sandbox_error_across(error, converter).context

    @each_converter
    @pytest.mark.parametrize(
        "value", [object(), math.nan, memoryview(b"x")], ids=lambda value: type(value).__name__
    )
    def test_what_has_no_json_at_all_is_no_obstacle(
        self, converter: PayloadConverter, value: object
    ) -> None:
        error = sdk.SkillsConfigError(message="no", context={"value": value})

        assert "no" == str(sandbox_error_across(error, converter))

    @pytest.mark.parametrize(
        "value",
        [
            pytest.param({b"\xff"}, id="a set of bytes"),
            pytest.param(bytearray(b"\xff"), id="a bytearray"),
        ],
    )
    def test_bytes_in_another_container_are_no_obstacle(self, value: object) -> None:
        error = sdk.SkillsConfigError(message="no", context={"value": value})

        assert "no" == str(sandbox_error_across(error))

    def test_an_object_that_cannot_be_printed_is_no_obstacle(self) -> None:
        class Unprintable:
            def __str__(self) -> str:
                return str(1 // 0)

        error = sdk.SkillsConfigError(message="no", context={"value": Unprintable()})

        assert "no" == str(sandbox_error_across(error))

    def test_a_cycle_is_no_obstacle(self) -> None:
        context: dict[str, object] = {}
        context["self"] = context

        assert "no" == str(across(sdk.SkillsConfigError(message="no", context=context)))

    @pytest.mark.parametrize("text", ["aGk=", "not base64"])
    def test_a_context_that_looks_like_encoded_bytes_is_itself(self, text: str) -> None:
        error = sdk.SkillsConfigError(message="no", context={"base64": text})

        assert {"base64": text} == sandbox_error_across(error).context

    @each_converter
    def test_the_name_of_a_file_that_is_not_utf_8_is_no_obstacle(
        self, converter: PayloadConverter
    ) -> None:
        error = sdk.WorkspaceReadNotFoundError(path=Path("caf\udce9.txt"))

        assert isinstance(across(error, converter), sdk.WorkspaceReadNotFoundError)

    def test_an_error_with_much_output_stays_small_enough_for_temporal(self) -> None:
        output = ExecResult(stdout=b"x" * 1_500_000, stderr=b"", exit_code=1)
        failure = Failure()

        DefaultFailureConverter().to_failure(
            encode_error(sdk.ExecNonZeroError(output, command=("make",))),
            DefaultPayloadConverter(),
            failure,
        )

        assert failure.ByteSize() < 1_000_000


class TestBuiltinErrors:
    @each_converter
    @pytest.mark.parametrize(
        "error",
        [
            RuntimeError("docker is gone"),
            FileNotFoundError(2, "No such file or directory", "/a"),
            IsADirectoryError(21, "Is a directory", "/a"),
            NotADirectoryError(20, "Not a directory", "/a"),
            PermissionError(13, "Permission denied", "/a"),
            TimeoutError("no answer in 30 s"),
            NotImplementedError("pty"),
            ValueError("gr\u00fc\u00dfe"),
            TypeError("not a str"),
            KeyError("name"),
        ],
        ids=lambda error: type(error).__name__,
    )
    def test_it_stays_catchable_by_its_class_with_the_same_message(
        self, converter: PayloadConverter, error: Exception
    ) -> None:
        arrived = across(error, converter)

        assert isinstance(arrived, type(error))
        assert isinstance(arrived, OperationFailed)
        assert str(error) == str(arrived)

    def test_a_subclass_stays_catchable_by_the_class_that_is_known(self) -> None:
        error = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")

        arrived = across(error)

        assert isinstance(arrived, ValueError)
        assert str(error) == str(arrived)

    def test_an_error_without_a_message_says_its_class(self) -> None:
        assert "TimeoutError" == str(across(TimeoutError()))

    def test_any_other_error_says_its_class_and_its_message(self) -> None:
        arrived = across(ZeroDivisionError("division by zero"))

        assert OperationFailed is type(arrived)
        assert "ZeroDivisionError: division by zero" == str(arrived)

    def test_a_message_that_is_not_utf_8_is_no_obstacle(self) -> None:
        assert isinstance(across(ValueError("caf\udce9")), ValueError)


# Those of a command's own never leave it.
_OWN = [cls for cls in classes(SandboxCoreError) if cls.__module__ == ours.__name__]


class TestOwnErrors:
    @each_converter
    @pytest.mark.parametrize("cls", [SandboxCoreError, *_OWN])
    def test_it_keeps_its_class_and_its_message(
        self, cls: type[SandboxCoreError], converter: PayloadConverter
    ) -> None:
        arrived = across(cls("what failed, and what to do"), converter)

        assert cls is type(arrived)
        assert "what failed, and what to do" == str(arrived)

    @pytest.mark.parametrize("cls", [SandboxCoreError, *_OWN])
    def test_it_is_never_retried(self, cls: type[SandboxCoreError]) -> None:
        assert encode_error(cls("no")).non_retryable

    def test_only_what_the_workflow_has_an_answer_to_is_ordinary(self) -> None:
        assert [ours.AtCapacity, ours.SessionNotOpen] == [
            cls
            for cls in _OWN
            if encode_error(cls("no")).category is ApplicationErrorCategory.BENIGN
        ]

    def test_an_application_error_of_someone_else_is_left_as_it_is(self) -> None:
        error = ApplicationError("mine", 1, "two", type="Mine", non_retryable=True)

        arrived = across(error)

        assert isinstance(arrived, ApplicationError)
        assert ("Mine", "mine", [1, "two"]) == (
            arrived.type,
            arrived.message,
            list(arrived.details),
        )

    def test_an_error_of_a_vendor_with_the_same_name_is_not_taken_for_it(self) -> None:
        vendors = type("SessionNotOpen", (Exception,), {})

        assert OperationFailed is type(across(vendors("websocket")))


class TestRetries:
    @each_error
    def test_of_the_sdks_errors_only_the_terminal_are_never_retried(
        self, error: SandboxError
    ) -> None:
        assert (error.retryable is False) is encode_error(error).non_retryable

    @each_error
    def test_a_terminal_error_of_the_sdk_is_an_answer_and_no_alarm(
        self, error: SandboxError
    ) -> None:
        benign = encode_error(error).category is ApplicationErrorCategory.BENIGN

        assert (error.retryable is False) is benign

    @pytest.mark.parametrize(
        "error",
        [
            TypeError("x"),
            ValueError("x"),
            KeyError("x"),
            NotImplementedError("x"),
            FileNotFoundError("x"),
        ],
        ids=lambda error: type(error).__name__,
    )
    def test_a_built_in_error_that_means_a_wrong_request_is_never_retried(
        self, error: Exception
    ) -> None:
        assert encode_error(error).non_retryable

    @pytest.mark.parametrize(
        "error",
        [RuntimeError("x"), TimeoutError("x"), ConnectionError("x"), OSError("x")],
        ids=lambda error: type(error).__name__,
    )
    def test_a_built_in_error_that_may_pass_is_retried(self, error: Exception) -> None:
        assert not encode_error(error).non_retryable
