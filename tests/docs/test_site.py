"""The documentation site: it builds, is complete, its links lead somewhere, and it needs no other host."""

import ast
import re
import shlex
import shutil
import subprocess
import sys
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import pytest

from rlhf_eval.analysis.columns import COLUMNS
from rlhf_eval.arguments import build_parser

ROOT = Path(__file__).parents[2]
PLAIN_PAGES = [
    ROOT / "README.md",
    ROOT / "AGENTS.md",
    ROOT / "launch/README.md",
    *(ROOT / "docs").rglob("*.md"),
]


def build(root: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=root,
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    built = build(ROOT, folder)
    assert built.returncode == 0, built.stderr
    return folder


class Page(HTMLParser):
    """A built page: its visible text, ids, elements with attributes, and paragraphs."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.feed(html)
        self.ids = {attributes["id"] for _, attributes in self.elements if "id" in attributes}
        self.text = " ".join("".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@cache
def page(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def messages() -> str:
    """The texts that the program puts together, a line each, with … for what is put in."""
    found = []
    for module in (ROOT / "rlhf_eval").rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
                found.append("".join(map(str, parts)).replace("\n", " "))
    return "\n".join(found)


def test_the_messages_that_the_page_explains_are_the_programs_own() -> None:
    section = (
        (ROOT / "docs/launch.md").read_text(encoding="utf-8").partition("## 9.")[2].partition("\n## ")[0]
    )
    seen = [row.split("|")[1] for row in section.splitlines() if row.startswith("| ")]
    quoted = [text for cell in seen for text in re.findall(r"`([^`]*…[^`]*)`", cell)]
    assert len(quoted) > 8
    known = messages()
    for text in quoted:
        pattern = ".*".join(map(re.escape, text.split("…")))
        assert re.search(f"^.*{pattern}", known, re.MULTILINE), f"no message says {text!r}"


def commands(page: Path) -> list[str]:
    """The lines of a page that are typed, a continued one put together."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    return re.findall(r"^(?:    |  - `)?(rlhf-eval .*)$", text, re.MULTILINE)


@pytest.mark.parametrize("page", PLAIN_PAGES, ids=lambda page: page.name)
def test_every_command_line_of_a_page_is_one(page: Path) -> None:
    parser, known = build_parser()
    for line in commands(page):
        words = shlex.split(line, comments=True)[1:]
        assert words[0] in known or words[0].startswith("-"), line
        if words[0] in known:
            _, rest = parser.parse_known_args(words)
            assert not [word for word in rest if word.startswith("-") and "=" not in word], line


def schema_fields() -> list[tuple[str, str, str]]:
    """Class, field and docstring of every field of the schema, read from the source."""
    found = []
    for module in sorted((ROOT / "rlhf_eval/config").glob("*schema.py")):
        for schema in ast.parse(module.read_text(encoding="utf-8")).body:
            if not isinstance(schema, ast.ClassDef):
                continue
            for field, words in zip(schema.body, schema.body[1:], strict=False):
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                    assert isinstance(words, ast.Expr), f"{schema.name}.{field.target.id} has no docstring"
                    assert isinstance(words.value, ast.Constant)
                    found.append((schema.name, field.target.id, str(words.value.value)))
    return found


def test_configuration_has_every_field_of_the_schema(site: Path) -> None:
    reference = page(site / "reference/configuration.html")
    names = {path.rpartition(".")[2] for path in reference.ids}
    fields = schema_fields()
    assert len(fields) > 150
    for schema, field, words in fields:
        assert field in names, f"{schema}.{field}"
        assert " ".join(re.sub(r"[`*]", "", words).split()) in reference.text.replace("*", ""), (
            f"{schema}.{field}"
        )
    assert reference.ids >= {
        "seed",
        "policy.size",
        "algorithm.steps",
        "algorithm.rollout.engine",
        "reward_model.ensemble.members.name.scale",
        "benchmarks.name.data",
        "cluster.jobs.name.partition",
    }


def test_configuration_says_what_a_field_takes_and_whether_it_changes_results(site: Path) -> None:
    text = page(site / "reference/configuration.html").text
    for said in (
        "Seed of training and sampling. whole number at least 0; no default; enters hash8.",
        "CPU threads of torch in this run. whole number above 0; default 1; does not enter hash8.",
        "Nodes. whole number above 0 or null; default null; does not enter hash8.",
    ):
        assert said in text


