"""Tables in the paper's form: exact texts, holes, hostile names."""

import re

import pytest
from summaries import (
    TWO,
    full_summary,
    holed_summary,
    stamped,
    summary,
)

from lska_jax.robustness.report import (
    corruption_grid,
    latex,
    markdown,
    paper_grid,
    set_grid,
)
from lska_jax.robustness.report.names import grouped_parts

HOSTILE = "<script>alert(1)</script> 50% $x_1$ & {a} | #~^\\"


def test_the_markdown_table_in_the_papers_form_is_this_text():
    assert markdown(paper_grid(TWO)) == (
        "**Robustness in the paper's form, in %**\n"
        "\n"
        "| Model | ImageNet top-1 ↑ | ImageNet-C mCE (15) ↓ |\n"
        "| --- | ---: | ---: |\n"
        "| lska | 75.1 | 60.9 |\n"
        "| lka | **75.4** | **55.4** |\n"
    )


def test_the_latex_table_in_the_papers_form_is_this_text():
    assert latex(paper_grid(TWO)) == "\n".join(
        [
            r"% needs \usepackage{booktabs}",
            r"\begin{table}[t]",
            r"\centering",
            r"\caption{Robustness in the paper's form, in \%}",
            r"\label{tab:paper}",
            r"\begin{tabular}{lrr}",
            r"\toprule",
            r"& \multicolumn{1}{c}{ImageNet} & \multicolumn{1}{c}{ImageNet-C} \\",
            r"\cmidrule(lr){2-2} \cmidrule(lr){3-3}",
            r"Model & top-1 $\uparrow$ & mCE (15) $\downarrow$ \\",
            r"\midrule",
            r"lska & 75.1 & 60.9 \\",
            r"lka & \textbf{75.4} & \textbf{55.4} \\",
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def test_the_table_by_corruption_has_the_papers_groups_and_all_columns():
    grid = corruption_grid([full_summary("a", 0.7)], "imagenet_c", "ce")
    assert grid.groups == (
        ("Mean", 2),
        ("Noise", 3),
        ("Blur", 4),
        ("Weather", 4),
        ("Digital", 4),
        ("Extra", 4),
    )
    assert [column.label for column in grid.columns[:6]] == [
        "mCE (15)",
        "mCE (19)",
        "Gauss.",
        "Shot",
        "Impulse",
        "Defocus",
    ]
    text = latex(grid)
    assert r"\begin{tabular}{l" + "r" * 21 + "}" in text
    assert r"\cmidrule(lr){2-3} \cmidrule(lr){4-6} \cmidrule(lr){7-10}" in text


def test_the_table_by_corruption_shows_the_hole_and_no_mean():
    (_, entries), *_ = corruption_grid([holed_summary("a")], "imagenet_c", "ce").rows
    grid = corruption_grid([holed_summary("a")], "imagenet_c", "ce")
    texts = {c.label: e.text for c, e in zip(grid.columns, entries, strict=True)}
    assert texts["mCE (15)"] == texts["mCE (19)"] == texts["Frost"] == "missing"
    # The others are what they are: 1 - 0.7 + 0.2 over 0.8.
    assert texts["Fog"] == "62.5"


def test_a_table_by_corruption_of_nothing_is_refused():
    with pytest.raises(ValueError, match=r"No model has 'ce' for the parts of 'cifar10_c'"):
        corruption_grid(TWO, "cifar10_c", "ce")


def test_corruptions_of_no_group_stand_together_and_untitled_if_alone():
    assert grouped_parts(["sparkles", "fog", "snow"]) == [
        ("Weather", ["snow", "fog"]),
        ("Other", ["sparkles"]),
    ]
    assert grouped_parts(["sparkles", "waves"]) == [("", ["sparkles", "waves"])]


def test_a_set_outside_imagenet_has_its_columns_in_the_papers_form():
    scores = {"cifar10/top1": 0.9, "cifar10_c/mean_error": stamped(0.3, provenance="generated")}
    text = markdown(paper_grid([summary("a", scores)]))
    assert "| Model | CIFAR-10 top-1 ↑ | CIFAR-10-C mean error ↓ |" in text
    assert "| a | 90.0 | 30.0<sup>g</sup> |" in text


def test_the_variants_of_a_set_are_columns_of_its_table():
    scores = {"imagenet_v2/top1/top-images": 0.7, "imagenet_v2/top1/threshold-0.7": 0.6}
    grid = set_grid([summary("a", scores)], "imagenet_v2")
    assert [column.label for column in grid.columns] == [
        "top-1 top-images",
        "top-1 threshold-0.7",
    ]


def test_the_best_of_a_column_may_be_several_and_needs_two():
    same = [summary(name, {"imagenet/top1": value}) for name, value in (("a", 0.70004), ("b", 0.7))]
    assert markdown(paper_grid(same)).count("**70.0**") == 2
    assert "**70.0**" not in markdown(paper_grid(same[:1]))


def test_hostile_names_are_escaped_in_markdown():
    text = markdown(paper_grid([summary(HOSTILE, {"imagenet/top1": 0.5})]))
    (row,) = (line for line in text.splitlines() if "script" in line)
    assert "<script" not in row
    assert row.startswith(r"| &lt;script&gt;alert(1)&lt;/script&gt; 50% $x\_1$ &amp; {a} \| \#")
    # Two columns: nothing of the name opened a third.
    assert len(re.findall(r"(?<!\\)\|", row)) == 3


def test_hostile_names_are_escaped_in_latex():
    text = latex(paper_grid([summary(HOSTILE, {"imagenet/top1": 0.5})]))
    (row,) = (line for line in text.splitlines() if "script" in line)
    assert row == (
        r"\textless{}script\textgreater{}alert(1)\textless{}/script\textgreater{} 50\% \$x\_1\$ "
        r"\& \{a\} \textbar{} \#\textasciitilde{}\textasciicircum{}\textbackslash{} & 50.0 \\"
    )


def test_latex_braces_and_environments_are_balanced():
    for grid in (
        paper_grid([holed_summary(HOSTILE)]),
        corruption_grid([holed_summary(HOSTILE)], "imagenet_c", "ce"),
    ):
        text = latex(grid)
        unescaped = re.sub(r"\\[{}]", "", text)
        assert unescaped.count("{") == unescaped.count("}")
        begun = re.findall(r"\\begin{(.*?)}", text)
        assert begun == list(reversed(re.findall(r"\\end{(.*?)}", text)))
        cells = {
            len(re.findall(r"(?<!\\)&", line))
            for line in text.splitlines()
            if line.endswith(r"\\") and "multicolumn" not in line
        }
        assert cells == {len(grid.columns)}
