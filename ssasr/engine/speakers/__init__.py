"""Who speaks when: networks, and what a stream of audio makes of them. See ``windows``."""
