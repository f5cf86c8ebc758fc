"""Train one network of the road from ResNet-50 to ConvNeXt: `python run.py +step=kernel_7`."""

import sys

from experiments.commands.train import main
from roadmap.pipes import quietly

if __name__ == "__main__":
    sys.exit(quietly(main))
