"""What one server saw of the stream of requests in a stretch of time: counts, and features of some; never text."""

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from safetensors.numpy import load, save


class DemandWindow(BaseModel):
    """Of `requests` routed with a profile version, `novel` were like nothing profiled; `features` are those of some of them.

    The features are a safetensors blob of one array, (sampled, p) in float16: hashed words projected on the directions
    that the profiled requests span.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    profile_version: int
    requests: int = Field(ge=0)
    novel: int = Field(ge=0)
    features: bytes
    created_at: datetime = Field(default_factory=lambda: datetime.now(UTC))

    @staticmethod
    def pack(rows: Sequence[NDArray[np.float64]]) -> bytes:
        """The blob of feature vectors (p,)."""
        stacked = np.array(rows, np.float16).reshape(len(rows), len(rows[0]) if len(rows) else 0)
        return save({"features": stacked})

    def rows(self) -> NDArray[np.float64]:
        """The features, (sampled, p)."""
        return load(self.features)["features"].astype(np.float64)
