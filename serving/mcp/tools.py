"""The tools: the skills API's questions, with its models as their schemas. All of them only read."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any

from mcp_types import CallToolResult, TextContent, Tool, ToolAnnotations
from pydantic import BaseModel, ConfigDict, Field

from ..http.errors import RefusedError
from ..http.paging import Page
from ..skills.models import Plan, PlanRequest, Selection, SelectRequest, SkillCard, SkillList
from ..skills.reading import read_model
from ..skills.served import ServedSkills, UnavailableError

_ONLY_READS = ToolAnnotations(read_only_hint=True, open_world_hint=False)


class SkillName(BaseModel):
    """Which skill is meant."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Annotated[str, Field(description="The skill's name, as list_skills tells it.")]


@dataclass(frozen=True)
class SkillTool:
    """A tool: what it reads and answers with, and what computes the answer."""

    name: str
    title: str
    description: str
    reads: type[BaseModel]
    answers: type[BaseModel]
    ask: Callable[[ServedSkills, Any], Awaitable[BaseModel]]

    def described(self) -> Tool:
        """The tool as clients are shown it."""
        return Tool(
            name=self.name,
            title=self.title,
            description=self.description,
            input_schema=self.reads.model_json_schema(),
            output_schema=self.answers.model_json_schema(mode="serialization"),
            annotations=_ONLY_READS,
        )

    async def call(self, skills: ServedSkills, arguments: dict[str, Any]) -> CallToolResult:
        """The answer, or an error that the model can read and mend."""
        try:
            asked = read_model(arguments, self.reads, described_in="the tool's inputSchema")
            answer = await self.ask(skills, asked)
        except (RefusedError, UnavailableError) as exc:
            return CallToolResult(content=[TextContent(text=str(exc))], is_error=True)
        # The text is for clients that know no structured answers.
        return CallToolResult(
            content=[TextContent(text=answer.model_dump_json())],
            structured_content=answer.model_dump(mode="json"),
        )


TOOLS = {
    tool.name: tool
    for tool in (
        SkillTool(
            "select_skill",
            "Select a skill",
            "Which skill one sub-task needs: the skills ranked by predicted gain over the base model, with "
            "intervals, why, and the side effects to expect. The choice is `base` where no skill is sure to help.",
            SelectRequest,
            Selection,
            lambda skills, asked: skills.select(asked),
        ),
        SkillTool(
            "plan_skills",
            "Assign skills to a plan",
            "Which skill each step of a plan needs, all in one call. With `max_loss` above 0, predicted gain up to "
            "that sum is given up to change skills less often; changing costs a conversation its cache.",
            PlanRequest,
            Plan,
            lambda skills, asked: skills.plan(asked),
        ),
        SkillTool(
            "list_skills",
            "List the skills",
            "The skills of this server by name, each with the tasks on which it was measured to gain or lose most. "
            "Where `next` is not null there are more: give it as `after`.",
            Page,
            SkillList,
            lambda skills, asked: skills.cards(asked),
        ),
        SkillTool(
            "describe_skill",
            "Describe a skill",
            "All that is known of one skill: its training data, the gain measured on every profiled task, "
            "side effects, traits, provenance and licence.",
            SkillName,
            SkillCard,
            lambda skills, asked: skills.card(asked.name),
        ),
    )
}
