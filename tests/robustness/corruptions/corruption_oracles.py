"""Brute-force versions of the corruptions in NumPy and SciPy: loops and library calls, float64.

Each takes what chance decides as an argument, as the functions of the package do, and is written
from the description of the benchmark's generator (arXiv 1903.12261), not from the package. Images
are (H, W, 3) float64 in [0, 1]; OpenCV's operations are spelled out.
"""

import heapq
import math

import numpy as np
import scipy


def gaussian(field: np.ndarray, sigma: float, *, mode: str = "nearest", truncate: float = 4.0):
    """Blur the first two axes as scikit-image does."""
    sigmas = (sigma, sigma) + (0,) * (field.ndim - 2)
    return scipy.ndimage.gaussian_filter(field, sigmas, mode=mode, truncate=truncate)


def gaussian_noise(image, normal, std):
    return np.clip(image + normal * std, 0, 1)


def speckle_noise(image, normal, std):
    return np.clip(image + image * normal * std, 0, 1)


def shot_noise(image, uniform, count):
    return np.clip(scipy.stats.poisson.ppf(uniform, image * count) / count, 0, 1)


def impulse_noise(image, uniform, share):
    out = image.copy()
    out[uniform < share] = 1
    out[uniform < share / 2] = 0
    return out


def gaussian_blur(image, sigma):
    return np.clip(gaussian(image, sigma), 0, 1)


def defocus_blur(image, radius, smoothing):
    reach = max(radius, 8)
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1))
    for i in range(-reach, reach + 1):
        for j in range(-reach, reach + 1):
            kernel[reach + i, reach + j] = i * i + j * j <= radius * radius
    kernel /= kernel.sum()
    taps = np.arange(3) - 1 if radius <= 8 else np.arange(5) - 2
    smooth = np.exp(-(taps**2) / (2 * smoothing**2))
    for axis in (0, 1):
        kernel = scipy.ndimage.correlate1d(kernel, smooth / smooth.sum(), axis=axis, mode="mirror")
    planes = [scipy.ndimage.correlate(image[..., c], kernel, mode="mirror") for c in range(3)]
    return np.clip(np.stack(planes, axis=-1), 0, 1)


def zoomed(image, factor):
    """Zoom into the centre square and cut the middle out of what comes (square images)."""
    side = len(image)
    centre = math.ceil(side / factor)
    start = (side - centre) // 2
    part = image[start : start + centre, start : start + centre]
    large = scipy.ndimage.zoom(part, (factor, factor, 1), order=1)
    trim = (len(large) - side) // 2
    return large[trim : trim + side, trim : trim + side]


def zoom_blur(image, last, step):
    factors = np.arange(1, last, step)
    total = image + sum(zoomed(image, factor) for factor in factors)
    return np.clip(total / (len(factors) + 1), 0, 1)


def glass_blur(image, displacements, sigma, reach, *, swap=False):
    levels = np.uint8(np.clip(gaussian(image, sigma), 0, 1) * 255 + 1e-3)
    height, width, _ = levels.shape
    for walk in displacements:
        for row in range(height - reach, reach, -1):
            for column in range(width - reach, reach, -1):
                down, right = walk[row, column]
                there = (row + down, column + right)
                kept = levels[row, column].copy()
                levels[row, column] = levels[there]
                if swap:
                    levels[there] = kept
    return np.clip(gaussian(levels / 255.0, sigma), 0, 1)


def moved(image, angle, radius, sigma):
    """Sum the taps of a motion blur one pixel at a time."""
    height, width = image.shape[:2]
    count = 2 * int(radius) + 1
    weights = [math.exp(-(i**2) / (2 * sigma**2)) for i in range(count)]
    out = np.zeros_like(image)
    for row in range(height):
        for column in range(width):
            for i, weight in enumerate(weights):
                down = math.ceil(i * math.sin(math.radians(angle)) - 0.5)
                right = math.ceil(i * math.cos(math.radians(angle)) - 0.5)
                at = min(max(row + down, 0), height - 1), min(max(column + right, 0), width - 1)
                out[row, column] += weight * image[at]
    return out / sum(weights)


