"""How output that is too long is cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sandbox_core.worker.commands.output import cut_output


def test_an_output_of_the_limit_is_kept_as_it_is() -> None:
    assert b"12345" == cut_output(b"12345", 5)


def test_head_and_tail_stay_and_the_line_between_says_how_much_was_cut() -> None:
    output = b"a" * 2000 + b"b" * 2000

    assert (
        b"a" * 500 + b"\n[... 3,000 bytes cut: more than the limit of 1,000 ...]\n" + b"b" * 500
    ) == cut_output(output, 1000)


def test_nothing_may_stay() -> None:
    assert b"\n[... 3 bytes cut: more than the limit of 0 ...]\n" == cut_output(b"abc", 0)


@given(st.text(min_size=1), st.integers(min_value=0, max_value=50))
def test_text_stays_text(text: str, limit: int) -> None:
    cut_output(text.encode(errors="replace"), limit).decode()


@given(st.binary(), st.integers(min_value=0, max_value=50))
def test_the_number_is_what_is_missing(output: bytes, limit: int) -> None:
    kept = cut_output(output, limit)
    if len(output) > limit:
        head, _, rest = kept.partition(b"\n[... ")
        number, _, tail = rest.partition(b" bytes cut")
        tail = tail.partition(b" ...]\n")[2]
        assert len(output) == len(head) + int(number.replace(b",", b"")) + len(tail)
        assert len(head) + len(tail) <= limit
