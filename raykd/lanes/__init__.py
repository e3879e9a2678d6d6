"""Where trials run: the connection to Ray, the pool of warm worker groups, a trial's proxy in Tune.

May import `storage` and `spec`; what a trial trains is an action by name.
"""
