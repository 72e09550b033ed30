"""Every format: complete, deterministic, and safe against hostile text."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from rich.console import Console

from edgeprivacy.errors import DataError, UsageError
from edgeprivacy.report import render, words, write, writers
from edgeprivacy.report.terminal import show, summary
from edgeprivacy.results import Audit

FORMATS = ("json", "html", "html-fragment", "markdown", "terminal", "junit", "sarif")
VOID = {"meta", "br", "link", "img", "hr", "input", "use", "path"}


class Page(HTMLParser):
    """Elements, attributes and visible text of a page; notes tags that do not close in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.crossed: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.crossed.append(tag)

    def handle_data(self, data: str) -> None:
        if "style" not in self.open and "title" not in self.open:
            self.text.append(data)


def shown(text: str) -> str:
    return " ".join(" ".join(Page(text).text).split())


def test_the_registry_lists_the_formats() -> None:
    assert sorted(writers.names()) == sorted(FORMATS)
    with pytest.raises(UsageError, match="did you mean 'html'"):
        render(Audit("none", 0, None, {}, (), ()), "htlm")


@pytest.mark.parametrize("name", ["audit", "confounded", "hostile", "barren"])
@pytest.mark.parametrize("format", FORMATS)
def test_same_audit_same_bytes(
    samples: dict[str, Audit], pages: dict[str, str], name: str, format: str, tmp_path: Path
) -> None:
    first = pages[name] if format == "html" else render(samples[name], format)
    # Read back from its own JSON, an audit renders to the same text.
    again = Audit.from_dict(json.loads(render(samples[name], "json")))
    assert again == samples[name]
    write(again, format, tmp_path / "deep" / "file")
    assert (tmp_path / "deep" / "file").read_text(encoding="utf-8") == first


def test_json_is_what_save_writes(audit: Audit, tmp_path: Path) -> None:
    audit.save(tmp_path / "audit.json")
    assert render(audit, "json") == (tmp_path / "audit.json").read_text(encoding="utf-8")
    content = json.loads(render(audit, "json"))
    assert content["schema"] == "edgeprivacy.audit/1"
    attack = content["artifacts"][1]["attacks"][2]
    assert attack["metrics"]["tpr_at_fpr"][0]["definition"] == "step_le"
    assert attack["metrics"]["balanced_accuracy"]["threshold"] == "shadow"
    assert "auc" not in attack and attack["skipped"] is None
    assert Audit.load(tmp_path / "audit.json") == audit


@pytest.mark.parametrize(
    "damage",
    [
        lambda c: c.pop("verdict"),
        lambda c: c.update(schema="edgeprivacy.audit/9"),
        lambda c: c.update(artifacts=3),
        lambda c: c.update(artifacts=[{}]),
        lambda c: c.update(verdict="maybe"),
        lambda c: c["artifacts"][0].update(size_bytes="large"),
        lambda c: c["artifacts"][0].update(role="king"),
        lambda c: c["artifacts"][0]["attacks"][0].pop("metrics"),
        lambda c: c["artifacts"][0]["attacks"][0]["metrics"]["auc"].update(value="high"),
        lambda c: c["artifacts"][0]["attacks"][0]["metrics"]["auc"].update(ci=[0.5]),
        lambda c: c["artifacts"][0]["attacks"][0]["roc"].update(fpr=["a"]),
        lambda c: c["gates"][0].update(ci="wide"),
    ],
)
def test_a_damaged_audit_is_one_clear_error(audit: Audit, damage: Any) -> None:
    content = json.loads(render(audit, "json"))
    damage(content)
    with pytest.raises(DataError) as caught:
        Audit.from_dict(content)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"schema": 1}', "[" * 100_000, '{"a": NaN}'])
def test_a_file_that_is_no_audit(content: str, tmp_path: Path) -> None:
    path = tmp_path / "audit.json"
    path.write_text(content)
    with pytest.raises(DataError):
        Audit.load(path)


@pytest.mark.parametrize("name", ["audit", "confounded", "hostile", "barren"])
def test_html_is_well_formed_and_self_contained(pages: dict[str, str], name: str) -> None:
    text = pages[name]
    page = Page(text)
    assert text.startswith("<!doctype html>")
    assert page.crossed == [] and page.open == []
    tags = {tag for tag, _ in page.tags}
    assert tags.isdisjoint({"script", "link", "img", "iframe", "object", "embed", "form", "base"})
    for tag, attributes in page.tags:
        assert not any(key.startswith("on") for key in attributes), tag
        for key in ("href", "src", "xlink:href"):
            assert (attributes.get(key) or "#").startswith("#")
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style and "@import" not in style
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    viewport = next(a for t, a in page.tags if t == "meta" and a.get("name") == "viewport")
    assert "width=device-width" in (viewport["content"] or "")


