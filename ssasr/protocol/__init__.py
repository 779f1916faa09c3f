"""The wire: sans-I/O classes and state machines. No trio, no torch, no clock."""
