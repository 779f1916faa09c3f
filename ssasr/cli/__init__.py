"""The ``ssasr`` command: options, subcommands, and the building of each kind of process."""
