"""Text, sequences of tokens, tasks with known answers, prompts."""
