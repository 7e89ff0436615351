"""The report of one run: its facts, its charts and its page."""
