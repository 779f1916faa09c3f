"""Logs, metrics and traces. Records; decides nothing."""
