"""Draws the actors: simple figures that look to the right, one main colour each."""

from collections.abc import Callable

from PIL import Image, ImageDraw

from misc.demo_set.pictures.backdrops import Colour

_SIDE = 256  # figures are drawn large and reduced, which smooths the edges
_INK = (30, 26, 34)
_WHITE = (250, 250, 250)

PAINT: dict[str, Colour] = {
    "red": (214, 40, 40),
    "orange": (245, 135, 30),
    "yellow": (250, 215, 50),
    "green": (50, 165, 70),
    "blue": (45, 95, 215),
    "purple": (130, 60, 175),
    "pink": (250, 135, 180),
    "white": (238, 238, 240),
}


class Pencil:
    """Draws outlined shapes in coordinates from 0 to 100."""

    def __init__(self, colour: Colour) -> None:
        self.image = Image.new("RGBA", (_SIDE, _SIDE), (*colour, 0))
        self.draw = ImageDraw.Draw(self.image)
        self.main = colour
        self.dark = _mix(colour, (20, 20, 30), 0.35)
        self.light = _mix(colour, (255, 255, 255), 0.45)

    def _scale(self, *numbers: float) -> list[float]:
        return [number * _SIDE / 100 for number in numbers]

    def oval(self, box: tuple[float, float, float, float], fill: Colour, line: int = 7) -> None:
        """Draw an ellipse in a box (left, top, right, bottom)."""
        self.draw.ellipse(self._scale(*box), fill=fill, outline=_INK, width=line)

    def block(
        self, box: tuple[float, float, float, float], fill: Colour, round_: float = 4
    ) -> None:
        """Draw a box with round corners."""
        radius = self._scale(round_)[0]
        self.draw.rounded_rectangle(self._scale(*box), radius, fill=fill, outline=_INK, width=7)

    def shape(self, places: list[tuple[float, float]], fill: Colour) -> None:
        """Draw a polygon."""
        points = [tuple(self._scale(*place)) for place in places]
        self.draw.polygon(points, fill=fill)
        self.draw.line([*points, points[0], points[1]], fill=_INK, width=7, joint="curve")

    def stroke(self, places: list[tuple[float, float]], fill: Colour, width: float) -> None:
        """Draw a line with round ends."""
        points = [tuple(self._scale(*place)) for place in places]
        thick = self._scale(width)[0]
        self.draw.line(points, fill=fill, width=round(thick), joint="curve")
        for x, y in points:
            self.draw.ellipse((x - thick / 2, y - thick / 2, x + thick / 2, y + thick / 2), fill)

    def limb(self, places: list[tuple[float, float]], fill: Colour, width: float) -> None:
        """Draw an outlined line."""
        self.stroke(places, _INK, width + 5)
        self.stroke(places, fill, width)

    def eye(self, x: float, y: float, radius: float = 5) -> None:
        """Draw an eye that looks to the right."""
        self.oval((x - radius, y - radius, x + radius, y + radius), _WHITE, 4)
        pupil = radius * 0.55
        x += radius * 0.3
        self.oval((x - pupil, y - pupil, x + pupil, y + pupil), _INK)


def draw_figure(kind: str, colour: str) -> Image.Image:
    """Draw one actor as a square RGBA picture."""
    pencil = Pencil(PAINT[colour])
    _DRAWINGS[kind](pencil)
    return pencil.image


def _mix(colour: Colour, other: Colour, share: float) -> Colour:
    red, green, blue = (
        round((1 - share) * a + share * b) for a, b in zip(colour, other, strict=True)
    )
    return red, green, blue


def _cat(p: Pencil) -> None:
    p.limb([(20, 62), (8, 48), (12, 28)], p.main, 7)
    for x in (26, 36, 56, 66):
        p.limb([(x, 72), (x, 90)], p.main, 8)
    p.oval((16, 46, 74, 82), p.main)
    for x in (30, 41, 52):
        p.stroke([(x, 50), (x - 2, 64)], p.dark, 4)
    p.shape([(58, 36), (58, 12), (72, 24)], p.main)
    p.shape([(94, 36), (94, 12), (80, 24)], p.main)
    p.oval((54, 20, 98, 60), p.main)
    p.eye(68, 37)
    p.eye(85, 37)
    p.shape([(74, 46), (82, 46), (78, 51)], (240, 130, 150))
    for y in (47, 53):
        p.stroke([(60, y), (50, y - 1)], _INK, 2)
        p.stroke([(92, y), (100, y - 1)], _INK, 2)


