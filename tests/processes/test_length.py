"""Commands that are too long for their backend are refused, and never started."""

from __future__ import annotations

import httpx
import pytest
from processes.driving import Box, command, starting, turn_helper_off
from support import attempts, running_worker, unique
from temporalio.client import Client
from temporalio.exceptions import ApplicationError
from workflows.steps import Perform, Plan, Step

from sandbox_core.errors import InvalidRequest
from sandbox_core.worker.commands.helper import why_plain
from sandbox_core.worker.commands.length import LONGEST_WORD, too_long
from sandbox_core.worker.commands.plain import at_most_once

_WORD = "w" * 100_000
_HELPERS = pytest.mark.parametrize("helper", ["on", "off"])


class TestOfAnyBackend:
    """What Linux accepts is the same everywhere."""

    @_HELPERS
    @pytest.mark.parametrize("words", [["w" * (LONGEST_WORD + 1)], [_WORD] * 30])
    async def test_is_refused(
        self, box: Box, helper: str, words: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """By the length of a word, and by that of all."""
        if helper == "off":
            turn_helper_off(monkeypatch)

        with pytest.raises(InvalidRequest, match=r"command is too long.*Nothing was run"):
            await box.run(command("true", *words, shell=False))
        with pytest.raises(InvalidRequest, match=r"command is too long.*Nothing was run"):
            await box.start(starting(" ".join([":", *words])))


async def test_the_longest_word_is_passed(box: Box) -> None:
    word = "w" * LONGEST_WORD

    result = await box.run(command("printf", "%s", word, shell=False))

    assert LONGEST_WORD == len(result.stdout), result.stderr


async def test_what_is_too_long_only_for_a_request_to_the_helper_runs_without_it(
    remote: Box,
) -> None:
    """At most once, and the session says so."""
    result = await remote.run(command("printf", ".%.0s", *[_WORD] * 18, shell=False))

    assert b"." * 18 == result.stdout
    assert "too long" in str(why_plain(remote.provider, remote.session, None))

    await remote.exec("true")

    assert why_plain(remote.provider, remote.session, None) is None


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("argument list too long"),
        httpx.HTTPStatusError(
            "too large",
            request=httpx.Request("GET", "https://acme.example/output"),
            response=httpx.Response(413),
        ),
    ],
)
async def test_what_a_backend_says_in_words_is_no_proof(error: Exception) -> None:
    """It may be about the command's output: the command may have run."""

    async def call() -> None:
        raise error

    with pytest.raises(ApplicationError) as raised:
        await at_most_once("echo", call, repeated=False, command=["echo"])

    assert not isinstance(raised.value, InvalidRequest)
    assert "Nothing was run" not in raised.value.message


def test_bytes_that_are_no_text_have_a_length() -> None:
    """Surrogates stand for them; a lone one that does not has none that matters."""
    assert "it has 8 bytes" in str(too_long(["\udcff" * 3, "\ud800é"]))


@_HELPERS
async def test_the_backend_refuses_what_its_own_additions_make_too_long(
    temporal_client: Client, helper: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The SDK's local backend changes directory in what it passes to a shell."""
    monkeypatch.setenv("SANDBOX_CORE_HELPER", helper)
    monkeypatch.setenv("SANDBOX_CORE_PROVIDERS", "local")
    script = "touch ran; #".ljust(LONGEST_WORD, "#")
    steps = [Step("exec", [script]), Step("pty_exec_start", [script]), Step("ls", ["."])]
    async with running_worker(temporal_client, Perform) as queue:
        handle = await temporal_client.start_workflow(
            Perform.run, Plan(steps), id=unique("length"), task_queue=queue
        )
        *refused, listed = await handle.result()
        tried = attempts(await handle.fetch_history())

    assert ["InvalidRequest"] * 2 == [each.error for each in refused], refused
    assert all("too long for its sandbox" in each.text for each in refused), refused
    assert "0" == listed.text
    assert {1} == set(tried)
