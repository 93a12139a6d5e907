"""`retinanet lab` for torchrun: torchrun --nproc_per_node 8 tools/lab.py losses ..."""

import sys

from retinanet.cli import main

if __name__ == "__main__":
    sys.exit(main(["lab", *sys.argv[1:]]))
