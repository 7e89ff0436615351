"""A teacher that misbehaves on demand and keeps its own bill, over loopback HTTP: ``corpusgen mock-teacher``."""
