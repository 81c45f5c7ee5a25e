"""The request and response models of all operations.

Each is sent as a plain JSON object without defaults, which any data converter carries unchanged;
changing a default therefore changes the contract. Models ignore unknown fields, so that an old
worker understands a newer workflow.

Binary data (a file, an archive, a workspace) is not part of the model: it is the activity's second
argument, or its whole result, as raw bytes. Command output is text where it is valid UTF-8, so that
the Temporal UI can show it.
"""

# One name for all of them: `m.ExecRequest`. A new message needs no line here.
# ruff: noqa: F403

from __future__ import annotations

from sandbox_core.wire.messages.base import *
from sandbox_core.wire.messages.commands import *
from sandbox_core.wire.messages.files import *
from sandbox_core.wire.messages.inspect import *
from sandbox_core.wire.messages.lifecycle import *
from sandbox_core.wire.messages.live import *
from sandbox_core.wire.messages.reap import *
from sandbox_core.wire.messages.skills import *
from sandbox_core.wire.messages.workspace import *
