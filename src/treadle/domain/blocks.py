"""Memory blocks: labelled texts that an agent reads before every step."""

from msgspec import Struct

BLOCK_CHARS = 5000
"""The default limit of the text of a block, in characters."""


class Block(Struct, frozen=True, gc=False, omit_defaults=True):
    """A labelled text that is part of the instructions, and that the model may edit with tools.

    - `label`: its name, for the model and for programs. `value`: its text.
    - `description`: what belongs in it, which the model reads.
    - `limit`: how many characters the text may have.
    - `read_only`: the model's tools cannot change it; programs and people can.
    - `shared`: the name of the shared memory in which it lives, so that threads of one owner read
      and edit the same text; empty where it belongs to one thread alone.
    """

    label: str
    value: str = ""
    description: str = ""
    limit: int = BLOCK_CHARS
    read_only: bool = False
    shared: str = ""

    @property
    def rules(self) -> "BlockRules":
        """What holds for its text."""
        return BlockRules(self.description, self.limit, self.read_only)


class BlockRules(Struct, frozen=True, gc=False, omit_defaults=True):
    """What holds for the text of a block; see `Block`."""

    description: str = ""
    limit: int = BLOCK_CHARS
    read_only: bool = False


class AppendText(Struct, frozen=True, tag="append"):
    """Adds a line at the end of a block."""

    label: str
    text: str


class ReplaceText(Struct, frozen=True, tag="replace"):
    """Replaces a text that stands in a block exactly once."""

    label: str
    old: str
    new: str


class InsertText(Struct, frozen=True, tag="insert"):
    """Inserts lines after line number `line`: 0 puts them first, -1 last."""

    label: str
    text: str
    line: int = -1


class RewriteBlock(Struct, frozen=True, tag="rewrite"):
    """Gives a block another text."""

    label: str
    value: str


class CreateBlock(Struct, frozen=True, tag="create"):
    """Adds a block."""

    block: Block

    @property
    def label(self) -> str:
        """The label of the block."""
        return self.block.label


class ConfigureBlock(Struct, frozen=True, tag="configure"):
    """Changes what holds for the text of a block; None leaves it, and the text stays in any case.

    A text that is longer than the new limit may only become shorter.
    """

    label: str
    description: str | None = None
    limit: int | None = None
    read_only: bool | None = None


class DeleteBlock(Struct, frozen=True, tag="delete"):
    """Removes a block."""

    label: str


BlockEdit = (
    AppendText
    | ReplaceText
    | InsertText
    | RewriteBlock
    | CreateBlock
    | ConfigureBlock
    | DeleteBlock
)
"""What may be asked of a memory block; see `treadle.domain.block_edits` for what is refused."""
