"""Filters of texts and answers, one file each: a file here is a filter, and its name is the filter's name."""
