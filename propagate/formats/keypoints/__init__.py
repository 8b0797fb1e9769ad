"""Keypoint files: our JSON, COCO, CSV."""
