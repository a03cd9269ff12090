"""Running a model in this process: packed token tries, forward passes, one reader, decoding. No task, no labeler."""
