"""Fans prompts out to a teacher and stores every answer that was paid for.

This is the only place that starts teacher tasks. For each prompt: known answer? → single flight → reserve → pace → ask
→ read → settle and store in one transaction. A fixed number of workers and a short queue stand between the prompts and
the reader, so a slow reader slows the asking and a reader that leaves ends it.
"""
