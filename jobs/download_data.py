"""UniProtKB from UniProt to local disk or object storage, verified and resumable.

Example:
    python jobs/download_data.py --config conf/data/download.yaml output=data/uniprot
"""

import sys

from protclip.cli import run_job

if __name__ == "__main__":
    sys.exit(run_job("download", sys.argv[1:]))
