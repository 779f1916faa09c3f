"""Other systems on the same clips."""
