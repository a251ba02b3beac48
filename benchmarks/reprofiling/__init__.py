"""What the benchmarks of re-profiling are made of: adapters left out, ways to place them, and a live system."""
