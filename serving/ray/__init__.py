"""Route as the ingress of Ray Serve LLM: `serve run` takes `traitroute.serving.ray:build_routed_app`.

The folder bears Ray's name; `import ray` inside it means Ray itself.
"""

from .app import build_routed_app
from .weights import StoredWeights

__all__ = ["StoredWeights", "build_routed_app"]
