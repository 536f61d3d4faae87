"""Evaluation: R-Precision and Janus rate of runs, by an independent scorer (docs/evaluation.md)."""
