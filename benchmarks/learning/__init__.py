"""What feedback teaches, in traffic made of measured requests: the world, and the ways of learning in it."""
