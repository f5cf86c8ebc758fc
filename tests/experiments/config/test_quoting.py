"""Values reach Hydra and a shell as they are, whatever they hold."""

import random
import shlex
import subprocess

import pytest

from experiments.config.compose import settings_from
from experiments.config.quoting import command, override
from experiments.config.schema import compose
from roadmap.errors import UserError

LETTERS = "aB1 '\"\\${}[](),:=%!é漢~#;|&<>*?@^`\t\n-+./"
NAMED = (
    *("o'brien", "a b", "a,b=c", "[x]", "$HOME", "${seed}", "\\${seed}", "\\", "it's \\' all", "%s {0}", "名前"),
    *("null", "true", "1e3", "-inf", "0x1", "1_000", "+step=x", "~/runs", "/plain/path-1.2_3", "../up"),
)


@pytest.mark.parametrize("text", NAMED)
def test_a_value_is_read_as_it_was_meant(text: str) -> None:
    assert compose([override("runs_dir", text)])["runs_dir"] == text


def test_any_text_is_read_as_it_was_meant() -> None:
    chosen = random.Random(0)
    texts = ["".join(chosen.choices(LETTERS, k=chosen.randint(1, 8))) for _ in range(20)]
    keys = ("runs_dir", "data.root", "init_from")  # several at once: composing takes a tenth of a second
    for at in range(0, len(texts) - 2, 3):
        own = texts[at : at + 3]
        config = compose([override(key, text) for key, text in zip(keys, own, strict=True)])
        assert [config["runs_dir"], config["data"]["root"], config["init_from"]] == own


def test_plain_values_are_not_quoted() -> None:
    assert override("runs_dir", "out/runs-1") == "runs_dir=out/runs-1"


def test_a_shell_hands_the_words_on() -> None:
    words = [override("runs_dir", text) for text in NAMED]
    assert shlex.split(command(words)) == words
    done = subprocess.run(["sh", "-c", f"printf '%s\\0' {command(words)}"], capture_output=True, text=True, check=True)
    assert done.stdout.split("\0")[:-1] == words


REFUSED = (
    *("data=-1", "budget=False", "data=1e16", "+step=[[]]", "+study=[[]]", "roadmap=[]", "budget='\\0'", "add=[[]]"),
    *("drop=[[1]]", "runs_dir=/a/\udcff", "+step='\udcff'", "batch.micro=1" + "0" * 400, "recipe.lr=1" + "0" * 400),
    *("seed=-1" + "0" * 400, "recipe.opt={eps: 1" + "0" * 400 + "}"),
)


@pytest.mark.parametrize("text", REFUSED)
def test_an_override_of_another_type_is_one_line(text: str) -> None:
    with pytest.raises(UserError) as caught:
        settings_from(compose(["device=cpu", text.replace("\\0", "\0")]))
    assert "\n" not in str(caught.value)


def test_names_and_lists_of_names_are_read() -> None:
    assert compose(["logger=[wandb,tensorboard]", "data='digits'", "+step=gelu"])["step"] == "gelu"
