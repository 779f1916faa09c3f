"""Clients and faults for the tests and for operators."""
