"""Fine-tuning, evaluation and the promotion gate."""
