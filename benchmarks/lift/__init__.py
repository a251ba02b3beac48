"""What the latency benchmarks are made of: routers of any size, and request texts."""
