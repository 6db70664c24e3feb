"""Is everything ready for a job: storage, MLflow, every node, the network between them.

Example:
    python jobs/doctor.py pretrain=conf/pretrain/paper.yaml,scaling.num_workers=8 storage=s3://protclip/runs
"""

import sys

from protclip.cli import run_job

if __name__ == "__main__":
    sys.exit(run_job("doctor", sys.argv[1:]))
