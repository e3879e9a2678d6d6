#!/usr/bin/env bash
# A sweep as a job that may be started again and again: `job.sh SPEC [options of raykd run]`. It checks the cluster,
# then begins the sweep, or goes on with it where an earlier start was cut off. RAYKD_STORAGE says where it lies.
set -euo pipefail
name=$(python -c 'import argparse
from raykd.spec.search import load_sweep
given = argparse.ArgumentParser()
given.add_argument("spec")
given.add_argument("--set", action="append", default=[])
found, _ = given.parse_known_args()
print(load_sweep(found.spec, found.set).name)' "$@")
raykd doctor "$@" --address auto
if raykd status "$name" > /dev/null 2>&1; then
  exec raykd resume "$name" --address auto
fi
exec raykd run "$@" --address auto
