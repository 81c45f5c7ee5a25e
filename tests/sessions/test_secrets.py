"""What is redacted from answers, errors and logs, and what is not."""

from __future__ import annotations

import base64
import logging

import pytest
from agents.sandbox import Manifest
from agents.sandbox.errors import ExecNonZeroError
from agents.sandbox.manifest import Environment, EnvValue
from agents.sandbox.types import ExecResult
from hypothesis import given
from hypothesis import strategies as st

from sandbox_core.errors import InvalidRequest
from sandbox_core.wire.failures import encode_error
from sandbox_core.wire.messages import ExecResponse, PtyResponse, ValidatePathAccessResponse
from sandbox_core.worker import AllowAllWorkerEnvVars, SandboxPlugin
from sandbox_core.worker.agents_patches import remember_resolved_environments
from sandbox_core.worker.secrets import (
    Secrets,
    allowed_names,
    keep_secrets_out_of_logs,
    knowing_secrets,
)
from sandbox_core.workflow import WorkerEnv

SECRET = "s3cr3t-of-the-t3st"
MULTILINE = "-----BEGIN-----\nMIIs3cr3t+line/1\nMIIs3cr3t+line/2\n-----END-----\n"


class Vault(EnvValue):
    """An application's own value, another one each time."""

    type: str = "test_vault"
    n: int = 0

    async def resolve(self) -> str:
        self.n += 1
        return f"s3cr3t-number-{self.n}"


def knowing(*values: str) -> Secrets:
    secrets = Secrets()
    secrets.remember(values)
    return secrets


class TestOutput:
    @pytest.mark.parametrize(
        ("value", "written"),
        [
            pytest.param(SECRET, SECRET, id="as it is"),
            pytest.param("s3cr3t 'quoted'", repr("s3cr3t 'quoted'\n")[1:-3], id="in Python"),
            pytest.param('s3cr3t "quoted"', 's3cr3t \\"quoted\\"', id="in JSON"),
            pytest.param("it's a s3cr3t", "it'\"'\"'s a s3cr3t", id="in a shell's command line"),
            pytest.param(MULTILINE, MULTILINE.strip().replace("\n", "\r\n"), id="at a terminal"),
            pytest.param(MULTILINE, "MIIs3cr3t+line/2", id="by the line"),
            pytest.param(f"{SECRET}\n", SECRET, id="without its last line's end"),
            pytest.param("s3cr3t-\udcff\udcfe", "s3cr3t-\udcff\udcfe", id="no UTF-8"),
        ],
    )
    def test_has_no_secret_however_it_is_written(self, value: str, written: str) -> None:
        content = written.encode("utf-8", "surrogateescape")

        redacted = knowing(value).redact_output(b"<" + content + b">")

        assert b"<***>" == redacted

    @pytest.mark.parametrize(
        "cut",
        [
            "\n[... 1,234 bytes cut: more than the limit of 1,000 ...]\n",
            "…123 tokens truncated…",
            "\n...\n",
        ],
    )
    @pytest.mark.parametrize("at", range(1, len(SECRET)))
    def test_has_at_most_three_characters_beside_a_cut(self, cut: str, at: int) -> None:
        redacted = knowing(SECRET).redact_output(f"<{SECRET[:at]}{cut}{SECRET[at:]}>")

        head, tail = redacted.split(cut)
        assert head in ("<***", f"<{SECRET[: min(at, 3)]}")
        assert tail in ("***>", f"{SECRET[max(at, len(SECRET) - 3) :]}>")

    @pytest.mark.parametrize("size", [4, 5, 7, 9, len(SECRET) - 1])
    def test_has_no_piece_of_what_is_polled_in_pieces(self, size: int) -> None:
        """Also none from the middle."""
        pieces = [SECRET[at : at + size] for at in range(0, len(SECRET), size)]

        polled = [knowing(SECRET).redact_output(piece) for piece in pieces]

        assert [] == [piece for piece in polled if piece != "***" and len(piece) > 3]

    @given(st.binary())
    def test_is_what_it_was_if_there_is_no_secret_in_it(self, output: bytes) -> None:
        assert (
            output
            == knowing("\x00a s3cr3t that no output has\x00").redact_output(
                output.replace(b"\x00", b"")
            )
            or b"\x00" in output
        )


