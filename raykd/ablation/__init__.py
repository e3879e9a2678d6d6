"""Ablation studies: designs and arms, the confound guard, rounds of replicates, conclusions, tables.

It starts nothing itself and needs no cluster.
"""
