"""OpenAI's endpoints, each a translation at the edge over the same sessions and engines."""
