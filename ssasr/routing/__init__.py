"""The gateway's side of engine links: finding an engine, and replacing one that is lost."""
