"""Gains predicted from a data set, before an adapter is trained on it."""
