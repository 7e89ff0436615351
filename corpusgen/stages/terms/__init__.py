"""Terms, and what they allow: registered, judged, explained, waived, and looked at again."""
