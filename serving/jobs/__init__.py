"""Jobs as servers and commands see them; `profiling.jobs` runs them."""

from .board import Job, JobBoard, JobList, JobState, job_operations, jobs_file, jobs_url

__all__ = ["Job", "JobBoard", "JobList", "JobState", "job_operations", "jobs_file", "jobs_url"]
