"""RetinaNet done completely. The config is the experiment; hardware only changes the time."""

import os

# albumentations asks a server for its newest version at import; nothing here goes online unasked.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

__version__ = "0.1.0"
