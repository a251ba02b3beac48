"""TraitRoute inside vLLM: the endpoint plugin, and what starts a server with it."""

from .process import RunningServer, running_server, serve_command, serve_environment

__all__ = ["RunningServer", "running_server", "serve_command", "serve_environment"]
