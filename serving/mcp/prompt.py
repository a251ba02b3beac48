"""The prompt: how an agent works through a goal by skills."""

from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    GetPromptResult,
    Prompt,
    PromptArgument,
    PromptMessage,
    TextContent,
)

PROMPT = Prompt(
    name="work_by_skills",
    title="Work by skills",
    description="Break a goal into steps, and run each on the skill that it needs.",
    arguments=[PromptArgument(name="goal", description="What is to be reached.", required=True)],
)

_TEXT = """\
Reach this goal: {goal}

1. Break it into steps, each a request that can be answered by itself, with its material in it.
2. Call plan_skills once with all steps in the order in which they will run.
3. Run each step as a chat completion whose model is the step's `assigned` skill, or the base model where that is `base`.
   Read the side effects first: on those tasks the skill is worse than the base model.
4. Put the answers together, and say which skill gave which.
"""


def work_by_skills(goal: str) -> GetPromptResult:
    """The prompt for `goal`.

    Raises:
        MCPError: the goal is empty.
    """
    if not goal.strip():
        raise MCPError(INVALID_PARAMS, "the argument goal is empty: say what is to be reached")
    text = TextContent(text=_TEXT.format(goal=goal))
    return GetPromptResult(description=PROMPT.description, messages=[PromptMessage(role="user", content=text)])
