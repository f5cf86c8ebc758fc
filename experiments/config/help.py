"""What `python run.py --help` shows: the ladder with the paper's numbers, and commands worth knowing."""

from roadmap import paper
from roadmap.files import CONF
from roadmap.steps import STEPS

COMMANDS = (
    ("python run.py +step=kernel_7", "train a step: minutes on a laptop (digits, demo budget)"),
    ("python run.py +step=kernel_7 design.kernel_size=13", "any flag of the network by hand"),
    ("python run.py +step=separate_downsampling 'drop=[kernel_7]'", "ConvNeXt without one change"),
    ("python run.py +step=enhanced_recipe 'add=[gelu,layer_norm]'", "ResNet-50 plus two changes"),
    ("python run.py +step=gelu 'recipe.without=[mixup]' budget=proxy data=cifar10", "without a training technique"),
    ("python run.py -m +step=depthwise,kernel_7 seed=0,1,2", "a sweep"),
    ("python run.py +study=ladder", "all 17 rows, planned, resumable"),
    ("python run.py +step=kernel_7 --cfg job", "print the config instead of training"),
    ("python -m roadmap explain kernel_7", "what a step changes in the network"),
)
GROUPS = ("regime", "recipe", "budget", "data", "logger", "launcher", "+study")


def help_page() -> str:
    """The page as text."""
    lines = ["Train any step of the road from ResNet-50 to ConvNeXt (arXiv 2201.03545).", ""]
    lines += ["Steps in ladder order, with the paper's ImageNet top-1 and GMACs (regime tiny):"]
    for step in STEPS:
        row = paper.row(step.name)
        numbers = f"{row.top1:5.2f} %  {row.gflops_counted:5.2f} GMACs  {row.label}" if row else ""
        lines.append(f"  +step={step.name:<22} {numbers}".rstrip())
    lines += ["", "Commands worth knowing:"]
    lines += [f"  {command:<78} {meaning}" for command, meaning in COMMANDS]
    lines += ["", "Groups (GROUP=NAME):"]
    for group in GROUPS:
        lines.append(
            f"  {group + '=':<10} {', '.join(sorted(path.stem for path in (CONF / group.lstrip('+')).glob('*.yaml')))}"
        )
    lines += ["", "All keys and their values: python run.py --cfg job. Hydra's own options: python run.py --hydra-help"]
    return "\n".join(lines)
