"""What the command line prints: text and tables that fit a terminal, plain lines for a pipe, and JSON.

Whatever is printed goes through `Console`: text is text, never markup or an order to the terminal.
"""

import json
import math
import unicodedata

from rich import box, console, table
from rich.cells import cell_len
from rich.segment import Segment

CONTROLS = ("Cc", "Cs", "Zl", "Zp")  # categories: controls, surrogates, line separators
DIRECTIONS = ("LRE", "LRO", "RLE", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")  # which can make text read as another
GAP = 3  # letters between two columns
NARROW = 16  # letters in a line of a column of text, at least


def printable(text):
    """Text whose control characters are written out, so that a terminal shows them and does not obey them.

    Example:

    >>> from keras_vae.output import printable
    >>> printable("a\\x1b[2Jb")
    'a\\\\x1b[2Jb'
    """
    return "".join(map(_printable, str(text)))


def _printable(character):
    obeyed = unicodedata.category(character) in CONTROLS or unicodedata.bidirectional(character) in DIRECTIONS
    return character.encode("unicode_escape").decode() if obeyed and character not in "\n\t" else character


def counted(count, noun):
    """A number and its noun: "1 error", "2 errors"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def to_json(values):
    """Values as JSON in ASCII. What is not finite becomes null, for JSON knows no NaN; paths become strings."""
    return json.dumps(_finite(values), indent=2, default=str, allow_nan=False)


class OutputError(OSError):
    """The standard output cannot be written to."""


class Console(console.Console):
    """A `rich.console.Console` for text that others wrote.

    Args:
        **options: Those of `rich.console.Console`, such as `file` and `stderr`.
    """

    def __init__(self, **options):
        super().__init__(markup=False, emoji=False, highlight=False, soft_wrap=True, **options)

    def render_str(self, text, **options):
        return super().render_str(printable(text), **options)

    def print(self, *objects, **options):
        """Prints as `rich.console.Console` does.

        Raises:
            OutputError: if what it prints to is full.
        """
        try:
            super().print(*objects, **options)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(error.errno, f"Cannot write to the standard output: {error.strerror}") from None


class Table:
    """A table that never cuts a name: columns on a terminal, one below the other where that is too narrow for them, and
    in a pipe lines of tab-separated values.

    Args:
        columns: Names of the columns.
        rows: Lists of texts.
        numbers: Positions of the columns that hold numbers.
        title: Text above the table, or "". In a pipe such a line begins with "# ".
        caption: Text below it.
        heading: Int, how many cells stand in the first line where the others stand below; 0 for columns that fit.
        header: Bool, whether a pipe gets the names of the columns.
    """

    def __init__(self, columns, rows, numbers=(), title="", caption="", heading=0, header=False):
        self.columns = columns
        self.rows = [list(map(str, row)) for row in rows]
        self.numbers = numbers
        self.title = title
        self.caption = caption
        self.heading = heading
        self.header = header

    def __rich_console__(self, console, options):
        if not console.is_terminal:
            yield from map(Segment, self._lines())
            return
        if self.title:
            yield self.title
        widths = [
            max(cell_len(printable(cell)) for cell in column) for column in zip(self.columns, *self.rows, strict=True)
        ]
        whole = {0, *self.numbers}  # and other columns may be broken into lines
        needed = sum(width if index in whole else min(width, NARROW) for index, width in enumerate(widths))
        if self.heading or needed + GAP * len(widths) > console.width:
            yield from self._stacked(self.heading or 1)
        else:
            yield self._grid(whole)
        if self.caption:
            yield self.caption

    def _lines(self):
        """One line for each row, of tab-separated cells."""
        rows = [self.columns, *self.rows] if self.header else self.rows
        lines = [[f"# {note}"] if note else [] for note in (self.title, self.caption)]
        lines[1:1] = rows
        return [printable("\t".join(" ".join(cell.split()) for cell in line)) + "\n" for line in lines if line]

    def _grid(self, whole):
        """Columns, of which those in `whole` are not broken."""
        grid = table.Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for index, column in enumerate(self.columns):
            justify = "right" if index in self.numbers else "left"
            grid.add_column(column, justify=justify, no_wrap=index in whole, overflow="fold")
        for row in self.rows:
            grid.add_row(*row)
        return grid

    def _stacked(self, heading):
        """The first cells in one line, and below it one line for each other cell."""
        for row in self.rows:
            yield "  ".join(f"{cell:<7}" for cell in row[:heading]).rstrip()
            for column, cell in zip(self.columns[heading:], row[heading:], strict=True):
                if cell:
                    yield f"{' ' * (9 if heading > 1 else 4)}{column}{': ' if column else ''}{cell}"


def _finite(value):
    if isinstance(value, dict):
        return {str(key): _finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value.item() if hasattr(value, "item") else value
