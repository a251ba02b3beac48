"""Jobs as servers and commands see them; `profiling.jobs` does them."""

from .board import JobBoard
from .job import Job, JobList, JobState
from .place import jobs_file, jobs_url
from .routes import job_operations

__all__ = ["Job", "JobBoard", "JobList", "JobState", "job_operations", "jobs_file", "jobs_url"]
