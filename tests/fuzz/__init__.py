"""A fuzzer for everything the package reads: `make fuzz N=10000`, or `python -m tests.fuzz --help`.

It makes small valid inputs of every kind, damages them in a seeded way, runs a command on them in a worker process and
looks at what comes out. A command may do its work or end with an error of ours; anything else is a finding.
"""
