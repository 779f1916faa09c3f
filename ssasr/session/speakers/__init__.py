"""Whose voice it is: labels for the words and turns of one session. See ``labels``."""
