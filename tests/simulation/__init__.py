"""Worlds in which everything goes wrong, and all of it again from the same seed."""
