"""What trains the networks that ship: `python -m training prior` and `python -m training judge` (docs/training.md)."""
