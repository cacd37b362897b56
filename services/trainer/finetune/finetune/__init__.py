"""The programs that Ray runs for trainer: training, evaluation, and the import of base models."""
