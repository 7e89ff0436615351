"""Kill -9 over several processes on one corpus, with a teacher that misbehaves and keeps its own bill."""
