"""What the terminal shows, and how numbers, durations and commands are written: only this room prints.

May import `storage` and `records`, and of `searching` the types that it shows.
"""
