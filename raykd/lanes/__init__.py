"""Where trials run: the connection to Ray, the pool of warm worker groups, a trial's proxy in Tune.

May import `process`, `storage` and `spec`. It knows what a trial trains only as the name of an action.
"""
