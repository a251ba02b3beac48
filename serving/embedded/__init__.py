"""The embedded server: OpenAI's surface over transformers and PEFT in this process, for machines without vLLM."""

from .server import EmbeddedOptions, open_app

__all__ = ["EmbeddedOptions", "open_app"]
