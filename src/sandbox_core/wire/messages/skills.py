"""Messages about skills in a folder of the worker's disk."""

from __future__ import annotations

from sandbox_core.wire.agents_models import JsonObject
from sandbox_core.wire.messages.base import Message, SessionRequest


class SkillsRequest(SessionRequest):
    """Base of the requests about skills in a folder of the worker's disk.

    `source` is the SDK's `LocalDir` entry; `skills_path` is where in the workspace they go.
    """

    source: JsonObject
    skills_path: str


class ListSkillsRequest(SkillsRequest):
    """List the skills of a folder of the worker's disk, which are loaded when they are needed."""

    def summary(self) -> str:
        return str(self.source.get("src", ""))


class ListedSkill(Message):
    """The SDK's `SkillMetadata`."""

    name: str
    description: str
    path: str


class ListSkillsResponse(Message):
    """What the SDK tells the model of each skill, in its order."""

    skills: tuple[ListedSkill, ...] = ()


class LoadSkillRequest(SkillsRequest):
    """Copy one skill from the worker's disk into the workspace, unless it is there already."""

    skill_name: str
    user: str | None = None

    def summary(self) -> str:
        return self.skill_name


class LoadSkillResponse(Message):
    """What the SDK tells the model of the skill: "loaded" or "already_loaded", and where it is."""

    status: str
    skill_name: str
    path: str
