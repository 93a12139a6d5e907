"""`retinanet evaluate` for torchrun: torchrun --nproc_per_node 8 tools/evaluate.py ..."""

import sys

from retinanet.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
