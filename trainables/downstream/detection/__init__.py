"""Detection and instance segmentation: a network as the backbone of torchvision's Faster or Mask R-CNN.

`run.detection` is the task, `check.check_detection` what is refused before machine time is spent.
"""
