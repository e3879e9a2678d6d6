from trainables.core.timm_import import keep_timm_alone

keep_timm_alone()
