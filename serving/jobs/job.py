"""A job: one adapter's row of the transfer matrix, measured cell by cell until the adapter can be routed to."""

from datetime import datetime
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict


class JobState(StrEnum):
    """`waiting`: the model server or the registry is away, and is asked again; `set-aside`: the adapter is at fault and
    disabled; `withdrawn`: it was removed or replaced meanwhile; `failed`: something else is, and the adapter stays pending.
    """

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    DONE = "done"
    SET_ASIDE = "set-aside"
    WITHDRAWN = "withdrawn"
    FAILED = "failed"


class Job(BaseModel):
    """How far a job is: `done` of the adapter's examples, of `most` at most; `remaining_s`, at most, from the pace so far."""

    model_config = ConfigDict(frozen=True)

    id: str
    adapter: str
    weights_digest: str
    state: JobState
    done: int
    most: int
    remaining_s: float | None = None
    reason: str | None = None
    profile_version: int | None = None
    worker: str | None = None
    queued_at: datetime
    ended_at: datetime | None = None


class JobList(BaseModel):
    """The newest jobs, the newest first."""

    model_config = ConfigDict(frozen=True)

    object: Literal["list"] = "list"
    data: tuple[Job, ...]