def motion_blur(image, angle, radius, sigma):
    sixteen_bits = np.round(moved(image, angle, radius, sigma) * 65535)
    return sixteen_bits // 257 / 255


def snow(image, normal, angle, mean, std, zoom, threshold, radius, sigma, kept):
    side = len(image)
    # The centre that is zoomed is all of the noise that is seen.
    noise = np.zeros((side, side, 1))
    centre = len(normal)
    start = (side - centre) // 2
    noise[start : start + centre, start : start + centre, 0] = mean + std * normal
    layer = zoomed(noise, zoom)[..., 0]
    layer[layer < threshold] = 0
    layer = np.floor(np.clip(layer, 0, 1) * 255) / 255
    layer = motion_blur(layer, angle, radius, sigma)[..., None]
    grey = (image @ [0.299, 0.587, 0.114])[..., None]
    whitened = kept * image + (1 - kept) * np.maximum(image, grey * 1.5 + 0.5)
    return np.clip(whitened + layer + np.rot90(layer, 2), 0, 1)


def frost(image, uniforms, image_weight, frost_weight, pictures):
    picture = pictures[int(uniforms[0] * min(len(pictures), 5))] / 255.0
    height, width, _ = image.shape
    top = int(uniforms[1] * (picture.shape[0] - height))
    left = int(uniforms[2] * (picture.shape[1] - width))
    window = picture[top : top + height, left : left + width]
    return np.clip(image_weight * image + frost_weight * window, 0, 1)


def plasma(numbers, size, decay):
    """Fill a wrapped-around grid in place, from coarse to fine."""
    heights = np.zeros((size, size))
    numbers = list(numbers)
    step, rough = size, 100.0

    def take():
        count = size // step
        taken = np.reshape(numbers[: count * count], (count, count))
        del numbers[: count * count]
        return taken * rough * rough

    while step >= 2:
        half = step // 2
        for target, neighbours in (
            ((half, half), ((0, 0), (step, 0), (0, step), (step, step))),
            ((0, half), ((half, half), (-half, half), (0, 0), (0, step))),
            ((half, 0), ((half, half), (half, -half), (0, 0), (step, 0))),
        ):
            random = take()
            for i in range(size // step):
                for j in range(size // step):
                    corner = np.array([i * step, j * step])
                    around = [heights[tuple((corner + n) % size)] for n in neighbours]
                    place = tuple((corner + target) % size)
                    heights[place] = np.mean(around) + random[i, j]
        step //= 2
        rough /= decay
    heights -= heights.min()
    return heights / heights.max()


def fog(image, numbers, strength, decay):
    height, width, _ = image.shape
    size = int(math.sqrt(len(numbers) + 1))
    layer = plasma(numbers, size, decay)[:height, :width, None]
    largest = image.max()
    return np.clip((image + strength * layer) * largest / (largest + strength), 0, 1)


def _hsv_changed(image, change):
    import colorsys

    out = np.zeros_like(image)
    for index in np.ndindex(image.shape[:2]):
        out[index] = colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*image[index])))
    return out


def brightness(image, summand):
    return _hsv_changed(image, lambda h, s, v: (h, s, min(v + summand, 1)))


def saturate(image, factor, summand):
    return _hsv_changed(image, lambda h, s, v: (h, min(max(s * factor + summand, 0), 1), v))


def contrast(image, factor):
    means = image.mean(axis=(0, 1))
    return np.clip((image - means) * factor + means, 0, 1)


