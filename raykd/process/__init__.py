"""This process: the signals that end it and the streams it writes to.

It imports nothing of raykd, and no package that takes long to import: it is imported first.
"""
