"""Evaluation: what a scorer that nobody trained against sees in the results (docs/evaluation.md)."""