def test_every_table_scrolls_in_its_own_box(pages: dict[str, str]) -> None:
    text = pages["audit"]
    assert text.count("<table>") == len(re.findall(r'<div class="scroll">\s*<table>', text)) > 8


def test_html_starts_with_the_verdict(pages: dict[str, str]) -> None:
    assert shown(pages["audit"]).startswith("Fail. 15.4% of the members are found at 1% false positives")
    text = shown(pages["confounded"])
    assert text.startswith("Inconclusive. A null test failed (held out as members)")
    told = text.index("701 test rows through the members' path are told from non-members with AUC 0.83")
    assert told < text.index("The members' side is loaded") < 600
    assert text.index("no finding about the model") < text.index("An attacker holds")
    assert "no finding about the model" not in shown(pages["audit"])
    for status in ("passed", "failed", "not run"):
        assert status in text
    assert "a difference in loading stays unseen" in text


def test_html_holds_every_number_and_fact(audit: Audit, pages: dict[str, str]) -> None:
    text = shown(pages["audit"])
    for artifact in audit.artifacts:
        worst = artifact.worst_attack()
        assert worst is not None and worst.auc is not None
        entry = worst.tpr(0.01)
        assert entry is not None and artifact.utility.test_accuracy is not None
        assert f"{artifact.utility.test_accuracy.value * 100:.1f}%" in text
        assert f"{entry.value * 100:.1f}% [{entry.ci[0] * 100:.1f}, {entry.ci[1] * 100:.1f}]" in text
        assert f"{worst.auc.value:.3f} [{worst.auc.ci[0]:.3f}, {worst.auc.ci[1]:.3f}]" in text
        for attack in artifact.attacks:
            assert attack.auc is None or f"{attack.auc.value:.3f}" in text
    for fact in (
        "dense/MatMul",
        "256 × 446",
        "60.0%",
        "FULLY_CONNECTED",
        "LiteRT 2.3.0",
        "environment",
        "812.4",
    ):
        assert fact.lower() in text.lower()
    assert "skipped: needs population rows" in text
    assert "at most 12 of 1,250 outsiders" in text and "names 193 of the 1,250 members" in text
    assert text.count("true-positive rate") >= len(audit.artifacts)  # one ROC a file, its labels real text
    assert audit.notes[0] in text


def test_audit_without_curves_or_rows(barren: Audit, pages: dict[str, str]) -> None:
    text = shown(pages["barren"])
    assert text.startswith("Inconclusive. The evidence does not decide auc > 0.6.")
    assert "every attack was skipped" in text and "needs 2 or more shadows, there are 0" in text
    assert "None was run: nothing vouches for the measurement." in text
    assert "<svg" not in pages["barren"]
    assert "all skipped" in render(barren, "terminal")
    bare = replace(barren, artifacts=(), gates=(), verdict="none", exit_code=0)
    for format in FORMATS:
        assert render(bare, format)


def test_hostile_text_stays_text(hostile: Audit, pages: dict[str, str]) -> None:
    for text in (pages["hostile"], render(hostile, "html-fragment")):
        assert "<script" not in text and "&lt;script&gt;alert" in text
        assert "\x1b" not in text and "\x00" not in text and "\u202e" not in text
    markdown = render(hostile, "markdown")
    assert "<script" not in markdown and "\x1b" not in markdown
    table = [line for line in markdown.splitlines() if line.startswith("|")]
    for line in table:
        cells = len(re.findall(r"(?<!\\)\|", line))
        assert cells in (5, 8, 9), line  # a name with a bar adds no cell
    terminal = render(hostile, "terminal")
    assert "\x1b" not in terminal and "\u202e" not in terminal and "[red]" in terminal
    stream = io.StringIO()
    Console(file=stream, force_terminal=True, width=100).print(summary(hostile, 100))
    assert "\x1b[31m\N{REPLACEMENT CHARACTER}" not in stream.getvalue()
    names = [
        case.get("name") or "" for case in ElementTree.fromstring(render(hostile, "junit")).iter("testcase")
    ]
    assert any(name.startswith("<script>alert('x')</script>") for name in names)


