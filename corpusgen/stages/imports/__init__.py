"""Rows from outside."""
