"""The gateway's side of the engine link: finding, keeping and replacing an engine."""
