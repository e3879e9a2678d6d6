"""This process: the signals that end it and the streams it writes to.

Imports nothing of raykd, and no package that takes long to import, because it comes before all else.
"""
