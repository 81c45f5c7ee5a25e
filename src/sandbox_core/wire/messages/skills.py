"""Messages for skills in a directory on the worker."""

from __future__ import annotations

from sandbox_core.wire.agents_models import JsonObject
from sandbox_core.wire.messages.base import Message, SessionRequest


class SkillsRequest(SessionRequest):
    """Base of the requests about skills in a directory on the worker.

    `source` is the SDK's `LocalDir` entry, `skills_path` the target path in the workspace.
    """

    source: JsonObject
    skills_path: str


class ListSkillsRequest(SkillsRequest):
    """List the lazily loaded skills in a directory on the worker."""

    def summary(self) -> str:
        return str(self.source.get("src", ""))


class ListedSkill(Message):
    """The SDK's `SkillMetadata`."""

    name: str
    description: str
    path: str


class ListSkillsResponse(Message):
    """The skills' metadata, in the SDK's order."""

    skills: tuple[ListedSkill, ...] = ()


class LoadSkillRequest(SkillsRequest):
    """Copy a skill from the worker into the workspace, unless it is already there."""

    skill_name: str
    user: str | None = None

    def summary(self) -> str:
        return self.skill_name


class LoadSkillResponse(Message):
    """The SDK's answer to the model: "loaded" or "already_loaded", and the path."""

    status: str
    skill_name: str
    path: str
