"""What a trial does: data, views, teachers, methods, training and evaluation; it knows no engine.

The package runs with torch and timm alone. The import of timm is guarded here, before any module of ours
imports it: timm would bring wandb along wherever that is installed (`trainables.core.timm_import`).
"""

from trainables.core.timm_import import keep_timm_alone

keep_timm_alone()
