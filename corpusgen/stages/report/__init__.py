"""What a run made, in figures and on a page."""
