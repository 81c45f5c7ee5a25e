"""How long a backend says to wait, in the errors of various SDKs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import aiohttp
import httpx
import pytest
from agents.sandbox.errors import ExecTransportError
from aiohttp import web

from sandbox_core.providers import (
    parse_retry_after,
    retry_after_of,
    retry_after_where_raised,
)

_SEVEN = timedelta(seconds=7)


class _Refused(Exception):
    """An error of an SDK."""


def _raised(error: Exception, cause: Exception | None = None) -> Exception:
    try:
        raise error from cause
    except type(error) as raised:
        return raised


def _response(status: int = 429) -> httpx.Response:
    return httpx.Response(status, headers={"retry-after": "7"})


class TestParsed:
    @pytest.mark.parametrize("value", [7, 7.0, "7", " 7 "])
    def test_seconds(self, value: float | str) -> None:
        assert _SEVEN == parse_retry_after(value)

    def test_a_date(self) -> None:
        date = datetime.now(timezone.utc) + timedelta(seconds=100)
        parsed = parse_retry_after(format_datetime(date, usegmt=True))

        assert parsed is not None
        assert 90 < parsed.total_seconds() <= 100

    @pytest.mark.parametrize(
        "value",
        [
            None,
            "soon",
            "-7",
            "nan",
            "Mon, 01 Jan 2001 00:00:00 GMT",
            "Mon, 01 Jan 99999999 00:00:00 GMT",
        ],
    )
    def test_what_says_nothing(self, value: str | None) -> None:
        assert parse_retry_after(value) is None

    @pytest.mark.parametrize("value", ["1e9", "inf"])
    def test_an_hour_at_most(self, value: str) -> None:
        assert timedelta(hours=1) == parse_retry_after(value)


class TestOfAnError:
    def test_that_keeps_it(self) -> None:
        error = _Refused()
        error.retry_after = "7"  # type: ignore[attr-defined]

        assert _SEVEN == retry_after_of(error)

    def test_that_keeps_the_response(self) -> None:
        error = _Refused()
        error.response = _response()  # type: ignore[attr-defined]

        assert _SEVEN == retry_after_of(_raised(ValueError(), cause=error))

    @pytest.mark.parametrize("headers", [httpx.Headers({"retry-after": "7"}), {"Retry-After": "7"}])
    def test_that_keeps_the_headers(self, headers: Mapping[str, str]) -> None:
        error = _Refused()
        error.headers = headers  # type: ignore[attr-defined]

        assert _SEVEN == retry_after_of(ExecTransportError(command=(), cause=error))

    def test_that_keeps_nothing_says_nothing(self) -> None:
        """Whatever was at hand where it was raised may be about something else."""

        def ask() -> None:
            answer = _response()
            raise _Refused(answer.status_code)

        with pytest.raises(_Refused) as raised:
            ask()
        assert retry_after_of(raised.value) is None

    def test_that_is_its_own_cause_ends(self) -> None:
        first, second = _Refused(), _Refused()
        first.__cause__, second.__cause__ = second, first

        assert retry_after_of(first) is None


class TestWhereItWasRaised:
    """For SDKs that keep nothing of the response."""

    def test_of_a_refusal(self) -> None:
        def ask() -> None:
            before, response = _response(200), _response()
            raise _Refused(f"refused with {response.status_code} after {before.status_code}")

        with pytest.raises(_Refused) as raised:
            ask()
        assert _SEVEN == retry_after_where_raised(raised.value)

    async def test_of_another_http_client(self) -> None:
        async def refuse(request: web.Request) -> web.Response:
            return web.Response(status=503, headers={"Retry-After": "7"})

        async def ask(url: str) -> None:
            async with aiohttp.ClientSession() as session, session.get(url) as answer:
                raise _Refused(answer.status)

        app = web.Application()
        app.router.add_get("/", refuse)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            with pytest.raises(_Refused) as raised:
                await ask(f"http://127.0.0.1:{runner.addresses[0][1]}")
        finally:
            await runner.cleanup()

        assert _SEVEN == retry_after_where_raised(raised.value)

    def test_without_a_refusal_says_nothing(self) -> None:
        """What is at hand of an answer that was no refusal is about something else."""

        def ask() -> None:
            answer = _response(200)
            raise _Refused(answer.status_code)

        with pytest.raises(_Refused) as raised:
            ask()
        assert retry_after_where_raised(raised.value) is None

    def test_of_another_request_that_found_nothing_says_nothing(self) -> None:
        def ask() -> None:
            probed = _response(404)
            raise _Refused(probed.status_code)

        with pytest.raises(_Refused) as raised:
            ask()
        assert retry_after_where_raised(raised.value) is None

    def test_asks_nothing_of_other_objects_at_hand(self) -> None:
        class Lazy:
            @property
            def status(self) -> int:
                raise RuntimeError("not loaded")

        def ask() -> None:
            lazy = Lazy()
            raise _Refused(id(lazy))

        with pytest.raises(_Refused) as raised:
            ask()
        assert retry_after_where_raised(raised.value) is None
