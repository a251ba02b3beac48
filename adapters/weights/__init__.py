"""Adapter weights: where they are fetched from, how they are checked, and the immutable store."""
