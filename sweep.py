"""What `ray submit cluster.yaml sweep.py -- SPEC [options]` runs on the head: `raykd run`, from any folder.

    ray submit cluster.yaml sweep.py -- --space retro --samples 50
    ray submit cluster.yaml sweep.py -- search_spaces/mine.yaml --set workers.count=2
    ray submit cluster.yaml sweep.py -- resume retro
    ray submit cluster.yaml sweep.py -- attach retro
    python sweep.py quickstart --dry-run

`ray submit` copies only this file; raykd itself gets to the nodes by the cluster file's `file_mounts` and
`setup_commands`. The other verbs go through as well. A sweep does not stop when the connection is lost, and
`attach NAME` shows it again; Ctrl-C stops it in good order.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from raykd.cli import main, verbs
from raykd.runs.terminal import launch

AT_ONCE = {"--dry-run", "--plan", "--json", "--help"}  # with these nothing is started
CHECKOUT = Path("~/raykd-src").expanduser()  # where cluster.yaml puts it

if __name__ == "__main__":
    arguments, known = sys.argv[1:], verbs()
    if not arguments or arguments[0] not in (*known, "--version"):
        arguments = ["run", *arguments]
    if Path.cwd() == Path.home() == Path(__file__).resolve().parent and CHECKOUT.is_dir():
        os.chdir(CHECKOUT)  # under `ray submit`: paths mean what they mean in the laptop's checkout
    if arguments[0] in known and known[arguments[0]].drives and not AT_ONCE.intersection(arguments):
        raise SystemExit(launch(arguments))
    main(arguments)
