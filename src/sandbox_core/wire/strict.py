"""A base for options that users fill in: a mistake raises one clear error at once.

Temporal does not treat pydantic's `ValidationError` as a failure: it would retry the workflow task
forever. Ours ends the workflow.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)

from sandbox_core.errors import InvalidOptions, InvalidRequest, SandboxCoreError

_ModelT = TypeVar("_ModelT")


class Explained(BaseModel):
    """A base of models that raise one error of ours for a mistake, without the values in it.

    The error is `InvalidRequest`, or what `_error_for` returns.
    """

    @model_validator(mode="wrap")
    @classmethod
    def _explain(cls, value: object, validate: ModelWrapValidatorHandler[_ModelT]) -> _ModelT:
        try:
            return validate(value)
        except ValidationError as error:
            raise cls._error_for(error) from None  # The cause shows the values.

    @classmethod
    def _error_for(cls, error: ValidationError) -> SandboxCoreError:
        return InvalidRequest(mistakes(cls, error))


class StrictOptions(Explained):
    """A base of client options that refuses unknown fields and names the nearest known one.

    Put it before the SDK's class::

        class AcmeOptions(StrictOptions, BaseSandboxClientOptions):
            type: Literal["acme"] = "acme"
            memory_mb: int = Field(default=2048, ge=32)

    A mistake raises `InvalidOptions`, which ends the workflow that makes it.
    """

    model_config = ConfigDict(extra="forbid")

    @classmethod
    def _error_for(cls, error: ValidationError) -> SandboxCoreError:
        return InvalidOptions(mistakes(cls, error))


def mistakes(model: type[BaseModel], error: ValidationError, name: str | None = None) -> str:
    """Return what is wrong with the fields of `model`, without their values.

    Args:
        model: The model.
        error: The error that it raised.
        name: What users know the model as; None for its own name.
    """
    found = error.errors(include_input=False, include_url=False)
    unknown = [
        unknown_field(str(each["loc"][0]), model.model_fields)
        for each in found
        if each["type"] == "extra_forbidden" and len(each["loc"]) == 1
    ]
    wrong = [": ".join(filter(None, (".".join(map(str, e["loc"])), e["msg"]))) for e in found]
    return f"{name or model.__name__}: {'; '.join(unknown or wrong)}"


def unknown_field(name: str, known: Iterable[str]) -> str:
    """Return the message for an unknown field, with the nearest or all of the `known` ones."""
    names = sorted({*known} - {"type"})
    nearest = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {nearest[0]!r}?" if nearest else f"it has {', '.join(names) or 'none'}"
    return f"no field {name!r}, {hint}"
