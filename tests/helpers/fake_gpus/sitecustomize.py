"""Lane workers that take what Ray calls a GPU for one, in any process that has this folder on its PYTHONPATH.

There is no GPU: `devices.use_gpu` leaves the worker on the CPU, and raises for the GPUs that are named in the
file $RAYKD_TEST_DEAD_GPUS. `devices.limit_memory` only notes in $RAYKD_TEST_ALONE with how many others.
"""

import importlib.abc
import importlib.machinery
import os
import sys
from pathlib import Path


class _Claims(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name != "raykd.lanes.devices":
            return None
        found = importlib.machinery.PathFinder.find_spec(name, path)
        load = found.loader.exec_module

        def exec_module(module):
            load(module)
            module.use_gpu = lambda gpu, share: _claim(module, gpu)
            module.limit_memory = _limit

        found.loader.exec_module = exec_module
        return found


def _claim(module, gpu):
    if gpu is not None and gpu.id in Path(os.environ["RAYKD_TEST_DEAD_GPUS"]).read_text().split():
        raise module.Unusable("it cannot be used: CUDA error: unknown error")


def _limit(share, alone=0):
    os.environ["RAYKD_TEST_ALONE"] = str(alone)


if "RAYKD_TEST_DEAD_GPUS" in os.environ:
    sys.meta_path.insert(0, _Claims())
