"""The cache-aware FastConformer RNN-T recogniser, the engine for GPUs."""
