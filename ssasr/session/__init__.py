"""One client: its four supervised tasks (receive, resample, infer, emit), turns and text."""
