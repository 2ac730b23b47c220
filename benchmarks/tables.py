"""Tables in which each section can be measured anew alone."""


def write_section(table, section, heading):
    """Puts a section into a Markdown file, in the place of the one of the same title if there is one.

    Args:
        table: Path of the file.
        section: Lines, the first of which is the title, "## ...".
        heading: Lines above all sections, which take the place of those that are there.
    """
    text = table.read_text() if table.exists() else ""
    sections = {part.partition("\n")[0]: f"## {part.strip()}" for part in text.split("\n## ")[1:]}
    sections[section[0].removeprefix("## ")] = "\n".join(section).strip()
    table.write_text("\n\n".join(["\n".join(heading).strip(), *sections.values()]) + "\n")
