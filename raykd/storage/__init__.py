"""Where sweeps lie: folders, object stores, the lock that one driver holds, the lines of the ledger on disk.

Imports no other room.
"""
