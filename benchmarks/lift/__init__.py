"""What the benchmarks of `traitroute lift` are made of: simulated traffic, intervals, and a registry filled with it."""
