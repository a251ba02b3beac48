"""Why an adapter transfers: statistics of its source, its outputs and its gains, with intervals and nulls."""
