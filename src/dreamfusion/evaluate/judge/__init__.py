"""The judge: a small network of our own that says what it sees in a picture. It never meets the prior."""
