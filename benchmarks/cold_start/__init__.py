"""Rows of gains predicted from an adapter's weights."""
