"""The command line: one module a group of commands; what is slow to load, the commands import."""
