"""Studies: designs and their arms, the guard, rounds of replicates, conclusions. Needs no cluster.

May import the rooms up to `export`; runs nothing itself.
"""
