"""Errors of vendors' SDKs, and whether they are retried."""

from __future__ import annotations

import errno
import json
import os
from datetime import timedelta

import pytest
from agents.sandbox.errors import ExecTransportError
from temporalio.exceptions import ApplicationError

from sandbox_core.errors import OperationFailed
from sandbox_core.wire.failures import decode_error, encode_error
from sandbox_core.wire.naming import NOT_REGISTERED, is_not_registered


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


@pytest.mark.parametrize("in_sdk_error", [False, True])
def test_another_attempt_waits_as_long_as_the_vendor_says(in_sdk_error: bool) -> None:
    """If there is one."""

    def encoded(status: int) -> ApplicationError:
        error: Exception = VendorError(status)
        error.retry_after = "7"  # type: ignore[attr-defined]
        if in_sdk_error:
            error, cause = ExecTransportError(command=("ls",), cause=error), error
            error.__cause__ = cause
        return encode_error(error)

    assert timedelta(seconds=7) == encoded(429).next_retry_delay
    assert encoded(401).next_retry_delay is None


@pytest.mark.parametrize(
    "cause",
    [
        TypeError("create() got an unexpected keyword argument"),
        AttributeError("'NoneType' object has no attribute 'id'"),
        OverflowError("timestamp too large"),
        OSError(errno.ELOOP, os.strerror(errno.ELOOP)),
        RuntimeError("Symlink loop from '/workspace/a'"),
    ],
)
def test_a_mistake_is_made_once(cause: Exception) -> None:
    """Also where the SDK has wrapped it in an error of its own."""
    assert encode_error(cause).non_retryable
    assert encode_error(ExecTransportError(command=("ls",), cause=cause)).non_retryable


@pytest.mark.parametrize(
    "cause",
    [
        ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)),
        RuntimeError("the session is closed"),
        json.JSONDecodeError("Expecting value", "<html>bad gateway", 0),
    ],
)
def test_what_may_pass_is_attempted_again(cause: Exception) -> None:
    """An error page is no mistake of the request."""
    assert not encode_error(cause).non_retryable
    assert not encode_error(ExecTransportError(command=("ls",), cause=cause)).non_retryable


def test_a_class_that_is_called_as_temporals_error_stays_the_vendors() -> None:
    """It neither means that the provider is unknown, nor does the retry policy take it so."""
    error = encode_error(type(NOT_REGISTERED, (Exception,), {})("no such image"))
    decoded = decode_error(error)

    assert NOT_REGISTERED != error.type
    assert not is_not_registered(error)
    assert isinstance(decoded, OperationFailed)
    assert decoded.message.endswith("NotFoundError: no such image")
