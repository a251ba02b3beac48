"""TraitRoute: measure what every LoRA adapter really does, and route each request to the one it needs."""

__version__ = "0.1.0"
