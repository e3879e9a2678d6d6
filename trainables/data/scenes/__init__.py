"""Scenes of digits with boxes and instance masks, drawn by a seed: something to detect without a download.

    python -m trainables.data.scenes DIR --train 400 --val 100 --seed 0

writes DIR/train/, DIR/val/ and DIR/annotations/instances_train.json, instances_val.json in COCO's format.
"""
