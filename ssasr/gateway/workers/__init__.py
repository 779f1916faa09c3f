"""Several gateway processes behind one port."""
