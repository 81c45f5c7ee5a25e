"""A chat in the terminal with an agent that asks before it runs a command.

Conversations can be forked with their workspace, and continue in another provider's sandbox. The
workflow is in approval_chat.py.
"""

# /// script
# requires-python = ">=3.10"
# dependencies = ["sandbox-core[demo]", "sandbox-bubblewrap", "sandbox-local"]
# [tool.uv.sources]
# sandbox-core = { path = "..", editable = true }
# sandbox-bubblewrap = { path = "../plugins/sandbox-bubblewrap", editable = true }
# sandbox-local = { path = "../plugins/sandbox-local", editable = true }
# ///

import asyncio
import sys
import uuid
from datetime import timedelta

from approval_chat import Chat, Reply, Start
from stand_in import model_provider
from temporalio.client import Client, WorkflowHandle, WorkflowUpdateFailedError
from temporalio.envconfig import ClientConfig
from temporalio.openai_agents import ModelActivityParameters, OpenAIAgentsPlugin
from temporalio.worker import Worker

from sandbox_core.worker import SandboxPlugin

HELP = """\
Type a task (without OPENAI_API_KEY: a command), or
  /fork         copy the conversation and its workspace
  /1, /2, ...   go to one of the conversations
  /switch NAME  continue in a sandbox of the provider NAME
  /quit"""


async def read(prompt: str) -> str:
    """Return a line of the user's input; "/quit" at its end."""
    try:
        return (await asyncio.to_thread(input, prompt)).strip()
    except EOFError:
        return "/quit"


async def talk(chat: WorkflowHandle[Chat, None], message: str) -> None:
    """Take a turn, and ask the user for each decision."""
    reply: Reply = await chat.execute_update(Chat.say, message)
    while reply.asks:
        for call in reply.asks:
            print(f"The agent wants to run {call}")
        approved = await read("Allow? [y/N] ") == "y"
        reply = await chat.execute_update(Chat.decide, approved)
    print(reply.text)


async def main(provider: str) -> None:
    """Run a worker, and the user's conversations on it."""
    settings = ClientConfig.load_client_connect_config()
    settings.setdefault("target_host", "localhost:7233")
    agents = OpenAIAgentsPlugin(
        model_params=ModelActivityParameters(start_to_close_timeout=timedelta(minutes=2)),
        model_provider=model_provider(),
    )
    client = await Client.connect(**settings, plugins=[agents, SandboxPlugin()])

    chats: list[WorkflowHandle[Chat, None]] = []

    async def begin(start: Start) -> None:
        name = f"chat-{uuid.uuid4().hex[:8]}"
        queue = "approval"
        chats.append(await client.start_workflow(Chat.run, start, id=name, task_queue=queue))

    async def obey(line: str, at: int) -> int:
        """Do what the user says in a conversation, and return the next one's number."""
        chat = chats[at]
        try:
            if line == "/fork":
                await begin(await chat.execute_update(Chat.fork))
                print(f"/{len(chats)} is the fork")
            elif line.startswith("/switch "):
                await chat.execute_update(Chat.switch, line.split()[1])
            elif line[:1] == "/" and line[1:].isdigit() and 0 < int(line[1:]) <= len(chats):
                return int(line[1:]) - 1
            elif line:
                await talk(chat, line)
        except WorkflowUpdateFailedError as error:
            print(f"That failed: {error.cause}")
        return at

    async with Worker(client, task_queue="approval", workflows=[Chat]):
        print(HELP)
        await begin(Start(provider))
        at = 0
        while (line := await read(f"{chats[at].id}> ")) != "/quit":
            at = await obey(line, at)
        for chat in chats:
            await chat.signal(Chat.close)
            await chat.result()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if sys.argv[1:] else "local"))
