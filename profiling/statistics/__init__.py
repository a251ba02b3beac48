"""Tests and intervals: bootstrap, permutation tests, false-discovery control."""