def elastic_transform(image, corners, fields, strength, sigma, jitter):
    height, width, _ = image.shape
    third = min(height, width) // 3
    middle = np.array([width // 2, height // 2])
    old = middle + third * np.array([[1, 1], [1, -1], [-1, -1]])
    new = old + corners * jitter
    # Old positions as an affine function of new ones.
    matrix = np.linalg.solve(np.c_[new, np.ones(3)], old)
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    source = np.stack([x, y, np.ones_like(x)], axis=-1) @ matrix
    warped = [
        scipy.ndimage.map_coordinates(
            image[..., c], [source[..., 1], source[..., 0]], order=1, mode="mirror"
        )
        for c in range(3)
    ]
    right, down = (
        strength * gaussian(field, sigma, mode="reflect", truncate=3.0) for field in fields
    )
    out = [
        scipy.ndimage.map_coordinates(plane, [y + down, x + right], order=1, mode="reflect")
        for plane in warped
    ]
    return np.clip(np.stack(out, axis=-1), 0, 1)


def canny(levels, low, high):
    """Find edges pixel by pixel, then flood from the strong ones."""
    height, width = levels.shape
    smooth = [1, 2, 1]
    right = scipy.ndimage.correlate(levels, np.outer(smooth, [-1, 0, 1]), mode="nearest")
    down = scipy.ndimage.correlate(levels, np.outer([-1, 0, 1], smooth), mode="nearest")
    strength = np.pad(np.abs(right) + np.abs(down), 1)
    candidates = np.zeros(levels.shape, bool)
    for row in range(height):
        for column in range(width):
            m = strength[row + 1, column + 1]
            angle = math.degrees(math.atan2(abs(down[row, column]), abs(right[row, column])))
            if angle < 22.5:
                step, strict = (0, 1), False
            elif angle > 67.5:
                step, strict = (1, 0), False
            elif right[row, column] * down[row, column] < 0:
                step, strict = (1, -1), True
            else:
                step, strict = (1, 1), True
            before = strength[row + 1 - step[0], column + 1 - step[1]]
            after = strength[row + 1 + step[0], column + 1 + step[1]]
            is_largest = m > before and (m > after if strict else m >= after)
            candidates[row, column] = m > low and is_largest
    strong = candidates & (strength[1:-1, 1:-1] > high)
    return scipy.ndimage.binary_propagation(strong, np.ones((3, 3)), candidates)


def chamfer(is_source):
    """Find shortest paths over straight, diagonal and knight's moves (Dijkstra)."""
    moves = {}
    for down in range(-2, 3):
        for right in range(-2, 3):
            length = {1: 1.0, 2: 1.4, 5: 2.1969}.get(down**2 + right**2)
            if length:
                moves[down, right] = length
    distance = np.where(is_source, 0.0, np.inf)
    queue = [(0.0, *place) for place in np.argwhere(is_source)]
    heapq.heapify(queue)
    while queue:
        length, row, column = heapq.heappop(queue)
        if length > distance[row, column]:
            continue
        for (down, right), more in moves.items():
            there = row + down, column + right
            inside = 0 <= there[0] < len(distance) and 0 <= there[1] < distance.shape[1]
            if inside and length + more < distance[there] - 1e-9:
                distance[there] = length + more
                heapq.heappush(queue, (length + more, *there))
    return distance


def equalise(levels):
    counts = np.bincount(levels.astype(int).ravel(), minlength=256)
    first = np.flatnonzero(counts)[0]
    if counts[first] == levels.size:
        return levels
    table = np.round((np.cumsum(counts) - counts[first]) * 255.0 / (levels.size - counts[first]))
    return np.clip(table, 0, 255)[levels.astype(int)]


def spatter(image, normal, mean, std, sigma, threshold, amount, is_mud):
    liquid = gaussian(mean + std * normal, sigma)
    if is_mud:
        mask = gaussian((liquid > threshold).astype(float), amount)
        mask = np.where(mask < 0.8, 0, mask)[..., None]
        return np.clip(image * (1 - mask) + np.array([63, 42, 20]) / 255 * mask, 0, 1)
    liquid = np.floor(np.where(liquid < threshold, 0, liquid) * 255)
    distance = np.minimum(chamfer(canny(liquid, 50, 150)), 20)
    box = np.full((3, 3), 1 / 9)
    depth = equalise(np.floor(scipy.ndimage.correlate(distance, box, mode="mirror") + 1e-3))
    light = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
    shine = np.clip(scipy.ndimage.correlate(depth, light, mode="mirror"), 0, 255)
    water = liquid * np.round(scipy.ndimage.correlate(shine, box, mode="mirror"))
    opacity = (water / water.max() * amount)[..., None]
    return np.clip(image + opacity * np.array([175, 238, 238]) / 255, 0, 1)
