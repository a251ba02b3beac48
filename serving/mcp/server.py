"""The MCP server over a server's skills: tools, resources and a prompt, the same for every transport.

The SDK's low-level server takes the schemas from our own models. Its high-level one would log what a tool raised, which
can hold the request's text, and set up the process's logging.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Annotated, Any

from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INTERNAL_ERROR,
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
    Prompt,
    PromptArgument,
    PromptMessage,
    ReadResourceRequestParams,
    ReadResourceResult,
    Resource,
    ResourceTemplate,
    TextContent,
    TextResourceContents,
    Tool,
    ToolAnnotations,
)
from pydantic import BaseModel, ConfigDict, Field

from ..http.errors import RefusedError, UnavailableError
from ..http.models import MOST_ROWS, Page, read_model
from ..skills.card import card_markdown
from ..skills.models import Plan, PlanRequest, Selection, SelectRequest, SkillCard, SkillList
from ..skills.skills import ServedSkills

INSTRUCTIONS = (
    "Skills are LoRA adapters of one base model, measured on real tasks. Before generating, call select_skill for "
    "a sub-task, or plan_skills for a whole plan; then send the request to the same server's OpenAI API with the "
    "skill's name as the model (base: the bare base model). Gains are differences in score from the base model, from "
    "-1 to 1; a negative gain is a side effect."
)
TRAIT_MAP = "traits://map"
SKILL = "skill://"
PAGE = 100
_READ_ONLY = ToolAnnotations(read_only_hint=True, open_world_hint=False)
Context = ServerRequestContext[Any, Any]


class SkillName(BaseModel):
    """The skill to describe."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Annotated[str, Field(description="The skill's name, as list_skills returns it.")]


@dataclass(frozen=True)
class SkillTool:
    """A tool with the models of its arguments and its result; `ask` computes the result."""

    name: str
    title: str
    description: str
    arguments: type[BaseModel]
    result: type[BaseModel]
    ask: Callable[[ServedSkills, Any], Awaitable[BaseModel]]

    def definition(self) -> Tool:
        """The tool as clients see it."""
        return Tool(
            name=self.name,
            title=self.title,
            description=self.description,
            input_schema=self.arguments.model_json_schema(),
            output_schema=self.result.model_json_schema(mode="serialization"),
            annotations=_READ_ONLY,
        )

    async def call(self, skills: ServedSkills, arguments: dict[str, Any]) -> CallToolResult:
        """The result, or an error that the model can read and correct."""
        try:
            request = read_model(arguments, self.arguments, described_in="the tool's inputSchema")
            result = await self.ask(skills, request)
        except (RefusedError, UnavailableError) as exc:
            return CallToolResult(content=[TextContent(text=str(exc))], is_error=True)
        # The text is for clients that do not read structured content.
        return CallToolResult(
            content=[TextContent(text=result.model_dump_json())], structured_content=result.model_dump(mode="json")
        )


TOOLS = {
    tool.name: tool
    for tool in (
        SkillTool(
            "select_skill",
            "Select a skill",
            "Find the skill that one sub-task needs: skills ranked by predicted gain over the base model, with "
            "intervals, the reason, and expected side effects. The choice is `base` where no skill is sure to help.",
            SelectRequest,
            Selection,
            lambda skills, task: skills.ask(lambda s: s.select(task)),
        ),
        SkillTool(
            "plan_skills",
            "Assign skills to a plan",
            "Find the skill that each step of a plan needs, in one call. With `max_loss` above 0, predicted gain up to "
            "that sum is given up to switch skills less often; a switch costs a conversation its prefix cache.",
            PlanRequest,
            Plan,
            lambda skills, plan: skills.plan(plan),
        ),
        SkillTool(
            "list_skills",
            "List the skills",
            "List the skills of this server by name, each with the tasks on which it was measured to gain or lose "
            "most. If `next` is not null there are more: give it as `after`.",
            Page,
            SkillList,
            lambda skills, page: skills.ask(lambda s: s.cards(page)),
        ),
        SkillTool(
            "describe_skill",
            "Describe a skill",
            "Describe one skill: its training data, the gain measured on every profiled task, side effects, traits, "
            "provenance and licence.",
            SkillName,
            SkillCard,
            lambda skills, skill: skills.ask(lambda s: s.card(skill.name)),
        ),
    )
}

_TRAIT_MAP = Resource(
    uri=TRAIT_MAP,
    name="traits",
    title="Map of traits",
    description="The traits that explain the skills' gains, their loadings on tasks, and each skill's trait scores.",
    mime_type="application/json",
)
_TEMPLATES = [
    ResourceTemplate(
        uri_template=f"{SKILL}{{name}}",
        name="skill",
        title="Skill card",
        description="All that is known of one skill, as Markdown.",
        mime_type="text/markdown",
    )
]
_PROMPT = Prompt(
    name="work_by_skills",
    title="Work by skills",
    description="Break a goal into steps, and run each step on the skill that it needs.",
    arguments=[PromptArgument(name="goal", description="The goal to reach.", required=True)],
)
_PROMPT_TEXT = """\
Reach this goal: {goal}

1. Break it into steps, each a request that can be answered by itself, with its material in it.
2. Call plan_skills once with all steps in the order in which they will run.
3. Run each step as a chat completion whose model is the step's `assigned` skill, or the base model where that is
`base`.
   Read the side effects first: on those tasks the skill is worse than the base model.
4. Put the answers together, and say which skill gave which.
"""


