"""Letters of 5 x 7 dots, the boards and titles that are written with them."""

import numpy as np
from PIL import Image, ImageDraw

LETTER_WIDTH, LETTER_HEIGHT, PITCH = 5, 7, 6  # dots
DOT = 2  # pixels

_ROWS = {
    "A": "01110 10001 10001 11111 10001 10001 10001",
    "B": "11110 10001 10001 11110 10001 10001 11110",
    "C": "01110 10001 10000 10000 10000 10001 01110",
    "D": "11110 10001 10001 10001 10001 10001 11110",
    "E": "11111 10000 10000 11110 10000 10000 11111",
    "F": "11111 10000 10000 11110 10000 10000 10000",
    "G": "01110 10001 10000 10111 10001 10001 01111",
    "H": "10001 10001 10001 11111 10001 10001 10001",
    "I": "01110 00100 00100 00100 00100 00100 01110",
    "J": "00111 00010 00010 00010 00010 10010 01100",
    "K": "10001 10010 10100 11000 10100 10010 10001",
    "L": "10000 10000 10000 10000 10000 10000 11111",
    "M": "10001 11011 10101 10101 10001 10001 10001",
    "N": "10001 11001 10101 10101 10011 10001 10001",
    "O": "01110 10001 10001 10001 10001 10001 01110",
    "P": "11110 10001 10001 11110 10000 10000 10000",
    "Q": "01110 10001 10001 10001 10101 10010 01101",
    "R": "11110 10001 10001 11110 10100 10010 10001",
    "S": "01111 10000 10000 01110 00001 00001 11110",
    "T": "11111 00100 00100 00100 00100 00100 00100",
    "U": "10001 10001 10001 10001 10001 10001 01110",
    "V": "10001 10001 10001 10001 10001 01010 00100",
    "W": "10001 10001 10001 10101 10101 11011 10001",
    "X": "10001 10001 01010 00100 01010 10001 10001",
    "Y": "10001 10001 01010 00100 00100 00100 00100",
    "Z": "11111 00001 00010 00100 01000 10000 11111",
}
ALPHABET = "".join(_ROWS)
# (26, 7, 5), 1 where there is ink.
GLYPHS = np.array(
    [[[int(dot) for dot in row] for row in _ROWS[letter].split()] for letter in ALPHABET]
)

_STYLES = (  # board, ink
    ((245, 243, 235), (25, 25, 35)),
    ((250, 214, 60), (30, 25, 20)),
    ((25, 60, 140), (250, 250, 250)),
    ((30, 30, 34), (255, 225, 90)),
    ((165, 25, 35), (255, 250, 240)),
    ((24, 100, 60), (250, 250, 240)),
)


def text_mask(word: str) -> np.ndarray:
    """Return the dots of a word, one row of letters, as an array (7, 6 n - 1) of 0 and 1."""
    letters = [GLYPHS[ALPHABET.index(letter)] for letter in word.upper()]
    gap = np.zeros((LETTER_HEIGHT, PITCH - LETTER_WIDTH), dtype=letters[0].dtype)
    return np.hstack([part for letter in letters for part in (letter, gap)])[:, : -gap.shape[1]]


def draw_board(words: tuple[str, ...], rng: np.random.Generator) -> Image.Image:
    """Draw a board with one word a line."""
    back, ink = _STYLES[int(rng.integers(len(_STYLES)))]
    masks = [text_mask(word) for word in words]
    margin, leading = 3, LETTER_HEIGHT + 3
    across = max(mask.shape[1] for mask in masks) + 2 * margin
    down = leading * len(masks) - 3 + 2 * margin
    board = Image.new("RGB", (across * DOT, down * DOT), back)
    pencil = ImageDraw.Draw(board)
    pencil.rectangle((0, 0, across * DOT - 1, down * DOT - 1), outline=ink, width=1)
    for line, mask in enumerate(masks):
        dots = Image.fromarray((mask * 255).astype(np.uint8))
        large = dots.resize((dots.width * DOT, dots.height * DOT), Image.Resampling.NEAREST)
        left = (across - mask.shape[1]) // 2 * DOT
        board.paste(ink, (left, (margin + leading * line) * DOT), mask=large)
    return board
