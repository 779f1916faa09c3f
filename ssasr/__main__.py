"""``python -m ssasr``."""

from ssasr.cli.commands import main

main()
