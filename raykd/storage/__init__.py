"""Where sweeps are kept: folders, object stores, the lease of a sweep's driver, the ledger's lines on disk.

Imports no other room.
"""