def _dog(p: Pencil) -> None:
    p.limb([(14, 50), (4, 36)], p.main, 8)
    for x in (20, 30, 56, 66):
        p.limb([(x, 70), (x, 92)], p.main, 9)
    p.block((10, 46, 74, 76), p.main, 14)
    p.oval((22, 50, 46, 68), p.dark, 1)
    p.block((52, 18, 84, 56), p.main, 12)
    p.block((74, 36, 100, 54), p.light, 8)
    p.oval((92, 34, 101, 44), _INK)
    p.oval((46, 18, 62, 56), p.dark)
    p.eye(74, 30)


def _bird(p: Pencil) -> None:
    p.shape([(24, 55), (0, 42), (2, 66)], p.dark)
    p.oval((16, 34, 76, 76), p.main)
    p.oval((56, 16, 90, 52), p.main)
    p.shape([(86, 28), (100, 35), (86, 41)], (250, 180, 40))
    p.shape([(34, 50), (62, 50), (36, 20), (20, 12)], p.light)
    p.eye(75, 30)
    for x in (42, 54):
        p.stroke([(x, 76), (x, 92), (x + 8, 92)], (235, 150, 40), 4)


def _fish(p: Pencil) -> None:
    p.shape([(28, 50), (2, 26), (8, 50), (2, 74)], p.dark)
    p.shape([(42, 32), (62, 12), (70, 34)], p.dark)
    p.shape([(46, 68), (56, 88), (66, 66)], p.dark)
    p.oval((20, 26, 96, 74), p.main)
    for x in (42, 54):
        p.draw.arc(p._scale(x - 14, 36, x + 6, 64), -60, 60, fill=p.light, width=9)
    p.eye(80, 43, 6)
    p.stroke([(86, 59), (94, 57)], _INK, 3)


def _rabbit(p: Pencil) -> None:
    p.oval((8, 58, 24, 74), _WHITE)
    p.oval((14, 46, 66, 90), p.main)
    p.block((44, 80, 70, 92), p.main, 6)
    p.block((16, 80, 44, 92), p.main, 6)
    for x in (58, 74):
        p.oval((x, 0, x + 14, 40), p.main)
        p.oval((x + 4, 6, x + 10, 34), (250, 190, 205), 1)
    p.oval((52, 28, 94, 66), p.main)
    p.eye(80, 42)
    p.oval((88, 48, 96, 56), (240, 120, 150), 3)
    p.block((80, 58, 88, 68), _WHITE, 1)


def _snail(p: Pencil) -> None:
    p.limb([(88, 46), (82, 28)], p.light, 4)
    p.limb([(92, 46), (96, 28)], p.light, 4)
    p.block((2, 72, 84, 90), p.light, 9)
    p.oval((72, 42, 100, 90), p.light)
    p.oval((12, 20, 74, 82), p.main)
    p.draw.arc(p._scale(22, 30, 64, 72), 0, 320, fill=_INK, width=8)
    p.draw.arc(p._scale(32, 40, 54, 62), 90, 400, fill=_INK, width=8)
    p.eye(88, 58)


def _butterfly(p: Pencil) -> None:
    for box, dot in (
        ((4, 6, 50, 56), (16, 18, 36, 40)),
        ((50, 6, 96, 56), (64, 18, 84, 40)),
        ((12, 48, 50, 92), (22, 60, 38, 78)),
        ((50, 48, 88, 92), (62, 60, 78, 78)),
    ):
        p.oval(box, p.main)
        p.oval(dot, p.light, 4)
    p.limb([(48, 26), (36, 6)], _INK, 1)
    p.limb([(52, 26), (64, 6)], _INK, 1)
    p.block((44, 22, 56, 84), _INK, 6)


def _child(p: Pencil) -> None:
    skin = (240, 190, 150)
    for x in (42, 58):
        p.limb([(x, 70), (x, 92), (x + 6, 93)], (70, 75, 110), 8)
    p.limb([(36, 46), (18, 60)], skin, 7)
    p.limb([(64, 46), (84, 38)], skin, 7)
    p.block((32, 38, 68, 74), p.main, 8)
    p.oval((30, 2, 70, 42), skin)
    p.draw.pieslice(p._scale(30, 1, 70, 38), 165, 340, fill=(95, 60, 35))
    p.eye(58, 24, 4)
    p.eye(45, 24, 4)
    p.draw.arc(p._scale(44, 22, 60, 37), 20, 160, fill=_INK, width=5)


