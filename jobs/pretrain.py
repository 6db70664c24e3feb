"""Pairs to checkpoints: pre-training with all four objectives on Ray Train workers.

Example:
    python jobs/pretrain.py --config conf/pretrain/quickstart.yaml data=data/pairs run.name=first
"""

import sys

from protclip.cli import run_job

if __name__ == "__main__":
    sys.exit(run_job("pretrain", sys.argv[1:]))
