"""Who may open a session: keys, temporary tokens, the licence file."""