def _robot(p: Pencil) -> None:
    grey = (165, 170, 180)
    p.limb([(50, 16), (50, 5)], grey, 3)
    p.oval((44, 0, 56, 10), (250, 90, 60), 4)
    for x in (36, 64):
        p.limb([(x, 76), (x, 92)], grey, 9)
    p.limb([(26, 48), (12, 62), (12, 70)], grey, 7)
    p.limb([(74, 48), (88, 62), (88, 70)], grey, 7)
    p.block((26, 42, 74, 78), p.main)
    p.block((36, 50, 64, 66), p.light, 2)
    for x in (42, 50, 58):
        p.oval((x - 3, 55, x + 3, 61), _INK)
    p.block((28, 13, 72, 40), p.main)
    p.block((36, 20, 47, 31), (160, 240, 250), 1)
    p.block((54, 20, 65, 31), (160, 240, 250), 1)


def _car(p: Pencil) -> None:
    p.shape([(22, 48), (34, 26), (66, 26), (80, 48)], p.main)
    p.shape([(31, 47), (38, 32), (49, 32), (49, 47)], (190, 225, 245))
    p.shape([(54, 47), (54, 32), (63, 32), (71, 47)], (190, 225, 245))
    p.block((2, 46, 98, 74), p.main, 8)
    p.oval((88, 52, 98, 62), (255, 240, 150), 4)
    p.block((2, 52, 9, 60), p.dark, 2)
    for x in (26, 74):
        p.oval((x - 14, 60, x + 14, 88), (45, 45, 50))
        p.oval((x - 6, 68, x + 6, 80), (200, 200, 205), 4)


def _boat(p: Pencil) -> None:
    p.stroke([(48, 70), (48, 2)], (110, 75, 45), 4)
    p.shape([(52, 6), (52, 58), (88, 58)], _WHITE)
    p.shape([(44, 14), (44, 58), (16, 58)], p.light)
    p.shape([(2, 64), (98, 64), (82, 90), (18, 90)], p.main)
    for x in (34, 50, 66):
        p.oval((x - 4, 70, x + 4, 78), _WHITE, 4)


def _ball(p: Pencil) -> None:
    p.oval((8, 8, 92, 92), p.main)
    p.draw.pieslice(p._scale(10, 10, 90, 90), -25, 25, fill=p.light)
    p.draw.pieslice(p._scale(10, 10, 90, 90), 95, 145, fill=p.light)
    p.draw.pieslice(p._scale(10, 10, 90, 90), 215, 265, fill=p.light)
    p.oval((40, 40, 60, 60), _WHITE, 5)


def _balloon(p: Pencil) -> None:
    for x in (40, 60):
        p.stroke([(x - 8 if x < 50 else x + 8, 62), (x, 80)], _INK, 2)
    p.oval((14, 0, 86, 70), p.main)
    p.oval((36, 0, 64, 70), p.light, 5)
    p.block((38, 79, 62, 97), (165, 115, 65), 3)


def _rocket(p: Pencil) -> None:
    p.shape([(40, 80), (50, 99), (60, 80)], (255, 170, 50))
    p.shape([(32, 56), (12, 84), (34, 80)], p.dark)
    p.shape([(68, 56), (88, 84), (66, 80)], p.dark)
    p.shape([(50, 1), (68, 26), (68, 82), (32, 82), (32, 26)], p.main)
    p.shape([(50, 1), (66, 24), (34, 24)], p.light)
    p.oval((40, 34, 60, 54), (190, 225, 245), 6)


_DRAWINGS: dict[str, Callable[[Pencil], None]] = {
    "cat": _cat,
    "dog": _dog,
    "bird": _bird,
    "fish": _fish,
    "rabbit": _rabbit,
    "snail": _snail,
    "butterfly": _butterfly,
    "child": _child,
    "robot": _robot,
    "car": _car,
    "boat": _boat,
    "ball": _ball,
    "balloon": _balloon,
    "rocket": _rocket,
}
