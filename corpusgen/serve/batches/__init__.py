"""Batches of both vendors: their files, their lines, the work on them and what is told of them."""
