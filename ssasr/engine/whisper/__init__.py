"""The Whisper recogniser: model, alignment, streaming decoding."""
