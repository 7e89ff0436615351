"""A student that goes out under a name."""
