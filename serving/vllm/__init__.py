"""TraitRoute inside vLLM: the endpoint plugin, and what starts a server with it."""

from .process import RunningServer, free_port, running_process, running_server, serve_command, serve_environment

__all__ = ["RunningServer", "free_port", "running_process", "running_server", "serve_command", "serve_environment"]
