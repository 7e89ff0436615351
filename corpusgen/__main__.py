"""``python -m corpusgen``."""

from corpusgen.cli.main import main

main()
