"""Usage records, and sending them to where the operator wants them."""
