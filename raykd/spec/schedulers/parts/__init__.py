"""Tune's schedulers where raykd has one of its own. They import Ray: import them late."""
