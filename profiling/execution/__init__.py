"""Where the work of a profile is done: in this process, in several on this machine, or on a Ray cluster."""