def test_markdown_tables(audit: Audit, confounded: Audit) -> None:
    text = render(audit, "markdown")
    assert text.startswith("## Fail. 15.4% of the members")
    assert "| prune60-int8.wemem | candidate | 150.6 KiB (75.3 KiB) | 61.8% " in text
    blocks = re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)
    assert len(blocks) == 4
    for block in blocks:
        assert len({line.count("|") for line in block.splitlines()}) == 1
    second = render(confounded, "markdown").splitlines()[2]
    assert second.startswith("> **Null test failed: held out as members.**")


def test_terminal_table(audit: Audit, confounded: Audit) -> None:
    text = render(audit, "terminal")
    line = next(line for line in text.splitlines() if line.startswith("prune60-int8.wemem"))
    for part in ("150.6 KiB (75.3 KiB)", "61.8% [58.2, 65.4]", "lira.online", "15.4% [13.4, 17.4]", "0.731"):
        assert part in line
    assert "FAIL" in text and "Note: Every file was trained on half" in text
    assert render(confounded, "terminal").startswith("Null test failed: held out as members.")
    stream = io.StringIO()
    show(audit, stream)
    assert "\x1b" not in stream.getvalue()
    narrow = io.StringIO()
    Console(file=narrow, width=80, color_system=None).print(summary(audit, 80))
    assert max(len(line) for line in narrow.getvalue().splitlines()) <= 80
    assert "prune60-float32.wemem" in narrow.getvalue()
    coloured = io.StringIO()
    Console(file=coloured, force_terminal=True, color_system="standard", width=150).print(
        summary(confounded, 150)
    )
    assert coloured.getvalue().startswith("\x1b[1;31mNull test failed")


def test_junit_cases(audit: Audit, confounded: Audit, barren: Audit) -> None:
    root = ElementTree.fromstring(render(audit, "junit"))
    suites = {suite.get("name"): suite for suite in root}
    assert list(suites) == ["null tests", "gate tpr@1%fpr > 0.1", "gate accuracy < 0.5"]
    gate = suites["gate tpr@1%fpr > 0.1"]
    assert len(gate) == 10  # two candidates, five attacks; controls and original are not there
    assert {case.get("classname") for case in gate} == {"prune60-float32.wemem", "prune60-int8.wemem"}
    for case in gate:
        artifact = next(a for a in audit.artifacts if a.name == case.get("classname"))
        attack = artifact.attack(case.get("name") or "")
        assert attack is not None
        entry = attack.tpr(0.01)
        expected = "skipped" if entry is None else "failure" if entry.value > 0.1 else None
        assert [child.tag for child in case] == ([expected] if expected else [])
    for suite in (root, *root):
        for kind, tag in (("tests", "testcase"), ("failures", "failure"), ("skipped", "skipped")):
            assert int(suite.get(kind) or -1) == len(list(suite.iter(tag)))
    assert ElementTree.fromstring(render(confounded, "junit"))[0].get("failures") == "1"
    # A gate without any measured case is still red.
    assert ElementTree.fromstring(render(barren, "junit")).get("errors") == "1"
    values = ElementTree.fromstring(render(replace(audit, gates=(), verdict="none"), "junit"))
    assert values.get("failures") == "0" and "AUC 0.731" in "".join(values.itertext())
    unknown = replace(audit.gates[0], canonical="epsilon > 3")
    told = ElementTree.fromstring(render(replace(audit, gates=(unknown,)), "junit"))
    assert told.get("failures") == "1"


def test_fragment_is_what_a_notebook_shows(audit: Audit) -> None:
    text = audit._repr_html_()
    assert text == render(audit, "html-fragment")
    assert len(text) < 6000 and "<html" not in text and "<style" not in text
    assert Page(text).crossed == []


def test_common_limit_is_the_smallest_supported_by_all(audit: Audit) -> None:
    limit = words.common_limit(audit)
    assert limit is not None and (limit.fpr, limit.support) == (0.01, "ok")
    few = replace(
        audit,
        artifacts=tuple(
            replace(
                artifact,
                attacks=tuple(
                    replace(
                        attack, tpr_at_fpr=tuple(replace(e, support="low") for e in attack.tpr_at_fpr[:2])
                    )
                    for attack in artifact.attacks
                ),
            )
            for artifact in audit.artifacts
        ),
    )
    limit = words.common_limit(few)
    assert limit is not None and (limit.fpr, limit.support) == (0.001, "low")
    assert "(low support)" in render(few, "terminal")


@pytest.mark.parametrize(
    ("share", "text"), [(0.1544, "15.4%"), (0.0004, "0.04%"), (0.0, "0.0%"), (1.0, "100.0%"), (0.004, "0.4%")]
)
def test_percent(share: float, text: str) -> None:
    assert words.percent(share) == text
