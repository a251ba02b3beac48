"""The package `mcp`, which is an extra."""

from importlib.util import find_spec


def require_mcp() -> None:
    """Check that the SDK is there.

    Raises:
        ImportError: it is not; the message holds the install command.
    """
    if find_spec("mcp") is None or find_spec("mcp_types") is None:
        raise ImportError("MCP needs the extra, with mcp 2.3: pip install 'traitroute[skills]'")
