"""What `python run.py --help` shows: a ladder with its published numbers, and commands worth knowing."""

from roadmap.files import found
from roadmap.program import train_command
from roadmap.show.tables import ladder_rows
from roadmap.steps import DEFAULT, ROADMAPS, Roadmap

COMMANDS = (
    ("{train} +step=kernel_7", "train a step: minutes on a laptop (digits, demo budget)"),
    ("{train} +step=kernel_7 design.kernel_size=13", "any flag of the network by hand"),
    ("{train} +step=separate_downsampling 'drop=[kernel_7]'", "ConvNeXt without one change"),
    ("{train} +step=enhanced_recipe 'add=[gelu,layer_norm]'", "ResNet-50 plus two changes"),
    ("{train} +step=gelu 'recipe.without=[mixup]' budget=proxy data=cifar10", "without a training technique"),
    ("{train} -m +step=depthwise,kernel_7 seed=0,1,2", "a sweep"),
    ("{train} +study=ladder", "the whole ladder, planned, resumable; roadmap=NAME for another"),
    ("{train} +step=kernel_7 --cfg job", "print the config instead of training"),
    ("python -m roadmap explain kernel_7", "what a step changes in the network"),
)
GROUPS = ("roadmap", "regime", "recipe", "budget", "data", "logger", "launcher", "+study")


def help_page(road: Roadmap = DEFAULT) -> str:
    """The page as text, with the steps of a roadmap."""
    regime, train = road.regimes[0], train_command()
    lines = [f"Train any step of a published ladder. {road.title}: {road.source}.", ""]
    lines += [f"Steps in ladder order, with the published ImageNet top-1 and the GMACs as counted (regime {regime}):"]
    for step, counted in zip(road.steps, ladder_rows(regime, road.image_size, road=road), strict=True):
        row = road.row(step.name, regime)
        numbers = f"{row.top1:5.2f} %  {counted['gmacs']:5.2f} GMACs  {row.label}" if row else ""
        lines.append(f"  +step={step.name:<22} {numbers}".rstrip())
    lines += ["", "Other ladders (roadmap=NAME --help lists their steps):"]
    lines += [f"  roadmap={other.name:<15} {other.title}" for other in ROADMAPS.values() if other is not road]
    lines += ["", "Commands worth knowing:"]
    lines += [f"  {command.format(train=train):<78} {meaning}" for command, meaning in COMMANDS]
    lines += ["", "Groups (GROUP=NAME):"]
    for group in GROUPS:
        lines.append(f"  {group + '=':<10} {', '.join(sorted(found(group.lstrip('+'))))}")
    lines += ["", f"All keys and their values: {train} --cfg job. Hydra's own options: {train} --hydra-help"]
    return "\n".join(lines)
