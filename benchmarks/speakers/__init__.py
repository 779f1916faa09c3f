"""Who speaks when: parity, made conversations, and how well they are told apart."""
