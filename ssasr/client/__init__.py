"""Programs that speak to a server: transcribe, microphone, demo."""
