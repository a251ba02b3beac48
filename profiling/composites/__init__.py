"""Composites: adapters merged of others, measured, and admitted where they are better."""
