"""Named configurations by seeds, each held against a reference: what does a part of the recipe do?

Example:
    python jobs/ablate.py --config conf/ablations/theta.yaml data=data/pairs
"""

import sys

from protclip.cli import run_job

if __name__ == "__main__":
    sys.exit(run_job("ablate", sys.argv[1:]))