def skills_server(skills: ServedSkills) -> Server[Any]:
    """An MCP server that answers from `skills`."""
    handlers = _Handlers(skills)
    return Server(
        "traitroute",
        version=version("traitroute"),
        title="TraitRoute",
        instructions=INSTRUCTIONS,
        on_list_tools=handlers.tools,
        on_call_tool=handlers.call,
        on_list_resources=handlers.resources,
        on_list_resource_templates=handlers.templates,
        on_read_resource=handlers.read,
        on_list_prompts=handlers.prompts,
        on_get_prompt=handlers.prompt,
    )


class _Handlers:
    """Handlers of the protocol's requests."""

    def __init__(self, skills: ServedSkills) -> None:
        self._skills = skills
        self._tools = [tool.definition() for tool in TOOLS.values()]

    async def tools(self, _: Context, params: PaginatedRequestParams | None) -> ListToolsResult:
        return ListToolsResult(tools=self._tools)

    async def call(self, _: Context, params: CallToolRequestParams) -> CallToolResult:
        tool = TOOLS.get(params.name)
        if tool is None:
            raise MCPError(INVALID_PARAMS, f"there is no tool {params.name[:64]!r}: call {', '.join(TOOLS)}")
        return await tool.call(self._skills, params.arguments or {})

    async def resources(self, _: Context, params: PaginatedRequestParams | None) -> ListResourcesResult:
        try:
            names = sorted(self._skills.snapshot().adapters)
        except UnavailableError:
            # Nothing can be read; reading says why.
            return ListResourcesResult(resources=[])
        return resource_page(names, params.cursor if params else None)

    async def templates(self, _: Context, params: PaginatedRequestParams | None) -> ListResourceTemplatesResult:
        return ListResourceTemplatesResult(resource_templates=_TEMPLATES)

    async def read(self, _: Context, params: ReadResourceRequestParams) -> ReadResourceResult:
        return ReadResourceResult(contents=[await read_resource(self._skills, params.uri)])

    async def prompts(self, _: Context, params: PaginatedRequestParams | None) -> ListPromptsResult:
        return ListPromptsResult(prompts=[_PROMPT])

    async def prompt(self, _: Context, params: GetPromptRequestParams) -> GetPromptResult:
        if params.name != _PROMPT.name:
            raise MCPError(INVALID_PARAMS, f"there is no prompt {params.name[:64]!r}: get {_PROMPT.name}")
        goal = (params.arguments or {}).get("goal", "")
        if not goal.strip():
            raise MCPError(INVALID_PARAMS, "the argument goal is empty: say what is to be reached")
        text = TextContent(text=_PROMPT_TEXT.format(goal=goal))
        return GetPromptResult(description=_PROMPT.description, messages=[PromptMessage(role="user", content=text)])


def resource_page(names: Sequence[str], cursor: str | None) -> ListResourcesResult:
    """A page of resources: the trait map, and a card of each of the sorted `names` after `cursor`."""
    left = [name for name in names if cursor is None or name > cursor]
    cards = [
        Resource(uri=SKILL + name, name=name, title=f"Skill {name}", mime_type="text/markdown") for name in left[:PAGE]
    ]
    return ListResourcesResult(
        resources=cards if cursor else [_TRAIT_MAP, *cards], next_cursor=left[PAGE - 1] if len(left) > PAGE else None
    )


async def read_resource(skills: ServedSkills, uri: str) -> TextResourceContents:
    """The resource at `uri`.

    Raises:
        MCPError: there is none, or it is not available now.
    """
    try:
        if uri == TRAIT_MAP:
            text = (await skills.ask(lambda s: s.traits(Page(limit=MOST_ROWS)))).model_dump_json()
            return TextResourceContents(uri=uri, mime_type="application/json", text=text)
        if not uri.startswith(SKILL):
            raise RefusedError(f"there is no resource {uri[:256]!r}: see {TRAIT_MAP} and {SKILL}NAME")
        card = await skills.ask(lambda s: s.card(uri.removeprefix(SKILL)))
        return TextResourceContents(uri=uri, mime_type="text/markdown", text=card_markdown(card))
    except RefusedError as exc:
        raise MCPError(INVALID_PARAMS, str(exc), {"uri": uri}) from exc
    except UnavailableError as exc:
        raise MCPError(INTERNAL_ERROR, str(exc), {"uri": uri}) from exc
