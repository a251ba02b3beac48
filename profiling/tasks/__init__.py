"""Suites and tasks: where rows come from, how prompts are rendered and answers are scored."""
