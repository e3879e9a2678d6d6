"""Small networks, batches and teachers for the tests of methods."""

from __future__ import annotations

import torch

from trainables.planning.conformance.small_runs import SIDE as SIDE
from trainables.planning.conformance.small_runs import STUDENT as STUDENT
from trainables.planning.conformance.small_runs import TEACHER as TEACHER
from trainables.planning.conformance.small_runs import WIDE_TEACHER as WIDE_TEACHER
from trainables.planning.conformance.small_runs import adam_steps as adam_steps
from trainables.planning.conformance.small_runs import context as context
from trainables.planning.conformance.small_runs import make_batch as make_batch
from trainables.planning.conformance.small_runs import make_method as make_method
from trainables.planning.conformance.small_runs import make_teacher as make_teacher
from trainables.planning.conformance.small_runs import train_steps as train_steps
from trainables.planning.conformance.small_runs import training_images as training_images

torch.set_num_threads(1)  # more threads are slower with networks this small
