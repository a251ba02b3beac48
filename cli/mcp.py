"""`traitroute mcp`: skills for an agent that starts its MCP servers itself, over standard input and output."""

from ..adapters import Registry
from .options import DEFAULT_REGISTRY, RegistryPath


def mcp(registry: RegistryPath = DEFAULT_REGISTRY) -> None:
    """Answer an agent's questions about skills over MCP on standard input and output; no model is run.

    The tools: select_skill, plan_skills, list_skills, describe_skill. A running server (`traitroute serve`) answers the
    same at /mcp. In an agent's configuration:

        {"mcpServers": {"traitroute": {"command": "traitroute", "args": ["mcp", "--registry", "traitroute.db"]}}}
    """
    from ..serving.mcp import serve_stdio

    # What is wrong with the registry is told now, in one line, and not to the first question.
    Registry.open(registry, read_only=True).close()
    serve_stdio(lambda: Registry.open(registry, read_only=True))
