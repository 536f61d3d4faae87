"""The embedded prior: its pictures, its networks, its training."""
