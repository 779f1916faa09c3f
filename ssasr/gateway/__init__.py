"""The public side: handshakes, HTTP, access, usage records, worker processes."""
