"""Trait vectors: principal components of the gains, their null, stability and names."""
