"""Measurements of the whole system and its parts; see README.md. Run with ``python -m``."""
