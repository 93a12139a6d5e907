"""`retinanet predict` for torchrun: torchrun --nproc_per_node 8 tools/predict.py ..."""

import sys

from retinanet.cli import main

if __name__ == "__main__":
    sys.exit(main(["predict", *sys.argv[1:]]))
