"""Figures of the report: findings in, matplotlib figures out; no pyplot, no window, no global state."""
