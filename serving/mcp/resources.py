"""The resources: a card of every skill, and the map of traits."""

from collections.abc import Sequence
from typing import Any

from mcp.shared.exceptions import MCPError
from mcp_types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    ListResourcesResult,
    Resource,
    ResourceTemplate,
    TextResourceContents,
)

from ..http.errors import RefusedError
from ..http.paging import MOST_ROWS, Page
from ..skills.markdown import card_markdown
from ..skills.served import ServedSkills, UnavailableError

TRAIT_MAP = "traits://map"
SKILL = "skill://"
PAGE = 100

_MAP = Resource(
    uri=TRAIT_MAP,
    name="traits",
    title="Map of traits",
    description="What the skills' gains have in common: traits with their loadings, and where each skill lies.",
    mime_type="application/json",
)
TEMPLATES = [
    ResourceTemplate(
        uri_template=f"{SKILL}{{name}}",
        name="skill",
        title="Skill card",
        description="All that is known of one skill, as Markdown.",
        mime_type="text/markdown",
    )
]


def resource_page(names: Sequence[str], cursor: str | None) -> ListResourcesResult:
    """The map and the cards of the skills `names`, in order, a page at a time; `cursor` is the last name told."""
    left = [name for name in names if cursor is None or name > cursor]
    cards = [_card(name) for name in left[:PAGE]]
    return ListResourcesResult(
        resources=cards if cursor else [_MAP, *cards],
        next_cursor=left[PAGE - 1] if len(left) > PAGE else None,
    )


async def read_resource(skills: ServedSkills, uri: str) -> TextResourceContents:
    """What lies at `uri`.

    Raises:
        MCPError: nothing does, or nothing can be told now.
    """
    try:
        if uri == TRAIT_MAP:
            text = (await skills.traits(Page(limit=MOST_ROWS))).model_dump_json()
            return TextResourceContents(uri=uri, mime_type="application/json", text=text)
        if not uri.startswith(SKILL):
            raise RefusedError(f"there is no resource {uri[:256]!r}: see {TRAIT_MAP} and {SKILL}NAME")
        card = await skills.card(uri.removeprefix(SKILL))
        return TextResourceContents(uri=uri, mime_type="text/markdown", text=card_markdown(card))
    except RefusedError as exc:
        raise MCPError(INVALID_PARAMS, str(exc), _at(uri)) from exc
    except UnavailableError as exc:
        raise MCPError(INTERNAL_ERROR, str(exc), _at(uri)) from exc


def _card(name: str) -> Resource:
    return Resource(uri=SKILL + name, name=name, title=f"Skill {name}", mime_type="text/markdown")


def _at(uri: str) -> dict[str, Any]:
    return {"uri": uri}
