"""Jobs as servers and commands see them; `profiling.jobs` does them."""

from .board import JobBoard
from .job import Job, JobState
from .place import jobs_file, jobs_url
from .routes import job_routes

__all__ = ["Job", "JobBoard", "JobState", "job_routes", "jobs_file", "jobs_url"]
