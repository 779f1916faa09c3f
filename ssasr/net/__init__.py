"""Sockets: the listener, WebSocket streams on both sides, the engine connection."""
