"""Lets a model be told what a custom tool has answered, such as `apply_patch`.

The OpenAI client's type of such an item says ``output: str | Iterable[...]``. Pydantic, by which
the OpenAI Agents plugin reads what a model activity is given, takes a string for the iterable of
its characters, and every request to the model fails from then on. It does not with a list.
"""

from __future__ import annotations

from openai.types.responses import response_custom_tool_call_output_param as module
from typing_extensions import Required


def read_custom_tool_outputs_as_text() -> None:
    """Say `list` in the type where it says `Iterable`; repeating it is safe."""
    annotations = module.ResponseCustomToolCallOutputParam.__annotations__
    annotations["output"] = Required[str | list[module.OutputOutputContentList]]
