r"""A checkpoint to embeddings of strata or pairs, or to how well the texts of entries fit their proteins.

Example:
    python jobs/embed.py --config conf/embed/consistency.yaml source=data/strata \
        checkpoint=outputs/runs/first output=data/consistency
"""

import sys

from protclip.cli import run_job

if __name__ == "__main__":
    sys.exit(run_job("embed", sys.argv[1:]))
