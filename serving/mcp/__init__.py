"""Skills over the Model Context Protocol: at `/mcp` beside OpenAI's routes, and over standard input and output.

Importing this imports no `mcp`; that comes with the extra `traitroute[skills]`.
"""

from .endpoint import mcp_routes, require_mcp, serve_stdio

__all__ = ["mcp_routes", "require_mcp", "serve_stdio"]
