"""Recognition: the only package that imports torch, and only in the modules of its models."""
