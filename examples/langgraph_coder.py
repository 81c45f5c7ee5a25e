"""The graph of langgraph_tools.py, and the workflow that runs it.

The node that calls the model is an activity. The node of the tools runs in the workflow, where each
operation of the session is an activity.
"""

import os
from datetime import timedelta

from langchain_core.messages import (
    AIMessage,
    AnyMessage,
    HumanMessage,
    ToolCall,
    ToolMessage,
    convert_to_messages,
)
from langchain_core.tools import tool
from langgraph.graph import END, START, MessagesState, StateGraph
from temporalio import workflow
from temporalio.langgraph import graph

from sandbox_core.workflow import WorkflowSandboxSession, temporal_sandbox_client

PRIMES = "print(sum(all(n % d for d in range(2, int(n**0.5) + 1)) for n in range(2, 10000)))"


@tool
async def run_command(command: str) -> str:
    """Run a shell command, and return its output and exit code."""
    result = await session().exec(command, timeout=60)
    output = (result.stdout + result.stderr).decode(errors="replace")
    return output if result.exit_code == 0 else f"{output}\nexit code {result.exit_code}"


async def call_model(state: MessagesState) -> dict[str, list[AnyMessage]]:
    """Let the model answer, or call a tool."""
    messages = convert_to_messages(state["messages"])  # They arrive as JSON.
    if os.environ.get("OPENAI_API_KEY"):
        from langchain_openai import ChatOpenAI

        model = ChatOpenAI(model="gpt-5-mini").bind_tools([run_command])
        return {"messages": [await model.ainvoke(messages)]}
    # Does the task without a model: runs one command, and reports.
    last = messages[-1]
    if isinstance(last, ToolMessage):
        return {"messages": [AIMessage(f"There are {str(last.content).strip()} of them.")]}
    arguments = {"command": f"python3 -c '{PRIMES}'"}
    call = {"name": "run_command", "args": arguments, "id": "call-1", "type": "tool_call"}
    return {"messages": [AIMessage("", tool_calls=[call])]}


async def call_tools(state: MessagesState) -> dict[str, list[AnyMessage]]:
    """Run the tools that the model calls."""
    return {"messages": [await run_command.ainvoke(call) for call in calls_of(state)]}


async def next_node(state: MessagesState) -> str:
    """Return the node after the model. It is async: a workflow has no threads for what is not."""
    return "tools" if calls_of(state) else END


def calls_of(state: MessagesState) -> list[ToolCall]:
    """Return the calls of tools in the model's last message."""
    last = state["messages"][-1]
    return last.tool_calls if isinstance(last, AIMessage) else []


coder = StateGraph(MessagesState)
coder.add_node(
    "model",
    call_model,
    metadata={"execute_in": "activity", "start_to_close_timeout": timedelta(minutes=2)},
)
coder.add_node("tools", call_tools, metadata={"execute_in": "workflow"})
coder.add_edge(START, "model")
coder.add_conditional_edges("model", next_node, ["tools", END])
coder.add_edge("tools", "model")


def session() -> WorkflowSandboxSession:
    """Return the session of the workflow that runs the tool."""
    found: WorkflowSandboxSession = workflow.instance().session
    return found


@workflow.defn
class Solve:
    """Solves a task in a sandbox of its own."""

    session: WorkflowSandboxSession

    @workflow.run
    async def run(self, task: str, provider: str) -> str:
        """Return the agent's answer."""
        client = temporal_sandbox_client(provider)
        self.session = await client.create()
        try:
            async with self.session:
                start = MessagesState(messages=[HumanMessage(task)])
                end = await graph("coder").compile().ainvoke(start, {"recursion_limit": 50})
                return str(end["messages"][-1].content)
        finally:
            await client.delete(self.session)
