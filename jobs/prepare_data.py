"""UniProtKB files to strata: parse, check, partition by confidence and coverage.

Example:
    python jobs/prepare_data.py --config conf/data/prepare.yaml inputs=a.dat.gz,b.xml output=data/strata
"""

import sys

from protclip.cli import run_job

if __name__ == "__main__":
    sys.exit(run_job("prepare", sys.argv[1:]))
