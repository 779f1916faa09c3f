"""``python -m ssasr``."""

from ssasr.cli import main

main()
