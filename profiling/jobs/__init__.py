"""Jobs that measure added adapters where they are served, and outlive the process that does them; needs the extra `worker`."""
