"""The judge of the evaluation: its pictures, its training, how often it is right."""
