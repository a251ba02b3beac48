"""Durable jobs that measure added adapters where they are served; needs the extra `worker`."""
