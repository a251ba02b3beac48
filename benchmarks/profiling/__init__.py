"""What the profiling benchmark compares with."""
