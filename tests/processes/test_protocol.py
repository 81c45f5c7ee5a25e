"""Requests to the helper and its answers, as bytes."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_core.worker.commands.output import kept_output
from sandbox_core.worker.commands.protocol import (
    Answer,
    NotAnAnswer,
    frame,
    message,
    parse_message,
    parse_text,
    pieces,
)

MARK = "0123456789abcdef"


def text(*parts: str) -> bytes:
    return "\n".join(parts).encode()


def test_a_message_is_netstrings() -> None:
    assert b"3:key,2:ab,7:timeout,3:500,3:arg,1:\xff," == message(
        [("key", "ab"), ("timeout", 500), ("arg", "\udcff")]
    )


def test_a_frame_begins_with_its_length() -> None:
    assert b"\0\0\0\x0e4:verb,4:ping," == frame("ping", [])


def test_a_command_line_is_opaque_and_fits() -> None:
    words = pieces([("arg", "pkill -f vite" * 20_000)])

    assert len(words) > 1
    assert all(len(word) <= 96 * 1024 for word in words)
    assert b"pkill" not in "".join(words).encode()
    assert b"3:arg,260000:pkill" in base64.urlsafe_b64decode("".join(words))


@given(st.dictionaries(st.sampled_from(["out", "err", "code"]), st.binary(), min_size=1))
def test_an_answer_is_read_back(fields: dict[str, bytes]) -> None:
    answer = parse_message(message([("word", "exited"), *fields.items()]))

    assert Answer(word="exited", fields=fields) == answer


@given(st.binary())
def test_any_bytes_are_an_answer_or_none(body: bytes) -> None:
    try:
        parse_message(body)
    except NotAnAnswer:
        return


def answer_with(out: str, err: str) -> bytes:
    return text(
        f"{MARK} exited out_total=3 out=raw:3 err_total=3 err=raw:3",
        *(out, MARK, err, MARK),
        f"{MARK} end",
        "",
    )


class TestText:
    def test_sections_and_values(self) -> None:
        output = text(
            f"motd {MARK} exited code=3 text=a%20b out=raw:4 err=b64:4",
            *("a\nb\n", MARK, "/w==", MARK),
            f"{MARK} end",
            "",
        )

        answer = parse_text(output, MARK)

        assert ("exited", 3, "a b") == (answer.word, answer.number("code"), answer.text("text"))
        assert (b"a\nb\n", b"\xff") == (answer.fields["out"], answer.fields["err"])

    @pytest.mark.parametrize("cut", range(2, 90, 3))
    def test_one_that_was_cut_is_none(self, cut: int) -> None:
        with pytest.raises(NotAnAnswer):
            parse_text(answer_with("abc", "def")[:-cut], MARK)

    @pytest.mark.parametrize(("out", "err"), [("longer", "def"), ("abc", "x"), ("", "longer")])
    def test_a_backend_may_have_altered_what_was_printed(self, out: str, err: str) -> None:
        """As it would have altered what the command prints."""
        answer = parse_text(answer_with(out, err), MARK)

        assert out.encode() == kept_output(answer, "out", 100)
        assert err.encode() == kept_output(answer, "err", 100)


class TestKeptOutput:
    def kept(self, head: bytes, tail: bytes, total: int, limit: int = 1000) -> bytes:
        fields = {"out": head + tail, "out_head": b"%d" % len(head), "out_total": b"%d" % total}
        return kept_output(Answer(word="exited", fields=fields), "out", limit)

    def test_the_line_says_what_was_dropped(self) -> None:
        assert b"ab\n[... 96 bytes cut: more than the limit of 1,000 ...]\nyz" == self.kept(
            b"ab", b"yz", 100
        )

    def test_characters_stay_whole(self) -> None:
        head, tail = "\u20ac\u20ac".encode()[:5], "\u20ac\u20ac".encode()[2:]

        kept = self.kept(head, tail, 100)

        assert kept.decode().startswith("\u20ac\n[... 94 bytes cut")
        assert kept.decode().endswith("]\n\u20ac")

    def test_a_lower_limit_gets_less(self) -> None:
        kept = self.kept(b"a" * 50, b"b" * 50, 200, limit=10)

        assert b"aaaaa\n[... 190 bytes cut: more than the limit of 10 ...]\nbbbbb" == kept

    def test_what_is_whole_is_not_touched(self) -> None:
        assert b"abcd" == self.kept(b"ab", b"cd", 4)
