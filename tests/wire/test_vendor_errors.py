"""Errors of vendors' SDKs that carry the HTTP status of an answer."""

from __future__ import annotations

import pytest

from sandbox_core.wire.failures import encode_error


class VendorError(Exception):
    """As the SDKs of Daytona and Docker have them."""

    def __init__(self, status_code: int) -> None:
        super().__init__("the vendor says no")
        self.status_code = status_code


def _wrapped(cause: Exception) -> OSError:
    error = OSError("could not create")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_an_answer_that_will_be_the_same_next_time_is_final(status: int) -> None:
    """A wrong key stays wrong, also when a client has wrapped the error."""
    assert encode_error(VendorError(status)).non_retryable
    assert encode_error(_wrapped(VendorError(status))).non_retryable


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503])
def test_an_answer_that_may_be_another_next_time_is_not(status: int) -> None:
    """A busy service does not stay busy."""
    assert not encode_error(VendorError(status)).non_retryable
    assert not encode_error(_wrapped(VendorError(status))).non_retryable
