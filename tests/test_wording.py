"""The library's sentences name fields; the command line translates them, and nothing of the library names an option."""

import ast
import dataclasses
import re
from inspect import signature
from pathlib import Path

import pytest
from command_samples import command
from vocabtransfer_cli.fields import Fields, field_docs
from vocabtransfer_cli.main import app
from vocabtransfer_cli.wording import as_options, speaking_of_options

import vocabtransfer as vt
from vocabtransfer.errors import UsageError

HOME = Path(vt.__file__).parent
OPTION = re.compile(r"(?<![\w-])--[a-z{][\w-]*")
#: Command lines of other programs, of programs of their own, and what follows `vocabtransfer` in a command to give.
OTHERS = {
    "corpora/identification.py",
    "corpora/language_table.py",
    "corpora/rebuild.py",
    "corpora/services.py",
    "export/gguf_settings.py",
    "files/packages.py",
    "files/text_files.py",
    "pipeline/presets.py",
}
COMMAND = re.compile(r"`(vocabtransfer )?(adapt|build|corpus|evaluate|serve) [^`]*`|``--json``")


def literals(file: Path) -> list[str]:
    """The texts of a file; of an f-string all of it, with {} for what is filled in."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    joined = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
    parts = {id(part) for node in joined for part in node.values}
    found = [
        "".join(str(part.value if isinstance(part, ast.Constant) else "{}") for part in node.values) for node in joined
    ]
    return found + [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts
    ]


def test_no_sentence_of_the_library_names_an_option() -> None:
    said = {
        f"{file.relative_to(HOME)}: {text.strip()[:90]}"
        for file in HOME.rglob("*.py")
        if file.relative_to(HOME).as_posix() not in OTHERS
        for text in literals(file)
        if OPTION.search(COMMAND.sub("", text))
    }
    assert not said


class Parameter:
    def __init__(self, name: str, *opts: str, kind: str = "option") -> None:
        self.name, self.opts, self.param_type_name, self.metavar = name, opts, kind, None


PARAMETERS = [
    Parameter("text", "--text"),
    Parameter("stage", "--stage", "-s"),
    Parameter("overwrite", "--overwrite"),
    Parameter("method", "--method"),
    Parameter("model", kind="argument"),
]


@pytest.mark.parametrize(
    ("field", "option"),
    [
        ("give `text`.", "give --text."),
        ("`stages` x: no", "--stage x: no"),
        ("add `overwrite=True`", "add --overwrite"),
        ("take `method='pieces'`", "take --method pieces"),
        ("another `model`", "another MODEL"),
        ("`teacher` and `vocabtransfer build`", "`teacher` and `vocabtransfer build`"),
        ("the token '`text'", "the token '`text'"),
    ],
)
def test_fields_become_options_of_the_running_command(field: str, option: str) -> None:
    with speaking_of_options(PARAMETERS):
        assert as_options(field) == option
    assert as_options(field) == field
    with pytest.raises(UsageError) as refused, speaking_of_options(PARAMETERS):
        raise UsageError(field)
    assert str(refused.value) == option


def test_the_same_mistake_in_python_and_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "text.txt"
    text.write_text("сәлам\n", encoding="utf-8")
    request = vt.AdaptRequest(model="smollm2", text=text, output=tmp_path / "out", patience=2)
    with pytest.raises(UsageError, match=r"^`patience` needs `held_out`"):
        vt.adapt(request)
    words = ("adapt", "smollm2", "--text", str(text), "--output", str(tmp_path / "out"), "--patience", "2")
    code, _, err = command(capsys, *words)
    assert code == 2 and "--patience needs --held-out" in err and "`" not in err


#: Options that say a default in words, or another way than the field.
OTHERWISE = {"output", "source_language", "memory", "device", "dtype"}


def test_a_build_option_is_a_field_with_its_words_and_its_default() -> None:
    build = next(each.callback for each in app.registered_commands if each.callback.__name__ == "build")
    options = {name: each.default for name, each in signature(build).parameters.items()}
    fields = {field.name: field for field in dataclasses.fields(vt.BuildRequest)}
    docs = field_docs("pipeline.request", "BuildRequest")
    assert options.keys() - {"dry_run", "as_json"} == fields.keys() == docs.keys()
    for name in fields.keys() - OTHERWISE:
        assert Fields("pipeline.request", "BuildRequest").help(name) in options[name].help
        default, given = fields[name].default, options[name].default
        assert given in ([], ...) if default in ((), dataclasses.MISSING) else given == default, name


def test_words_of_a_field() -> None:
    fields = Fields("pipeline.request", "BuildRequest")
    assert fields.help("into") == "The Hydra that --as-head goes into; made from the source when there is none."
    assert fields.help("romanize", "More.") == "Put a romanizer in front of the trained tokenizer. More."
