"""The studio: a queue of runs, their live state and a gallery in the browser (docs/studio.md).

The server (`app`, `security`, `events`, `studio`, `index`, `scan`) never imports torch. Each device has one `worker`
process, which runs the ordinary run-folder code and which a `lane` of the server talks to in lines of JSON. Run folders
are the truth; the index, a SQLite file, can be rebuilt from them.
"""
