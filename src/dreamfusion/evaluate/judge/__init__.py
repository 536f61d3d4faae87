"""The judge: a small classifier of nouns, colours and sides, independent of the prior."""
