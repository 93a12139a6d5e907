"""`retinanet train` for torchrun: torchrun --nproc_per_node 8 tools/train.py ..."""

import sys

from retinanet.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
