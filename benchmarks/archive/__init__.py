"""Finished studies: each program with the record of what was decided."""