class TestAnswer:
    def test_has_secrets_neither_in_output_nor_in_text(self) -> None:
        secrets = knowing(SECRET)
        half = SECRET[:9].encode()

        ran = secrets.redact(ExecResponse(stdout=half, stderr=SECRET.encode(), exit_code=1))
        polled = secrets.redact(
            PtyResponse(process_id=1, output=half, exit_code=None, original_token_count=None)
        )
        path = secrets.redact(ValidatePathAccessResponse(path=f"/workspace/{SECRET}"))

        assert (b"***", b"***", 1) == (ran.stdout, ran.stderr, ran.exit_code)
        assert (b"***", 1) == (polled.output, polled.process_id)
        assert "/workspace/***" == path.path

    def test_that_is_the_bytes_of_a_file_is_left_as_it_is(self) -> None:
        assert SECRET.encode() == knowing(SECRET).redact(SECRET.encode())


class TestError:
    def test_has_none_in_its_bytes_nor_where_it_is_cut(self) -> None:
        result = ExecResult(stdout=f"<{SECRET}>".encode(), stderr=b"", exit_code=1)
        error = ExecNonZeroError(result, command=(SECRET,))
        error.message = "x" * 16380 + SECRET * 2000

        failure = encode_error(error, redact=knowing(SECRET).redact_output)

        encoded = str(failure.details)
        assert SECRET not in encoded
        assert base64.b64encode(b"<***>").decode() in encoded
        assert SECRET[:5] not in failure.message


class TestLog:
    def test_has_none_in_messages_nor_in_traces(self, caplog: pytest.LogCaptureFixture) -> None:
        """Whoever logs it."""
        keep_secrets_out_of_logs()
        keep_secrets_out_of_logs()
        vendor = logging.getLogger("some.vendor")
        with knowing_secrets(frozenset()) as secrets:
            secrets.remember([SECRET])
            try:
                raise ValueError(f"refused {SECRET}")
            except ValueError:
                vendor.exception("sent %s: %d", f"token={SECRET}", 401)
        vendor.warning("afterwards")

        shown = "\n".join(map(caplog.handler.format, caplog.records))
        assert "sent token=***: 401" in shown
        assert "ValueError: refused ***" in shown
        assert "afterwards" in shown


class TestWorkerEnv:
    @pytest.mark.parametrize("value", ["1", "short"])
    async def test_too_short_to_be_a_secret_is_refused_without_being_shown(
        self, value: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ACME_FLAG", value)

        with (
            knowing_secrets(frozenset({"ACME_FLAG"})),
            pytest.raises(InvalidRequest, match=r"ACME_FLAG.*fewer than 6 characters") as caught,
        ):
            await WorkerEnv(name="ACME_FLAG").resolve()

        assert repr(value) not in str(caught.value)

    async def test_of_any_name_can_be_read_where_all_are_allowed(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ACME_TOKEN", SECRET)

        with knowing_secrets(allowed_names(AllowAllWorkerEnvVars())) as secrets:
            assert SECRET == await WorkerEnv(name="ACME_TOKEN").resolve()
            assert {SECRET.encode()} == secrets.values

    @pytest.mark.parametrize("names", ["GITHUB_TOKEN", AllowAllWorkerEnvVars])
    def test_names_are_a_collection(self, names: list[str]) -> None:
        """A string is one of its characters."""
        with pytest.raises(TypeError, match="pass "):
            SandboxPlugin(worker_env=names)


class TestEnvironment:
    async def test_that_a_backend_resolves_is_remembered_but_for_what_is_written_in_it(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An application's own value may be another one each time."""
        remember_resolved_environments()
        monkeypatch.setenv("ACME_TOKEN", SECRET)
        environment = Environment(
            value={"TOKEN": WorkerEnv(name="ACME_TOKEN"), "MODE": "production", "VAULT": Vault()}
        )

        with knowing_secrets(frozenset({"ACME_TOKEN"})) as secrets:
            await secrets.learn(Manifest(environment=environment))
            await environment.resolve()

        assert {SECRET, "s3cr3t-number-1", "s3cr3t-number-2"} == {
            value.decode() for value in secrets.values
        }
