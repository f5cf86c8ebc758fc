"""`python run.py ...` with a clock: reports when each part of the way to the first optimizer step was over, then ends.

Nothing is left out or done earlier than in run.py itself, except that the modules whose functions are watched are
imported before these are called, in the order in which run.py would import them.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

from experiments.bench.clock import Clock


def main() -> None:
    """Run run.py's main with the arguments of this process."""
    mark = Clock()
    mark("interpreter")
    from experiments.commands.train import main as command

    mark("imports of the command line")
    from experiments.config import compose
    from experiments.runtime.imports import imports_kept

    def watch_training() -> None:
        mark("composed")
        with imports_kept():
            from torch.optim.optimizer import register_optimizer_step_post_hook

            import experiments.training.run as train

        mark("imports of torch and the engine")
        _after(train, "open_data", lambda: mark("data opened"))
        _after(train, "resume", lambda: mark("network built"))
        register_optimizer_step_post_hook(lambda *_: mark.end("first step"))

    _after(compose, "settings_from", watch_training)
    command()


def _after(module: Any, name: str, then: Callable[[], None]) -> None:
    """Call `then` whenever the module's function returns."""
    function = getattr(module, name)

    @wraps(function)
    def watched(*args: Any, **kwargs: Any) -> Any:
        value = function(*args, **kwargs)
        then()
        return value

    setattr(module, name, watched)


if __name__ == "__main__":
    main()
