"""Several sweeps at once: the list of a storage, and what differs between some of them.

The report and the tables are about one sweep; these are what `raykd list sweeps` and `raykd compare` show.
"""
