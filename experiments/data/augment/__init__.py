"""Augmentation: parameters drawn per image without torch, applied to whole batches on whatever device they are."""
