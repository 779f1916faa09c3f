"""The bytes that a client sends, in any encoding, as 16 kHz mono PCM."""
