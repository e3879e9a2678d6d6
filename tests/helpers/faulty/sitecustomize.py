"""Makes a file system fail, in any process that has this folder on its PYTHONPATH.

While the file $RAYKD_TEST_FAULT exists, it holds `ERRNO DELAY FOLDER`: every fsync below FOLDER takes DELAY
seconds, and then fails with ERRNO unless that is 0. All that raykd believes later is fsynced before.
"""

import os
import time
from pathlib import Path

_fsync = os.fsync


def _faulty(handle):
    try:
        number, delay, folder = Path(os.environ["RAYKD_TEST_FAULT"]).read_text().split(maxsplit=2)
    except (FileNotFoundError, ValueError):
        return _fsync(handle)
    where = os.readlink(f"/proc/self/fd/{handle if isinstance(handle, int) else handle.fileno()}")  # noqa: PTH115
    if where.startswith(folder):
        time.sleep(float(delay))
        if int(number):
            raise OSError(int(number), os.strerror(int(number)))
    return _fsync(handle)


if "RAYKD_TEST_FAULT" in os.environ:
    os.fsync = _faulty
