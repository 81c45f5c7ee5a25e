"""Labels of containers, which can be changed.

An engine cannot change the labels of a container. New labels are stored on an empty volume, whose
name is added to the container's. If the volume is pruned, the name still says that the container's
original labels are outdated. An engine without a bridge cannot rename a restarted container; the
volume names the container in any case.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any, Final

from docker import DockerClient
from docker.errors import APIError, NotFound

from sandbox_core.providers import LabelledSandbox

logger = logging.getLogger(__name__)

# Like the labels themselves, these are a published contract.
_PREFIX: Final = "sandbox-labels_"
_CONTAINER: Final = "sandbox-docker.labels-of"


def find(engine: DockerClient, labels: Mapping[str, str]) -> list[LabelledSandbox]:
    """Return the containers with all of these labels, running or not."""
    changed = _volumes(engine, _CONTAINER)
    filters: list[dict[str, list[str]]] = [
        {"label": [f"{name}={value}" for name, value in labels.items()]},
        {"name": [f"^{_PREFIX}"]},
    ]
    if changed:  # An empty list of ids would select all containers.
        filters.append({"id": [volume[_CONTAINER] for volume in changed.values()]})
    listed = {
        container["Id"]: container
        for each in filters
        for container in engine.api.containers(all=True, filters=each)
    }
    found = [
        LabelledSandbox(
            sandbox_id=container["Id"],
            labels=_current(container["Id"], container["Names"][0], container["Labels"], changed),
            created=datetime.fromtimestamp(container["Created"], tz=timezone.utc),
        )
        for container in listed.values()
        if container["State"] not in ("removing", "dead")
    ]
    return [sandbox for sandbox in found if labels.items() <= sandbox.labels.items()]


def relabel(engine: DockerClient, container_id: str, labels: Mapping[str, str]) -> None:
    """Set labels of an existing container; the others stay.

    Raises:
        NotFound: The container does not exist.
    """
    container = engine.containers.get(container_id)
    earlier = _volumes(engine, f"{_CONTAINER}={container.id}")
    current = _current(container.id, container.name, container.labels, earlier) or container.labels
    merged = {**current, **labels, _CONTAINER: container.id}
    # Equal labels give the same name, so that concurrent attempts do not conflict.
    digest = hashlib.sha256(json.dumps(merged, sort_keys=True).encode()).hexdigest()
    name = f"{_PREFIX}{digest}"
    engine.volumes.create(name=name, labels=merged)
    try:
        container.rename(name)
    except NotFound:
        container.reload()  # Raises if it is gone. Otherwise the engine could not rename it.
    except APIError:  # For example because it already has that name.
        container.reload()
        if container.name != name:
            raise
    remove_volumes(engine, set(earlier) - {name})


def volumes_of(engine: DockerClient, container_id: str) -> set[str]:
    """Return the names of the volumes that hold a container's labels."""
    return set(_volumes(engine, f"{_CONTAINER}={container_id}"))


def remove_volumes(engine: DockerClient, names: Iterable[str]) -> None:
    """Remove volumes, if they exist."""
    for name in sorted(names):
        with suppress(NotFound):
            engine.volumes.get(name).remove()


def _volumes(engine: DockerClient, label: str) -> dict[str, Mapping[str, str]]:
    listed: list[dict[str, Any]] = engine.api.volumes(filters={"label": [label]})["Volumes"] or []
    return {volume["Name"]: volume["Labels"] for volume in listed}


def _current(
    container_id: str,
    name: str,
    made_with: Mapping[str, str],
    volumes: Mapping[str, Mapping[str, str]],
) -> Mapping[str, str]:
    """Return a container's current labels; none if their volume is gone."""
    name = name.removeprefix("/")
    if name in volumes:
        return volumes[name]
    for labels in volumes.values():
        if labels[_CONTAINER] == container_id:
            return labels
    if not name.startswith(_PREFIX):
        return made_with
    logger.warning("the labels of container %s are lost: its volume was removed", name)
    return {}
