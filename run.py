"""Train one network of the road from ResNet-50 to ConvNeXt: `python run.py +step=kernel_7`."""

import sys

from experiments.runtime.signals import answer_from_the_start

if __name__ == "__main__":
    answer_from_the_start()  # what follows takes a second to import

from experiments.commands.train import main
from roadmap.pipes import quietly

if __name__ == "__main__":
    sys.exit(quietly(main))
