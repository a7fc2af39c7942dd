// Names beside the points of a figure: each on the side where it covers least. Knows pixels, no figure.
const Tags = (() => {
  const [HEIGHT, OFF] = [14, 8]; // pixels: of a line of text, and between a point and its name
  const AROUND = 5; // pixels that a point takes in every direction
  // Where the text's box begins, from its point; `w` is its width. In the order in which they are tried.
  const SIDES = {
    'middle right': (w) => [OFF, -HEIGHT / 2],
    'middle left': (w) => [-OFF - w, -HEIGHT / 2],
    'top center': (w) => [-w / 2, -OFF - HEIGHT],
    'bottom center': (w) => [-w / 2, OFF],
    'top right': (w) => [OFF / 2, -OFF / 2 - HEIGHT],
    'top left': (w) => [-OFF / 2 - w, -OFF / 2 - HEIGHT],
    'bottom right': (w) => [OFF / 2, OFF / 2],
    'bottom left': (w) => [-OFF / 2 - w, OFF / 2],
  };

  /**
   * Plotly's text position for every point { x, y, width } in pixels, y downwards, inside a plot of
   * `width` × `height`; `others` are further places that names keep clear of.
   */
  function sides(points, { width, height, others = [] }) {
    const taken = [...points, ...others].map(({ x, y }) => ({ x: x - AROUND, y: y - AROUND, w: 2 * AROUND, h: 2 * AROUND }));
    return points.map((point, place) => {
      let best = null;
      for (const [name, begin] of Object.entries(SIDES)) {
        const [dx, dy] = begin(point.width);
        const box = { x: point.x + dx, y: point.y + dy, w: point.width, h: HEIGHT };
        const own = taken[place];
        const covered = taken.reduce((sum, its) => sum + (its === own ? 0 : overlap(box, its)), 0) + outside(box, width, height);
        if (best === null || covered < best.covered) best = { name, box, covered };
      }
      taken.push(best.box);
      return best.name;
    });
  }

  function overlap(one, other) {
    const across = Math.min(one.x + one.w, other.x + other.w) - Math.max(one.x, other.x);
    const down = Math.min(one.y + one.h, other.y + other.h) - Math.max(one.y, other.y);
    return across > 0 && down > 0 ? across * down : 0;
  }

  /** What of a box lies outside of the plot, where text would be cut. */
  function outside({ x, y, w, h }, width, height) {
    return w * h - overlap({ x, y, w, h }, { x: 0, y: 0, w: width, h: height });
  }

  return { sides };
})();
