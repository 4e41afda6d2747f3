"""Renders the frames of a clip: backdrop, board, actors, distractors, shaking camera, noise."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from misc.demo_set.backdrops import paint_backdrop
from misc.demo_set.figures import PAINT, draw_figure
from misc.demo_set.lettering import draw_board
from misc.demo_set.motions import Path, follow, make_path, stand
from misc.demo_set.plan import Actor, Plan, generator

WIDTH, HEIGHT = 160, 120
_MARGIN = 6  # the backdrop reaches beyond the frame, so that the camera can shake
_GRAIN_ROOM = 32
_ACTOR_SIDE = {"small": 34, "medium": 46, "big": 60}  # pixels


@dataclass(frozen=True)
class _Sprite:
    """An actor on its way, with the pictures of it that were made so far."""

    picture: Image.Image
    side: int
    path: Path

    def paste(self, frame: Image.Image, time: int) -> None:
        path = self.path
        side = max(4, round(self.side * float(path.scale[time])))
        figure = self.picture.resize((side, side), Image.Resampling.BILINEAR)
        if path.angle[time]:
            angle = float(path.angle[time])
            figure = figure.rotate(angle, Image.Resampling.BILINEAR, expand=True)
        left = round(float(path.x[time]) * WIDTH - figure.width / 2)
        top = round(float(path.y[time]) * HEIGHT - figure.height / 2)
        frame.paste(figure, (left, top), figure)


def render(plan: Plan, seed: int) -> np.ndarray:
    """Render a clip as uint8 frames (T, HEIGHT, WIDTH, 3)."""
    rng = generator(seed, "picture", plan.number)
    size = (WIDTH + 2 * _MARGIN, HEIGHT + 2 * _MARGIN)
    exposure = _exposure(rng)
    backdrop = _expose(paint_backdrop(plan.scene, *size, rng), exposure)
    board = _expose(draw_board(plan.written, rng), exposure) if plan.written else None
    title = rng.random() < 0.4
    place = _board_place(board, rng, title=title) if board else (0, 0)
    if board and not title:
        backdrop.paste(board, (place[0] + _MARGIN, place[1] + _MARGIN))
    sprites = _sprites(plan, exposure, rng)
    drifters = _drifters(rng, plan.num_frames)
    camera = _shake(rng, plan.num_frames)
    film = _film(rng)
    frames = np.empty((plan.num_frames, HEIGHT, WIDTH, 3), np.uint8)
    for time, (across, down) in enumerate(camera):
        frame = backdrop.crop((across, down, across + WIDTH, down + HEIGHT))
        pencil = ImageDraw.Draw(frame)
        for places, radius, colour in drifters:
            x, y = places[time]
            pencil.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
        for sprite in sprites:
            sprite.paste(frame, time)
        if board and title:
            frame.paste(board, place)
        frames[time] = np.asarray(_add_grain(frame, film, rng))
    return frames


def _sprites(plan: Plan, exposure: np.ndarray, rng: np.random.Generator) -> list[_Sprite]:
    path = make_path(plan.action, plan.num_frames, plan.seconds, rng)
    sprites = [_sprite(plan.actor, path, exposure, rng)]
    if plan.second:
        second = follow(path, rng) if plan.second_role == "follows" else stand(path, rng)
        sprites.insert(0, _sprite(plan.second, second, exposure, rng))
    return sprites


def _sprite(actor: Actor, path: Path, exposure: np.ndarray, rng: np.random.Generator) -> _Sprite:
    side = round(_ACTOR_SIDE[actor.size] * rng.uniform(0.9, 1.1))
    largest = round(side * float(path.scale.max()))
    picture = draw_figure(actor.kind, actor.colour)
    picture = _expose(picture.resize((largest, largest), Image.Resampling.LANCZOS), exposure)
    if path.facing_left:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return _Sprite(picture, side, path)


def _board_place(board: Image.Image, rng: np.random.Generator, *, title: bool) -> tuple[int, int]:
    """Choose the left upper corner: titles stand in the middle, boards anywhere above."""
    if title:
        bottom = rng.random() < 0.6
        return (WIDTH - board.width) // 2, HEIGHT - board.height - 5 if bottom else 5
    left = int(rng.integers(2, max(3, WIDTH - board.width - 2)))
    return left, int(rng.integers(5, 24))


def _drifters(
    rng: np.random.Generator, num_frames: int
) -> list[tuple[np.ndarray, float, tuple[int, int, int]]]:
    """Make small dots that drift through the picture and mean nothing."""
    drifters = []
    colours = list(PAINT.values())
    for _ in range(int(rng.integers(0, 4))):
        start, speed = rng.uniform((0, 0), (WIDTH, HEIGHT)), rng.normal(0, 1.5, 2)
        places = start + speed * np.arange(num_frames)[:, None]
        radius = float(rng.uniform(1.5, 3.5))
        drifters.append((places, radius, colours[int(rng.integers(len(colours)))]))
    return drifters


def _shake(rng: np.random.Generator, num_frames: int) -> np.ndarray:
    """Return the camera's corner in each frame, (T, 2) integers within the margin."""
    strength = float(rng.choice([0.0, 0.4, 1.2]))
    steps = rng.normal(0, strength, (num_frames, 2))
    walk = np.zeros(2)
    corners = []
    for step in steps:
        walk = 0.8 * walk + step  # pulled back to the middle, as a hand does
        corners.append(np.clip(np.round(walk) + _MARGIN, 0, 2 * _MARGIN))
    return np.array(corners, dtype=int)


def _exposure(rng: np.random.Generator) -> np.ndarray:
    """Draw one factor for each channel: exposure and tint of a clip."""
    return rng.uniform(0.85, 1.1) * rng.uniform(0.96, 1.04, 3)


def _expose(picture: Image.Image, exposure: np.ndarray) -> Image.Image:
    """Apply exposure and tint to a picture, its transparency excepted."""
    factors = np.ones(len(picture.getbands()))
    factors[:3] = exposure
    table = np.clip(np.outer(factors, np.arange(256)), 0, 255)
    return picture.point(table.astype(int).ravel().tolist())


def _film(rng: np.random.Generator) -> Image.Image:
    """Make a large field of noise around 128, to be cut at another place for every frame."""
    noise = rng.normal(128, rng.uniform(2, 8), (HEIGHT + _GRAIN_ROOM, WIDTH + _GRAIN_ROOM))
    return Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8)).convert("RGB")


def _add_grain(frame: Image.Image, film: Image.Image, rng: np.random.Generator) -> Image.Image:
    left, top = (int(place) for place in rng.integers(0, _GRAIN_ROOM, 2))
    piece = film.crop((left, top, left + WIDTH, top + HEIGHT))
    return ImageChops.add(frame, piece, offset=-128)
