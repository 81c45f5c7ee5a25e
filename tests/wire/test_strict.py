"""A mistake in options is one clear error that ends the workflow."""

from __future__ import annotations

from typing import Literal

import pytest
from agents.sandbox.session.sandbox_client import BaseSandboxClientOptions
from pydantic import Field

from sandbox_core.errors import InvalidOptions
from sandbox_core.providers import StrictOptions


class StrictAcmeOptions(StrictOptions, BaseSandboxClientOptions):
    type: Literal["acme-strict"] = "acme-strict"
    memory_mb: int = Field(default=2048, ge=32)
    region: str = "eu"


def test_an_unknown_field_names_the_nearest() -> None:
    with pytest.raises(InvalidOptions) as raised:
        StrictAcmeOptions(memroy_mb=64)  # type: ignore[call-arg]

    assert (
        "StrictAcmeOptions: no field 'memroy_mb', did you mean 'memory_mb'?" == raised.value.message
    )


def test_an_unknown_field_that_is_like_no_other_names_them_all() -> None:
    with pytest.raises(InvalidOptions) as raised:
        StrictAcmeOptions(gpu=1)  # type: ignore[call-arg]

    assert "StrictAcmeOptions: no field 'gpu', it has memory_mb, region" == raised.value.message


def test_a_wrong_value_is_named_and_not_shown() -> None:
    """It may be a secret that was put into the wrong field."""
    with pytest.raises(InvalidOptions) as raised:
        StrictAcmeOptions(memory_mb="s3cr3t")  # type: ignore[arg-type]

    assert raised.value.message.startswith("StrictAcmeOptions: memory_mb: Input should be a valid")
    assert "s3cr3t" not in raised.value.message
    assert raised.value.__suppress_context__


def test_right_ones_are_taken_from_json() -> None:
    assert StrictAcmeOptions(region="us") == BaseSandboxClientOptions.parse(
        {"type": "acme-strict", "region": "us"}
    )
