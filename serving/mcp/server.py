"""The MCP server over a server's skills: tools, resources and a prompt, whatever the transport.

The SDK's low-level server takes the schemas from our own models. Its other one would log what a tool raised, which
can hold the request's text, and set up the process's logging.
"""

from importlib.metadata import version
from typing import Any

from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    GetPromptRequestParams,
    GetPromptResult,
    ListPromptsResult,
    ListResourcesResult,
    ListResourceTemplatesResult,
    ListToolsResult,
    PaginatedRequestParams,
    ReadResourceRequestParams,
    ReadResourceResult,
)

from ..skills.served import ServedSkills, UnavailableError
from .prompt import PROMPT, work_by_skills
from .resources import TEMPLATES, read_resource, resource_page
from .tools import TOOLS

INSTRUCTIONS = (
    "Skills are LoRA adapters of one base model, measured on real tasks. Before generating, ask select_skill about "
    "a sub-task, or plan_skills about a whole plan; then ask the same server's OpenAI API with the skill's name as "
    "the model (base: the bare model). Gains are differences in score to the base model, from -1 to 1; a negative "
    "one is a side effect."
)
Context = ServerRequestContext[Any, Any]


def skills_server(skills: ServedSkills) -> Server[Any]:
    """An MCP server that answers from `skills`."""
    answers = _Answers(skills)
    return Server(
        "traitroute",
        version=version("traitroute"),
        title="TraitRoute",
        instructions=INSTRUCTIONS,
        on_list_tools=answers.tools,
        on_call_tool=answers.call,
        on_list_resources=answers.resources,
        on_list_resource_templates=answers.templates,
        on_read_resource=answers.read,
        on_list_prompts=answers.prompts,
        on_get_prompt=answers.prompt,
    )


class _Answers:
    """The protocol's requests."""

    def __init__(self, skills: ServedSkills) -> None:
        self._skills = skills
        self._tools = [tool.described() for tool in TOOLS.values()]

    async def tools(self, _: Context, asked: PaginatedRequestParams | None) -> ListToolsResult:
        return ListToolsResult(tools=self._tools)

    async def call(self, _: Context, asked: CallToolRequestParams) -> CallToolResult:
        tool = TOOLS.get(asked.name)
        if tool is None:
            raise MCPError(INVALID_PARAMS, f"there is no tool {asked.name[:64]!r}: call {', '.join(TOOLS)}")
        return await tool.call(self._skills, asked.arguments or {})

    async def resources(self, _: Context, asked: PaginatedRequestParams | None) -> ListResourcesResult:
        try:
            names = sorted(self._skills.snapshot().adapters)
        except UnavailableError:
            # Nothing is there to be read; whoever reads is told why.
            return ListResourcesResult(resources=[])
        return resource_page(names, asked.cursor if asked else None)

    async def templates(self, _: Context, asked: PaginatedRequestParams | None) -> ListResourceTemplatesResult:
        return ListResourceTemplatesResult(resource_templates=TEMPLATES)

    async def read(self, _: Context, asked: ReadResourceRequestParams) -> ReadResourceResult:
        return ReadResourceResult(contents=[await read_resource(self._skills, asked.uri)])

    async def prompts(self, _: Context, asked: PaginatedRequestParams | None) -> ListPromptsResult:
        return ListPromptsResult(prompts=[PROMPT])

    async def prompt(self, _: Context, asked: GetPromptRequestParams) -> GetPromptResult:
        if asked.name != PROMPT.name:
            raise MCPError(INVALID_PARAMS, f"there is no prompt {asked.name[:64]!r}: get {PROMPT.name}")
        return work_by_skills((asked.arguments or {}).get("goal", ""))
