"""The findings of arXiv 2411.16954, made again on our own samples: docs/paper.md and its plots."""
