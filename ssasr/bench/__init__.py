"""``ssasr bench``: real-time clients in number, and what they saw."""
