"""What `ray submit cluster.yaml sweep.py -- SPEC [options]` runs on the head: `raykd run`, from any folder.

    ray submit cluster.yaml sweep.py -- quickstart --set samples=50 --storage /shared/sweeps
    python sweep.py quickstart --dry-run

`ray submit` copies only this file; raykd itself gets to the nodes by the cluster file's `file_mounts` and
`setup_commands`. The other verbs go through as well: `sweep.py -- resume quickstart`.
"""

from __future__ import annotations

import sys

from raykd.cli import VERBS, main

if __name__ == "__main__":
    arguments = sys.argv[1:]
    main(arguments if arguments and arguments[0] in VERBS else ["run", *arguments])
