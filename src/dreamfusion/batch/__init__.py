"""Many runs from one list: a directory that holds all there is to know, and workers that may come and go."""
