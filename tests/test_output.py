"""What is printed: names are never cut, a pipe gets lines that a program can read, and --json works everywhere."""

import io
import json
import os

import pytest

from keras_vae import cli, output
from keras_vae.presets import PRESETS, weights_of

HOSTILE = "a[bold]b[/x]c\x1b]52;c;aGk=\x07\x9b2J\u202ed:smile:"
SHOWN = "a[bold]b[/x]c\\x1b]52;c;aGk=\\x07\\x9b2J\\u202ed:smile:"


def keras_vae(capsys, *arguments):
    """Runs the command line in this process. Returns (exit code, standard output, standard error)."""
    capsys.readouterr()
    code = cli.main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def terminal(width):
    return output.Console(file=io.StringIO(), force_terminal=True, no_color=True, width=width)


def preset_table():
    rows = [(name, each.system, each.expect, ", ".join(weights_of(name))) for name, each in PRESETS.items()]
    return output.Table(("preset", "system", "what to see on MNIST", "weights"), rows)


@pytest.mark.parametrize("width", [30, 60, 80, 200])
def test_a_name_is_never_cut_or_broken_however_narrow_the_terminal(width):
    console = terminal(width)
    console.print(preset_table())
    lines = console.file.getvalue().splitlines()
    assert set(PRESETS) <= {line.split()[0] for line in lines if line.split()}
    assert "…" not in console.file.getvalue()
    shown = "".join("".join(lines).split())
    assert all("".join(word.split()) in shown for each in PRESETS.values() for word in each.expect.split())


def test_a_pipe_gets_a_line_for_each_row_that_can_be_split_at_tabs(capsys):
    code, out, _ = keras_vae(capsys, "presets")
    rows = [line.split("\t") for line in out.splitlines()]
    assert code == 0 and [row[0] for row in rows] == list(PRESETS)
    assert [row[1:] for row in rows] == [
        [each.system, each.expect, ", ".join(weights_of(name))] for name, each in PRESETS.items()
    ]


def test_a_cell_with_a_tab_or_a_line_break_stays_one_cell():
    console = output.Console(file=io.StringIO())
    console.print(output.Table(("name", "value"), [("a\tb\nc", "1")], title="of x\ny"))
    assert console.file.getvalue() == "# of x y\na b c\t1\n"


@pytest.mark.parametrize("width", [None, 30, 200])
def test_text_from_elsewhere_is_neither_markup_nor_an_order_to_the_terminal(width):
    console = terminal(width) if width else output.Console(file=io.StringIO())
    console.print(HOSTILE)
    console.print(output.Table((HOSTILE, "value"), [(HOSTILE, HOSTILE)], title=HOSTILE, caption=HOSTILE, header=True))
    printed = console.file.getvalue()
    for order in ("\x1b]", "\x07", "\x9b", "\u202e"):
        assert order not in printed
    assert printed.count(SHOWN) >= 5


def test_an_error_that_names_hostile_text_is_one_harmless_line(capsys, tmp_path):
    code, _, error = keras_vae(capsys, "evaluate", tmp_path / HOSTILE.replace("/", "-"))
    assert code == 2 and error.count("\n") == 1 and "\x1b" not in error and "\\x1b]52" in error


def test_a_name_that_is_no_unicode_can_be_printed(tmp_path):
    console = output.Console(file=io.TextIOWrapper(io.BytesIO(), "utf-8"))
    console.print(os.fsdecode(b"run-\xff"))
    console.file.flush()
    assert console.file.buffer.getvalue() == b"run-\\udcff\n"


def test_json_has_no_nan_and_no_control_characters():
    text = output.to_json({"a": float("nan"), "b": [float("inf"), 1.5], "c": HOSTILE})
    assert json.loads(text, parse_constant=pytest.fail) == {"a": None, "b": [None, 1.5], "c": HOSTILE}
    assert text.isascii() and "\x1b" not in text


def answers(run, folder):
    """Command -> (its arguments, what its JSON must hold)."""
    return {
        "presets": ([], lambda told: told[0]["preset"] == "mlp" and told[0]["weights"] == ["mnist"]),
        "evaluate": ([run, "--samples", 0], lambda told: told["results"]["loss"] > 0 and told["protocol"]),
        "audit": ([run], lambda told: {"name", "status", "numbers", "advice"} == set(told["findings"][0])),
        "compare": ([run], lambda told: told["runs"][str(run)]["results"]["loss"] > 0),
        "generate": ([run, "--to", folder / "a.npy"], lambda told: told["examples"] == 64),
        "reconstruct": ([run, "--to", folder / "b.png"], lambda told: told["path"] == str(folder / "b.png")),
        "encode": ([run, "--to", folder / "c.npz"], lambda told: told["arrays"]["z_mean"] == [297, 2]),
        "report": ([run], lambda told: told["path"] == str(run / "report.html")),
        "export": ([run, "--to", folder / "e"], lambda told: told["version"] == 1 and "decoder" in told["paths"]),
        "verify-export": ([run / "export"], lambda told: told["checks"] and told["failures"] == []),
        "publish": ([run, "--to", folder / "p", "--no-export"], lambda told: told["path"] == str(folder / "p")),
        "fit-prior": (
            [run, "--run-dir", folder / "f", "--components", 2, "--samples", 2, "--images", 20],
            lambda told: told["unit"] == "nats per example" and isinstance(told["gain"], float),
        ),
    }


def test_training_prints_its_results_as_json_and_nothing_else(trained):
    path, told = trained
    assert told["run"] == str(path) and told["results"]["loss"] > 0 and told["protocol"]["dataset"] == "digits"


LONG = ("audit", "export", "fit-prior", "report", "verify-export")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in LONG else ())
        for name in sorted(set(cli.cli.commands) - {"train"})
    ],
)
def test_every_command_prints_its_results_as_json_and_nothing_else(name, run_copy, tmp_path, capsys):
    arguments, holds = answers(run_copy, tmp_path)[name]
    code, out, _ = keras_vae(capsys, name, *arguments, "--json")
    assert code == 0 and holds(json.loads(out))
