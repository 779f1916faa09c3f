"""Personal data out of the text (``redact_pii``): what it is said as, where it is, what is shown
instead. Loaded only by a gateway that was started with ``--redaction``."""
