"""`python -m experiments push TARGET USER/NAME`: a trained network, with its model card, to the Hugging Face Hub."""

import argparse
import tempfile
from pathlib import Path

from experiments.commands.export import hub_folder
from experiments.commands.target import add_target, network_of
from experiments.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    add_target(parser)
    parser.add_argument("repository", metavar="USER/NAME", help="on the Hub; made where it does not exist")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--message", default="Add a network of convnext-roadmap", help="of the commit")


def run(options: argparse.Namespace) -> int:
    """Upload and print the address. The token is the one that `hf auth login` keeps, or HF_TOKEN."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

    model = network_of(options)
    api = HfApi()
    with tempfile.TemporaryDirectory() as folder:
        options.out = Path(folder) / "hub"
        hub_folder(model, options)
        card = options.out / "README.md"
        card.write_text(card.read_text().replace("USER/NAME", options.repository))
        try:
            api.create_repo(options.repository, private=options.private or None, exist_ok=True)
            done = api.upload_folder(
                repo_id=options.repository, folder_path=options.out, commit_message=options.message
            )
        except (HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OSError) as error:
            raise ConfigError(f"push {options.repository}: {_reason(error)}") from None
    print(done.commit_url)
    return 0


def _reason(error: Exception) -> str:
    """The first line that says something; a missing or refused token as what to do about it."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return "the Hub does not accept the token: log in with `hf auth login`, or set HF_TOKEN"
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200]
