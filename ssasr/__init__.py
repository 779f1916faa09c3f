"""Self-hosted streaming speech recognition."""

__version__ = "0.1.0"
