"""What keeps a server from routing: checks with advice."""

from .contents import check_registry
from .finding import Finding, Verdict
from .packages import check_packages
from .upstream import check_upstream

__all__ = ["Finding", "Verdict", "check_packages", "check_registry", "check_upstream"]
