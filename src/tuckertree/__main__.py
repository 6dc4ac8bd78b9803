"""Run the command line: ``python -m tuckertree``."""

from tuckertree.cli import main

main()
