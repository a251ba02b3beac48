"""How a routing decision turned out, as somebody told afterwards: numbers and names, never text."""

from datetime import UTC, datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from .adapter import Name

Token = Annotated[str, Field(pattern=r"^[A-Za-z0-9._~-]{1,255}$")]
Reward = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class Feedback(BaseModel):
    """One decision, by its token: `adapter` (None: base), the gain predicted for it, and the reward once told.

    `giver` stands for the API key that told it, as `Registry.giver` has it, or for the server where there are no keys.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    token: Token
    adapter: Name | None
    predicted_gain: Annotated[float, Field(allow_inf_nan=False)]
    profile_version: int | None = None
    reward: Reward | None = None
    created_at: datetime = Field(default_factory=lambda: datetime.now(UTC))
    rewarded_at: datetime | None = None
    giver: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")] | None = None
