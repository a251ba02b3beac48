// Where the names of points go, so that they run into as few others as may be.
const WIDTH = 7.4; // pixels of a character, about
const HEIGHT = 17;
const RADIUS = 8;

/** Plotly's text position of each name, for points {x, y} in pixels: above, below or beside, whichever is free. */
export function places(points, names) {
  const taken = points.map(({ x, y }) => ({ left: x - RADIUS, right: x + RADIUS, top: y - RADIUS, bottom: y + RADIUS }));
  return points.map((point, i) => {
    const options = Object.entries(boxes(point, WIDTH * names[i].length));
    const crowds = options.map(([, box]) => taken.filter((other, j) => j !== i && overlap(box, other)).length);
    const best = crowds.indexOf(Math.min(...crowds));
    taken.push(options[best][1]);
    return options[best][0];
  });
}

function boxes({ x, y }, width) {
  const above = { top: y - RADIUS - HEIGHT, bottom: y - RADIUS };
  const below = { top: y + RADIUS, bottom: y + RADIUS + HEIGHT };
  const level = { top: y - HEIGHT / 2, bottom: y + HEIGHT / 2 };
  const middle = { left: x - width / 2, right: x + width / 2 };
  const after = { left: x + RADIUS, right: x + RADIUS + width };
  const before = { left: x - RADIUS - width, right: x - RADIUS };
  return {
    "top center": { ...middle, ...above },
    "bottom center": { ...middle, ...below },
    "middle right": { ...after, ...level },
    "middle left": { ...before, ...level },
    "top right": { ...after, ...above },
    "bottom right": { ...after, ...below },
    "top left": { ...before, ...above },
    "bottom left": { ...before, ...below },
  };
}

const overlap = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