def test_cli_has_every_option_of_every_command(site: Path) -> None:
    reference = page(site / "reference/cli.html")
    for command in build_parser()[1]:
        words = [sys.executable, "-m", "rlhf_eval", *command.split(), "--help"]
        shown = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        options = set(re.findall(r"^  (?:-\w, )?--([a-z-]+)", shown, re.MULTILINE)) - {"help"}
        assert "debug" in options
        path = command.replace(" ", "-")
        assert path in reference.ids
        assert {f"{path}.{option}" for option in options} <= reference.ids


def test_choices_columns_and_json_are_complete(site: Path) -> None:
    choices = page(site / "reference/choices.html").text
    for choice in (ROOT / "conf").glob("*/*.yaml"):
        assert choice.stem in choices.split(), choice
    columns = page(site / "reference/columns.html").text
    for column in COLUMNS:
        assert f"{column.name} {column.meaning.replace('`', '')}" in columns, column.name
    contract = page(site / "reference/json.html").text
    for command, parser in build_parser()[1].items():
        if "--json" in parser.format_help():
            assert command in contract, command


def test_no_page_loads_anything_from_another_host(site: Path) -> None:
    loading = {"src", "srcset", "poster", "data", "xlink:href"}
    pages = [page(path) for path in site.rglob("*.html")]
    assert len(pages) > 20
    for one in pages:
        for tag, attributes in one.elements:
            loaded = [attributes[name] for name in loading & attributes.keys()]
            loaded += [attributes["href"]] if tag in ("link", "use", "image") and "href" in attributes else []
            assert not [address for address in loaded if re.match(r"(?:\w+:)?//", address)], (tag, attributes)
            # The theme's script fetches a library from elsewhere as soon as a page has such a diagram.
            assert "mermaid" not in attributes.get("class", "").split()
    for style in site.rglob("*.css"):
        assert not re.search(
            r"""(?:url\(|@import)\s*["']?(?:https?:)?//""", style.read_text(encoding="utf-8")
        ), style


def test_links_to_other_hosts_are_encrypted(site: Path) -> None:
    for path in site.rglob("*.html"):
        for tag, attributes in page(path).elements:
            address = attributes.get("href", "")
            if tag == "a" and ":" in address:
                assert re.fullmatch(r"https://[\w.-]+\.\w+(?:/\S*)?|#\S+", address), (path.name, address)


def test_lists_tables_and_code_are_seen_as_such(site: Path) -> None:
    """What reads well as plain text may be no list to MkDocs, for want of an empty line or of spaces."""
    for path in site.rglob("*.html"):
        html = path.read_text(encoding="utf-8")
        for paragraph in re.findall(r"<p>.*?</p>", html, re.DOTALL):
            assert not re.search(r"^\s*(?:<p>)?(?:[-*|] |\d+\. |```)", paragraph, re.MULTILINE), (
                path.name,
                paragraph,
            )


@pytest.mark.parametrize("path", PLAIN_PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_files_of_a_plain_page_are_there(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    prose = re.sub(r"^```.*?^```|`[^`\n]*`", "", text, flags=re.DOTALL | re.MULTILINE)
    for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", prose):
        generated = "reference/" in link
        assert "://" in link or generated or (path.parent / link).exists(), link
    if "adding" not in path.parts:  # there, files are named that the reader makes
        for name in re.findall(r"`((?:docs|bench|launch|tests|rlhf_eval)/[\w./-]+)`", text):
            assert (ROOT / name).exists(), name


def test_a_broken_link_or_anchor_fails_the_build(tmp_path: Path) -> None:
    for name in ("docs", "README.md", "mkdocs.yml"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    index = tmp_path / "docs/index.md"
    index.write_text(f"{index.read_text()}\n[a](nowhere.md) [b](training.md#nowhere) [c](/training.html)\n")
    built = build(tmp_path, tmp_path / "site")
    assert built.returncode == 1
    for broken in ("nowhere.md", "training.md#nowhere", "/training.html"):
        assert f"'{broken}'" in built.stderr
