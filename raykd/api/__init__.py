"""What `import raykd` offers to Python code, and what the verbs of the command line call.

`raykd/__init__.py` gives its names out. May import every room but `stats`, `doctor` and `cli`.
"""
