r"""A checkpoint to a directory that transformers loads, with a model card.

Example:
    python jobs/export_model.py checkpoint=outputs/runs/first output=outputs/model
"""

import sys

from protclip.cli import run_job

if __name__ == "__main__":
    sys.exit(run_job("export", sys.argv[1:]))
