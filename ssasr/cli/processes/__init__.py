"""Builds each kind of process: all in one, gateway, engine."""
