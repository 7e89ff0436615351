"""Taking something out of everything below a corpus."""
