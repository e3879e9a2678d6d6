"""What happened: the ledger, the history folded from it, and the views that are written from both.

May import `storage` and `spec`. Needs neither torch nor Ray.
"""
