"""Studies: designs and their arms, the guard, rounds of replicates, conclusions. Needs no cluster.

May import `stats`, `spec`, `records`, `search`, `console` and `export`; starts nothing itself.
"""
