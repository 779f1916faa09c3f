"""What a process of ours runs on: trio runs, signals, hand-off channels, timers, garbage
collection, durable files. Knows nothing of speech or of the protocol."""
