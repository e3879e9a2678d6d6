"""What students are worth on suites of tasks: which networks, which jobs, and what the records say together.

It starts nothing itself and needs no cluster.
"""
