"""Loads skills on demand from a folder on this worker's disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from agents.sandbox.capabilities import LocalDirLazySkillSource, Skills
from agents.sandbox.entries import LocalDir
from agents.sandbox.materialization import MaterializedFile
from agents.sandbox.session.base_sandbox_session import BaseSandboxSession
from agents.sandbox.types import User
from agents.sandbox.workspace_paths import SandboxPathGrant
from pydantic import PrivateAttr

from sandbox_core.errors import InvalidRequest
from sandbox_core.wire import messages as m
from sandbox_core.wire import operations as ops
from sandbox_core.wire.agents_models import load_entry
from sandbox_core.worker.call import Call
from sandbox_core.worker.handlers.registry import handles
from sandbox_core.worker.local_sources import check_local_sources

# The SDK takes a skill with this file for loaded.
_MARK = Path("SKILL.md")


class _SkillFolder(LocalDir):
    """A folder that the SDK copies from a place that `check_local_sources` has allowed.

    The file that marks the skill as loaded is copied last, so the next attempt at an interrupted
    load does not find it and copies the rest.
    """

    type: Literal["sandbox_core.skill_folder"] = "sandbox_core.skill_folder"  # type: ignore[assignment]  # the SDK's is another literal
    _copies_mark: bool = PrivateAttr(default=False)

    def _resolved_src_input(
        self, base_dir: Path, *, source_grants: tuple[SandboxPathGrant, ...] = ()
    ) -> Path:
        return super()._resolved_src_input(Path("/"))

    def _list_local_dir_files(
        self,
        *,
        base_dir: Path,
        src_root: Path,
        source_grants: tuple[SandboxPathGrant, ...] = (),
    ) -> list[Path]:
        files = super()._list_local_dir_files(base_dir=base_dir, src_root=src_root)
        return [file for file in files if (file == _MARK) is self._copies_mark]

    async def apply(
        self,
        session: BaseSandboxSession,
        dest: Path,
        base_dir: Path,
        *,
        user: str | User | None = None,
    ) -> list[MaterializedFile]:
        copied: list[MaterializedFile] = []
        for self._copies_mark in (False, True):
            copied += await super().apply(session, dest, base_dir, user=user)
        return copied


@handles(ops.LIST_SKILLS)
async def _list_skills(call: Call, request: m.ListSkillsRequest) -> m.ListSkillsResponse:
    async with call.pool.use(request) as session:
        source = _source(request, call.local_sources)
        skills = Skills(lazy_from=source, skills_path=request.skills_path)
        found = await skills._skill_metadata(session.state.manifest)
    return m.ListSkillsResponse(
        skills=tuple(
            m.ListedSkill(name=skill.name, description=skill.description, path=str(skill.path))
            for skill in found
        )
    )


@handles(ops.LOAD_SKILL)
async def _load_skill(call: Call, request: m.LoadSkillRequest) -> m.LoadSkillResponse:
    async with call.pool.use(request) as session:
        source = _source(request, call.local_sources)
        loaded = await source.load_skill(
            skill_name=request.skill_name,
            session=session,
            skills_path=request.skills_path,
            user=request.user,
        )
    return m.LoadSkillResponse.model_validate(loaded)


def _source(request: m.SkillsRequest, allowed: Sequence[Path]) -> LocalDirLazySkillSource:
    folder = load_entry(request.source)
    if not isinstance(folder, LocalDir):
        raise InvalidRequest(f"lazy skills must come from a LocalDir, not a {folder.type!r}.")
    check_local_sources({request.skills_path: folder}, allowed)
    described = {name: getattr(folder, name) for name in LocalDir.model_fields if name != "type"}
    return LocalDirLazySkillSource(source=_SkillFolder(**described))
